"""What the kernel and a file system say to each other through ``/dev/fuse``: the rows of its protocol, packed. Pure.

The numbers are those of ``linux/fuse.h``, protocol 7.31, which later kernels speak too; all in the machine's own order.
Directories are answered in bulk: attributes go along with names (READDIRPLUS), one `pack` an entry.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from enum import IntEnum
from struct import Struct

from respaldo.kernel.layout import META
from respaldo.views.attributes import Attributes, Batch, Item

MAJOR, MINOR = 7, 31

IN_HEADER = Struct("=IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
OUT_HEADER = Struct("=IiQ")  # length, error, unique
INIT_IN = Struct("=IIII")  # major, minor, max_readahead, flags
INIT_OUT = Struct("=IIIIHHIIHHI7I")
ATTRIBUTES = Struct("=6Q10I")
ATTRIBUTES_OUT = Struct("=QII6Q10I")
ENTRY_OUT = Struct("=4Q2I6Q10I")
ENTRY_PLUS = Struct("=4Q2I6Q10IQQII")
DIRENT = Struct("=QQII")
OPEN_IN = Struct("=II")  # flags, flags of the kernel's own
OPEN_OUT = Struct("=QII")
READ_IN = Struct("=QQI")  # handle, offset, size
RELEASE_IN = Struct("=Q")
XATTR_IN = Struct("=II")
XATTR_OUT = Struct("=II")
STATFS_OUT = Struct("=5Q4I6I")
LSEEK_IN = Struct("=QQI")
LSEEK_OUT = Struct("=Q")
IOCTL_IN = Struct("=QIIQII")  # handle, flags, command, argument, in size, out size
IOCTL_OUT = Struct("=iIII")

ASYNC_READ = 1 << 0
AUTO_INVAL_DATA = 1 << 12
DO_READDIRPLUS = 1 << 13
PARALLEL_DIROPS = 1 << 18
POSIX_ACL = 1 << 20
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
NO_OPENDIR_SUPPORT = 1 << 24
WANTED = (
    ASYNC_READ | AUTO_INVAL_DATA | DO_READDIRPLUS | PARALLEL_DIROPS | MAX_PAGES | CACHE_SYMLINKS | NO_OPENDIR_SUPPORT
)

KEEP_CACHE = 1 << 1

READ_PAGES_MAX = 64
"""So many pages are asked for at once at most."""
READ_AHEAD_BYTES = 1 << 20
_WRITE_BYTES_MAX = 4096
REQUEST_BYTES_MAX = 16 << 10
"""No request is longer: nothing is written, and names are short."""
_U64 = (1 << 64) - 1
_PADDING = [bytes(-length & 7) for length in range(8)]
_NS = 10**9
LASTING_S = 1 << 30
"""What never changes is asked for once."""
CHANGING_S = 1


class Op(IntEnum):
    """Names the requests that are answered."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    GETXATTR = 22
    LISTXATTR = 23
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    IOCTL = 39
    BATCH_FORGET = 42
    READDIRPLUS = 44
    LSEEK = 46


WRITING = frozenset({4, 6, 8, 9, 10, 11, 12, 13, 16, 21, 24, 35, 43, 45, 51})
"""Requests that would change something."""


def init_out(body: bytes, *, acls: bool) -> bytes:
    """Returns the answer to INIT: what of the kernel's abilities is used; ``acls``: it checks permissions by them."""
    major, _, read_ahead, flags = INIT_IN.unpack_from(body)
    if major < MAJOR:
        return b""
    return INIT_OUT.pack(
        MAJOR,
        MINOR,
        min(read_ahead, READ_AHEAD_BYTES),
        flags & (WANTED | POSIX_ACL if acls else WANTED),
        16,
        12,
        _WRITE_BYTES_MAX,
        1,  # nanoseconds count
        READ_PAGES_MAX if flags & MAX_PAGES else 0,
        0,
        0,
        *(0,) * 7,
    )


def device(rdev: int) -> int:
    """Returns a device's number as the kernel's 32 bits hold it."""
    major, minor = rdev >> 32, rdev & 0xFFFFFFFF
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _fields(item: Attributes) -> tuple[int, ...]:
    ino, mode, nlink, uid, gid, size, on_disk, mtime_ns, rdev = item
    seconds, ns = divmod(mtime_ns, _NS)
    seconds &= _U64
    blocks = ((size if on_disk is None else on_disk) + 511) >> 9
    number = device(rdev) if rdev else 0
    return (ino, size, blocks, seconds, seconds, seconds, ns, ns, ns, mode, nlink, uid, gid, number, 4096, 0)


def attributes_out(item: Attributes, *, lasting: bool) -> bytes:
    """Returns the answer to GETATTR."""
    return ATTRIBUTES_OUT.pack(LASTING_S if lasting else CHANGING_S, 0, 0, *_fields(item))


