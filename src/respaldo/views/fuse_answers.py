"""Answers to the kernel's requests about a mounted tree: requests from ``/dev/fuse`` in, what is written there out.

Everything is read-only. Any number of threads. What cannot be answered raises; `errno_of` says what the kernel is told,
so that nobody waits for ever. Nothing is kept for a node that the kernel knows, so it need not say what it forgets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from respaldo.core.errors import ChunkMissing, Corruption, NoSuchPath, NoSuchSnapshot, StorageError
from respaldo.views import fuse_wire as wire
from respaldo.views.contents import OpenFile
from respaldo.views.fuse_wire import Op
from respaldo.views.mounted import Mounted

_ENTRIES_AT_ONCE = 512
_LISTINGS_KEPT = 16
_FS_IOC_GETFLAGS = 0x80086601
Answer = bytes | Sequence[bytes | memoryview]


class _Failed(Exception):
    """Carries the errno of an answer."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Request(NamedTuple):
    """Is a request of the kernel."""

    op: int
    unique: int
    node: int
    body: bytes


@dataclass(slots=True)
class _Listing:
    """Is a directory that is being read: what is packed and not yet given, from an offset on."""

    rows: deque[bytes] = field(default_factory=deque)
    at: int = -1
    plus: bool = False
    whole: bool = False
    """Whether nothing comes behind the rows."""


