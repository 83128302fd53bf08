"""Targets: requests to a mount, read from where the kernel writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from respaldo.views import fuse_wire as wire
from respaldo.views.fuse import Session
from respaldo.views.fuse_answers import Answers
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target
from tests.views.conftest import Scene

_LENGTH = struct.Struct("<H")
_REQUESTS_MAX = 40


class _Mount:
    """Has a tree, and both ends of what would be ``/dev/fuse``."""

    def __init__(self) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
        scene = Scene(Path(self._room.name))
        folder = scene.source / "d"
        folder.mkdir()
        for number in range(5):
            (folder / f"f{number}").write_bytes(bytes(range(256)) * 50 * number)
        (scene.source / "link").symlink_to("d/f1")
        os.mkfifo(scene.source / "fifo")
        with contextlib.suppress(OSError):  # not every file system has them
            os.setxattr(folder / "f1", "user.note", b"x" * 20)
        scene.snapshot()
        self.tree = scene.mounted()
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)

    def session(self) -> Session:
        """Returns a mount that was just made."""
        made = Session.__new__(Session)
        made._answers = Answers(self.tree, lambda: (1 << 40, 1000), acls=True)
        made._fd = self.theirs.fileno()
        made._be_idle()
        return made


_MOUNTS: list[_Mount] = []


def _mount() -> _Mount:
    if not _MOUNTS:
        _MOUNTS.append(_Mount())
    return _MOUNTS[0]


def _request(op: int, node: int, body: bytes = b"") -> bytes:
    data = wire.IN_HEADER.pack(wire.IN_HEADER.size + len(body), op, 77, node, 0, 0, 1, 0) + body
    return _LENGTH.pack(len(data)) + data


def _serve(data: bytes) -> None:
    """Gives a mount some requests, each with its length before it, and looks at every answer."""
    mount = _mount()
    session = mount.session()
    at = count = 0
    while at + _LENGTH.size <= len(data) and count < _REQUESTS_MAX:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        request = data[at : at + length]
        at += len(request)
        count += 1
        if len(request) < wire.IN_HEADER.size:  # of which the kernel makes none
            continue
        mount.ours.send(request)
        more = session._serve_one()
        op = wire.IN_HEADER.unpack_from(request)[1]
        assert more == (op != wire.Op.DESTROY)
        try:
            answer = mount.ours.recv(4 << 20)
        except BlockingIOError:
            continue  # none was wanted, or it was longer than a socket takes
        told, number, unique = wire.OUT_HEADER.unpack_from(answer)
        assert told == len(answer)
        assert -4096 < number <= 0
        assert number == 0 or len(answer) == wire.OUT_HEADER.size
        assert number == 0 or -number in errno.errorcode
        assert unique == wire.IN_HEADER.unpack_from(request)[2]


def _requests() -> Iterator[bytes]:
    mount = _mount()
    start = _request(wire.Op.INIT, 0, wire.INIT_IN.pack(7, 31, 1 << 20, 0xFFFFFFFF))
    way = [1]
    listing = start
    while len(way) < 12:  # down to what the snapshot holds
        items = mount.tree.listing(way[-1], 0, 100)
        listing += _request(wire.Op.OPENDIR, way[-1], wire.OPEN_IN.pack(0, 0))
        listing += _request(wire.Op.READDIRPLUS, way[-1], wire.READ_IN.pack(0, 0, 4096))
        listing += _request(wire.Op.READDIR, way[-1], wire.READ_IN.pack(0, 1, 300))
        if not items:
            break
        listing += _request(wire.Op.LOOKUP, way[-1], items[0].name + b"\0")
        folders = [item for item in items if item.attributes.mode & 0o170000 == 0o040000]
        if not folders:
            break
        way.append(folders[0].node)
    yield listing
    for node in [item.node for folder in way for item in mount.tree.listing(folder, 0, 100)][:40]:
        yield (
            _request(wire.Op.GETATTR, node, bytes(16))
            + _request(wire.Op.OPEN, node, wire.OPEN_IN.pack(os.O_RDONLY, 0))
            + _request(wire.Op.READ, node, wire.READ_IN.pack(1, 0, 4096))
            + _request(wire.Op.LSEEK, node, wire.LSEEK_IN.pack(1, 100, os.SEEK_HOLE))
            + _request(wire.Op.RELEASE, node, wire.RELEASE_IN.pack(1))
            + _request(wire.Op.READLINK, node)
            + _request(wire.Op.LISTXATTR, node, wire.XATTR_IN.pack(100, 0))
            + _request(wire.Op.GETXATTR, node, wire.XATTR_IN.pack(100, 0) + b"user.note\0")
            + _request(wire.Op.IOCTL, node, wire.IOCTL_IN.pack(0, 0, 0x80086601, 0, 0, 8))
            + _request(wire.Op.STATFS, node)
            + _request(wire.Op.SETATTR, node, bytes(88))
            + _request(wire.Op.FORGET, node, bytes(8))
        )


TARGETS = [
    Target(
        name="fuse",
        parse=_serve,
        seeds=_requests,
        refusals=(),
        form=Form.BYTES,
        modules=("respaldo.views.fuse_wire", "respaldo.views.fuse_answers"),
    ),
]