def entry_out(item: Item) -> bytes:
    """Returns the answer to LOOKUP."""
    valid_s = LASTING_S if item.lasting else CHANGING_S
    attributes_s = 0 if item.attributes.size_on_disk is None else valid_s
    return ENTRY_OUT.pack(item.node, 0, valid_s, attributes_s, 0, 0, *_fields(item.attributes))


def no_entry_out(*, lasting: bool) -> bytes:
    """Returns the answer to LOOKUP of a name that is not there, and will not be for a while."""
    return ENTRY_OUT.pack(0, 0, LASTING_S if lasting else CHANGING_S, 0, 0, 0, *(0,) * 16)


def plus_out(item: Item, next_at: int) -> bytes:
    """Returns an entry of a directory with its attributes (READDIRPLUS); ``next_at``: where the next one is."""
    name, node, (ino, mode, nlink, uid, gid, size, on_disk, mtime_ns, rdev), lasting = item
    if size < 0:  # a name alone: who wants to know more looks it up
        return bytes(ENTRY_OUT.size) + dirent_out(name, ino, mode, next_at)
    valid_s = LASTING_S if lasting else CHANGING_S
    seconds, ns = divmod(mtime_ns, _NS)
    seconds &= _U64
    length = len(name)
    # In one go, and not by `_fields`: a tree of files goes through here.
    return (
        ENTRY_PLUS.pack(
            node,
            0,
            valid_s,
            0 if on_disk is None else valid_s,
            0,
            0,
            ino,
            size,
            ((on_disk or size) + 511) >> 9,
            seconds,
            seconds,
            seconds,
            ns,
            ns,
            ns,
            mode,
            nlink,
            uid,
            gid,
            device(rdev) if rdev else 0,
            4096,
            0,
            ino,
            next_at,
            length,
            mode >> 12 & 0xF,
        )
        + name
        + _PADDING[length & 7]
    )


def batch_out(batch: Batch, next_at: int) -> list[bytes]:
    """Returns the entries of a part of a directory as `plus_out` does; ``next_at``: where the one behind the first is.

    From bytes to bytes in one expression, since a tree of files goes through here: column by column takes longer unless
    a directory holds more than fifty.
    """
    packs, head, tail, base, ahead, second = _NAMED, _HEAD, _TAIL, batch.base, next_at - batch.base, _NS
    rows = [
        packs[length := len(name)](
            node,
            head,
            node,
            size,
            size + 511 >> 9,
            (seconds := mtime_ns // second & 0xFFFF_FFFF_FFFF_FFFF),
            seconds,
            seconds,
            (fraction := mtime_ns % second),
            fraction,
            fraction,
            mode,
            1,
            uid,
            gid,
            tail,
            node,
            node + ahead,
            length,
            mode >> 12 & 0xF,
            name,
        )
        for node, name, (mode, uid, gid, _, size, mtime_ns, _) in zip(
            range(base, base + len(batch.names)), batch.names, META.iter_unpack(batch.meta), strict=True
        )
    ]
    for row, attributes in batch.odd.items():
        rows[row] = plus_out(Item(batch.names[row], base + row, attributes, lasting=True), next_at + row)
    return rows


_HEAD = Struct("=3Q2I").pack(0, LASTING_S, LASTING_S, 0, 0)
_TAIL = Struct("=3I").pack(0, 4096, 0)
_NAMED = [Struct(f"=Q32s6Q7I12sQQII{-(-length // 8) * 8}s").pack for length in range(256)]
"""An entry with its name, by the length of that: `ENTRY_PLUS` with what is always the same (`_HEAD`, `_TAIL`) packed."""


def dot_plus_out(name: bytes, ino: int, next_at: int) -> bytes:
    """Returns ``.`` or ``..`` for READDIRPLUS: no entry that counts."""
    return _NOTHING + DIRENT.pack(ino, next_at, len(name), stat.S_IFDIR >> 12) + name + _PADDING[len(name)]


_NOTHING = bytes(ENTRY_OUT.size)


def dirent_out(name: bytes, ino: int, mode: int, next_at: int) -> bytes:
    """Returns an entry of a directory without attributes (READDIR)."""
    return DIRENT.pack(ino, next_at, len(name), stat.S_IFMT(mode) >> 12) + name + bytes(-len(name) & 7)


def statfs_out(length_bytes: int, files: int) -> bytes:
    """Returns the answer to STATFS: a full disk of that size."""
    blocks = -(-length_bytes // 4096)
    return STATFS_OUT.pack(blocks, 0, 0, files, 0, 4096, 255, 4096, 0, *(0,) * 6)


def xattr_names(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns the names of extended attributes as LISTXATTR gives them."""
    return b"".join(name + b"\0" for name, _ in pairs)