class Answers:
    """Answers requests about one tree. Any number of threads."""

    def __init__(self, tree: Mounted, space: Callable[[], tuple[int, int]]) -> None:
        """``space`` returns the bytes and the number of files that `df` shows."""
        self._tree = tree
        self._space = space
        self._files: dict[int, OpenFile | bytes] = {}
        self._opens_directories = True
        self._listings: dict[int, _Listing] = {}
        self._handles = count(1)
        self._verbs: dict[int, Callable[[Request], Answer]] = {
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.READLINK: lambda request: tree.target(request.node),
            Op.OPEN: self._open,
            Op.READ: self._read,
            Op.STATFS: lambda _: wire.statfs_out(*space()),
            Op.RELEASE: self._release,
            Op.GETXATTR: self._getxattr,
            Op.LISTXATTR: self._listxattr,
            Op.INIT: self._init,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdirplus,
            Op.RELEASEDIR: lambda _: b"",
            Op.DESTROY: lambda _: b"",
            Op.IOCTL: self._ioctl,
            Op.LSEEK: self._lseek,
        }

    def answer(self, request: Request) -> Answer:
        """Returns the body of an answer; raises `OSError` with the errno that it is to be instead."""
        verb = self._verbs.get(request.op)
        if verb is None:
            raise _Failed(errno.EROFS if request.op in wire.WRITING else errno.ENOSYS)
        return verb(request)

    def _lookup(self, request: Request) -> Answer:
        item = self._tree.lookup(request.node, request.body.rstrip(b"\0"))
        if item is None:
            if self._tree.changes(request.node):
                raise _Failed(errno.ENOENT)
            return wire.no_entry_out(lasting=True)
        return wire.entry_out(item)

    def _getattr(self, request: Request) -> Answer:
        attributes, lasting = self._tree.attributes(request.node)
        return wire.attributes_out(attributes, lasting=lasting)

    def _open(self, request: Request) -> Answer:
        flags, _ = wire.OPEN_IN.unpack_from(request.body)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise _Failed(errno.EROFS)
        handle = next(self._handles)
        self._files[handle] = self._tree.open(request.node)
        return wire.OPEN_OUT.pack(handle, wire.KEEP_CACHE, 0)

    def _file(self, handle: int) -> OpenFile | bytes:
        file = self._files.get(handle)
        if file is None:
            raise _Failed(errno.EBADF)
        return file

    def _read(self, request: Request) -> Answer:
        handle, offset, size = wire.READ_IN.unpack_from(request.body)
        file = self._file(handle)
        if isinstance(file, bytes):
            return file[offset : offset + size]
        return self._tree.read(request.node, file, offset, size)

    def _release(self, request: Request) -> Answer:
        self._files.pop(wire.RELEASE_IN.unpack_from(request.body)[0], None)
        return b""

    def _lseek(self, request: Request) -> Answer:
        handle, offset, whence = wire.LSEEK_IN.unpack_from(request.body)
        file = self._file(handle)
        if isinstance(file, bytes):
            raise _Failed(errno.ENOSYS)
        found = self._tree.contents.seek(file, offset, data=whence == os.SEEK_DATA)
        if found is None:
            raise _Failed(errno.ENXIO)
        return wire.LSEEK_OUT.pack(found)

    def _ioctl(self, request: Request) -> Answer:
        """Answers which inode flags a file has; nothing else."""
        _, _, command, _, _, out_bytes = wire.IOCTL_IN.unpack_from(request.body)
        entry = self._tree.entry(request.node)
        if command != _FS_IOC_GETFLAGS or entry is None:
            raise _Failed(errno.ENOTTY)
        flags = entry.attributes.to_bytes(4, sys.byteorder)
        return [wire.IOCTL_OUT.pack(0, 0, 0, 0), (flags + bytes(4))[: out_bytes or 4]]

    # --- extended attributes ---------------------------------------------------------------------------------------

    def _getxattr(self, request: Request) -> Answer:
        size, _ = wire.XATTR_IN.unpack_from(request.body)
        name = request.body[wire.XATTR_IN.size :].rstrip(b"\0")
        entry = self._tree.entry(request.node)
        for key, value in entry.xattrs if entry is not None else ():
            if key == name:
                return _measured(value, size)
        raise _Failed(errno.ENODATA)

    def _listxattr(self, request: Request) -> Answer:
        size, _ = wire.XATTR_IN.unpack_from(request.body)
        entry = self._tree.entry(request.node)
        return _measured(wire.xattr_names(entry.xattrs) if entry is not None else b"", size)

    # --- directories -----------------------------------------------------------------------------------------------

    def _opendir(self, _: Request) -> Answer:
        """Says that directories need not be opened, which spares two requests for each.

        The kernel keeps their entries then, and looks by the time of a directory whether there are others now.
        """
        if self._opens_directories:
            return wire.OPEN_OUT.pack(0, 0, 0)
        raise _Failed(errno.ENOSYS)

    def _init(self, request: Request) -> Answer:
        *_, flags = wire.INIT_IN.unpack_from(request.body)
        self._opens_directories = not flags & wire.NO_OPENDIR_SUPPORT or not flags & wire.AUTO_INVAL_DATA
        return wire.init_out(request.body)

    def _readdir(self, request: Request) -> Answer:
        return self._list(request, plus=False)

    def _readdirplus(self, request: Request) -> Answer:
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> Answer:
        """Fills a buffer with entries from an offset on: 0 and 1 are the dots, an entry's is its position + 2."""
        _, offset, left = wire.READ_IN.unpack_from(request.body)
        listing = self._listings.pop(request.node, None) or _Listing()
        if listing.at != offset or listing.plus is not plus:
            listing.rows.clear()
            listing.at, listing.plus, listing.whole = offset, plus, False
        parts: list[bytes] = []
        rows = listing.rows
        while rows or self._fill(request.node, listing):
            left -= len(rows[0])
            if left < 0:
                break
            parts.append(rows.popleft())
            listing.at += 1
        if parts:  # and when all was given, the next request is to learn that there is no more
            self._listings[request.node] = listing
            while len(self._listings) > _LISTINGS_KEPT:
                with contextlib.suppress(KeyError, RuntimeError, StopIteration):
                    del self._listings[next(iter(self._listings))]
        return b"".join(parts)

    def _fill(self, node: int, listing: _Listing) -> bool:
        """Packs the next entries of a directory; whether there were any."""
        if listing.whole:
            return False
        at, rows, plus = listing.at + len(listing.rows), listing.rows, listing.plus
        for dot, name, ino in ((0, b".", node), (1, b"..", self._tree.parent(node)))[at:]:
            rows.append(
                wire.dot_plus_out(name, ino, dot + 1) if plus else wire.dirent_out(name, ino, stat.S_IFDIR, dot + 1)
            )
        first = max(at - 2, 0)
        listed = self._tree.listing(node, first, _ENTRIES_AT_ONCE)
        listing.whole = len(listed) < _ENTRIES_AT_ONCE
        if plus:
            rows.extend([wire.plus_out(item, next_at) for next_at, item in enumerate(listed, first + 3)])
        else:
            rows.extend(
                [
                    wire.dirent_out(item.name, item.attributes.ino, item.attributes.mode, next_at)
                    for next_at, item in enumerate(listed, first + 3)
                ]
            )
        return bool(rows)


def _measured(value: bytes, size: int) -> bytes:
    """Returns an attribute, or its length where that was asked."""
    if not size:
        return wire.XATTR_OUT.pack(len(value), 0)
    if len(value) > size:
        raise _Failed(errno.ERANGE)
    return value


def errno_of(error: BaseException) -> int:
    """Returns what a caller of the kernel is told."""
    match error:
        case _Failed(number=number):
            return number
        case NoSuchSnapshot():
            return errno.ESTALE
        case NoSuchPath():
            return errno.ENOENT
        case Corruption() | ChunkMissing() | StorageError():
            return errno.EIO
        case MemoryError():
            return errno.ENOMEM
    return errno.EIO
