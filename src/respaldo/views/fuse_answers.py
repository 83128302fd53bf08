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
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from typing import NamedTuple

from respaldo.core.errors import ChunkMissing, Corruption, KeyRotated, NoSuchPath, NoSuchSnapshot, StorageError
from respaldo.views import fuse_wire as wire
from respaldo.views.contents import OpenFile
from respaldo.views.fuse_wire import Op
from respaldo.views.mounted import Mounted
from respaldo.views.sealed import Sealed

_ENTRIES_AT_ONCE = 2048
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listing:
    """Is a part of a directory that is being read, packed: from an offset on, and where each of its rows ends."""

    first: int
    plus: bool
    data: bytes
    ends: list[int]
    last: bool
    """Whether nothing comes behind it."""

    def given(self, offset: int, size: int) -> bytes:
        """Returns whole rows from an offset on."""
        at = offset - self.first
        start = self.ends[at - 1] if at else 0
        end = bisect_right(self.ends, start + size)
        return self.data[start : self.ends[end - 1]] if end > at else b""


class Answers:
    """Answers requests about one tree. Any number of threads."""

    def __init__(self, tree: Mounted, space: Callable[[], tuple[int, int]], *, acls: bool = False) -> None:
        """``space`` returns the bytes and the number of files that `df` shows.

        ``acls``: the kernel checks permissions, and is to check them by ACLs too: by modes alone it would let the
        group in wherever an ACL lets anybody in.
        """
        self._acls = acls
        self._tree = tree
        self._space = space
        self._files: dict[int, OpenFile | Sealed | bytes] = {}
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

    def _file(self, handle: int) -> OpenFile | Sealed | bytes:
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
        data = whence == os.SEEK_DATA
        if isinstance(file, OpenFile):
            found = self._tree.contents.seek(file, offset, data=data)
        else:  # what is made up has no holes
            size = len(file) if isinstance(file, bytes) else file.length
            found = (offset if data else size) if offset < size else None
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
        for key, value in self._tree.xattrs(request.node):
            if key == name:
                return _measured(value, size)
        raise _Failed(errno.ENODATA)

    def _listxattr(self, request: Request) -> Answer:
        size, _ = wire.XATTR_IN.unpack_from(request.body)
        return _measured(wire.xattr_names(self._tree.xattrs(request.node)), size)

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
        return wire.init_out(request.body, acls=self._acls)

    def _readdir(self, request: Request) -> Answer:
        return self._list(request, plus=False)

    def _readdirplus(self, request: Request) -> Answer:
        return self._list(request, plus=True)

    def _list(self, request: Request, *, plus: bool) -> Answer:
        """Fills a buffer with entries from an offset on: 0 and 1 are the dots, an entry's is its position + 2."""
        _, offset, size = wire.READ_IN.unpack_from(request.body)
        listing = self._listings.get(request.node)
        if listing is None or listing.plus is not plus or not 0 <= offset - listing.first <= len(listing.ends):
            listing = None
        elif offset - listing.first == len(listing.ends):
            if listing.last:  # all was given; that nothing follows, is asked as well
                self._listings.pop(request.node, None)
                return b""
            listing = None
        if listing is None:
            listing = self._pack(request.node, offset, plus=plus)
            self._listings[request.node] = listing
            while len(self._listings) > _LISTINGS_KEPT:
                with contextlib.suppress(KeyError, RuntimeError, StopIteration):
                    del self._listings[next(iter(self._listings))]
        return listing.given(offset, size)

    def _pack(self, node: int, offset: int, *, plus: bool) -> _Listing:
        """Packs the entries of a directory from an offset on, not all of them where they are many."""
        rows = [
            wire.dot_plus_out(name, ino, dot + 1) if plus else wire.dirent_out(name, ino, stat.S_IFDIR, dot + 1)
            for dot, name, ino in ((0, b".", node), (1, b"..", self._tree.parent(node)))[offset:]
        ]
        first = max(offset - 2, 0)
        batch = self._tree.batch(node, first, _ENTRIES_AT_ONCE) if plus else None
        if batch is not None:
            rows += wire.batch_out(batch, first + 3)
            last = batch.last
        else:
            items = self._tree.listing(node, first, _ENTRIES_AT_ONCE)
            last = len(items) < _ENTRIES_AT_ONCE
            rows += [
                wire.plus_out(item, next_at)
                if plus
                else wire.dirent_out(item.name, item.attributes.ino, item.attributes.mode, next_at)
                for next_at, item in enumerate(items, first + 3)
            ]
        return _Listing(first=offset, plus=plus, data=b"".join(rows), ends=list(accumulate(map(len, rows))), last=last)


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
        case KeyRotated():
            return errno.EKEYREVOKED
        case Corruption() | ChunkMissing() | StorageError():
            return errno.EIO
        case MemoryError():
            return errno.ENOMEM
    return errno.EIO
