"""Opening: directories become frames, and are opened again where their descriptor was given up.

Follows a link on the way to a source only; a directory is opened again only if it is the one it was.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from itertools import pairwise

from respaldo.core.errors import SourceError
from respaldo.flows.backup.frame import Frame, Node
from respaldo.flows.backup.memo import Memo
from respaldo.flows.backup.reader import open_source

DIRECTORY = os.O_DIRECTORY


def frame_of_root(root: Node) -> Frame:
    """Opens a source that is ``/``."""
    try:
        fd = os.open(root.actual, os.O_RDONLY | DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(root.actual, error.strerror or str(error), hint="only a directory can be /") from None
    status = os.fstat(fd)
    return Frame(
        path=b"/",
        relative=b"",
        fd=fd,
        row=-1,
        device=status.st_dev,
        inode=status.st_ino,
        actual=root.actual,
        key=Memo.key(b"/"),
    )


def frame_of_node(node: Node) -> Frame:
    """Opens a directory above sources, if it is there and can be opened: what matters is below."""
    fd = -1
    device = 0
    if node.actual:
        try:
            fd = os.open(node.actual, os.O_RDONLY | DIRECTORY | os.O_CLOEXEC)
            device = os.fstat(fd).st_dev
        except OSError:
            fd = -1
    return Frame(
        path=node.recorded,
        relative=b"",
        fd=fd,
        row=-1,
        device=device,
        only=node,
        # Which of its entries are recorded depends on what else was named.
        key=Memo.key(b"\0".join([node.recorded, *sorted(node.children)]), partial_listing=True),
    )


def frame_of_directory(parent: Frame, row: int, name: bytes, node: Node | None) -> Frame:
    """Opens a source, or an entry of a directory that is open; raises `OSError`."""
    if node is not None:
        fd = os.open(node.actual, os.O_RDONLY | DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    elif parent.fd >= 0:
        fd = open_source(name, parent.fd, DIRECTORY)
    else:
        raise OSError(errno.ESTALE, "a directory above it was moved")
    status = os.fstat(fd)
    path = parent.child_path(name)
    return Frame(
        path=path,
        relative=b"" if node is not None else (parent.relative + b"/" + name if parent.relative else name),
        fd=fd,
        row=row,
        device=status.st_dev,
        inode=status.st_ino,
        actual=node.actual if node is not None else b"",
        key=Memo.key(path),
    )


def open_from_above(stack: Sequence[Frame]) -> int:
    """Opens the directory on top of the stack step by step from the nearest that is open, -1 where it was moved."""
    at = len(stack) - 1
    while stack[at].fd < 0 and not stack[at].actual:
        at -= 1
    start = stack[at]
    fd = os.dup(start.fd) if start.fd >= 0 else open_again(start.actual, None, start)
    for above, frame in pairwise(stack[at:]):
        if fd >= 0:
            before, fd = fd, open_again(above.child_name(frame.row), fd, frame)
            os.close(before)
    return fd


def open_again(name: bytes, dir_fd: int | None, frame: Frame) -> int:
    """Opens the directory of a frame once more; -1 where it is another, or none."""
    try:
        fd = os.open(name, os.O_RDONLY | DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return -1
    status = os.fstat(fd)
    if (status.st_dev, status.st_ino) == (frame.device, frame.inode):
        return fd
    os.close(fd)
    return -1
