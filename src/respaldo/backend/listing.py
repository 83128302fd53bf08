"""One directory of a local repository, listed: which objects it holds, how long they are, when they came.

Names and rows come from the kernel, a directory a call, and are checked all at once where all are objects, which is
nearly always: a repository has tens of thousands of packs, and every backup lists them twice.

Invariant: what cannot be looked at is an error, and so is a thing that is no object under an object's name; only what
was deleted meanwhile is left out. Never follows a symbolic link.
"""

from __future__ import annotations

import os
import stat
import sys
from array import array
from collections.abc import Sequence
from typing import Final

from respaldo import kernel
from respaldo.backend.base import Listing, Names, is_leaf
from respaldo.backend.folders import shard
from respaldo.core.errors import Corruption
from respaldo.kernel.layout import IDENT, META

_NEVER_RECENT_NS: Final = (1 << 63) - 1
_LEAF_BYTES: Final = b"abcdefghijklmnopqrstuvwxyz0123456789-."
_LEAF_BYTES_MAX: Final = 128
_SHARD: Final = 2
# Where, in the 8-byte words of a META row, mode (with the owner in its upper half), size and mtime stand.
_ROW_WORDS: Final = META.size // 8
_MODE, _SIZE, _MTIME = 0, 2, 3
_MODE_MASK: Final = (1 << 32) - 1


def objects(fd: int, folder: str, subfolder: str = "") -> Listing:
    """Returns (full name, size in bytes) of the objects in an open directory, each once.

    Raises `OSError`, and `Corruption` for what is neither a file nor a directory under an object's name; a key slot
    that is no file has a size of 0.
    """
    leaves, words = _scan(fd)
    if _are_objects(leaves, subfolder) and all(map(_is_file, set(words[_MODE::_ROW_WORDS]))):
        prefix = folder + "/"
        return [(prefix + leaf, size) for leaf, size in zip(leaves, words[_SIZE::_ROW_WORDS], strict=True)]
    found: Listing = []
    for leaf, mode, size in zip(leaves, words[_MODE::_ROW_WORDS], words[_SIZE::_ROW_WORDS], strict=True):
        if not is_leaf(leaf) or (subfolder and shard(folder, leaf) != subfolder):
            continue
        name = f"{folder}/{leaf}"
        if _is_file(mode):
            found.append((name, size))
        elif folder == "keys":
            found.append((name, 0))  # reading it says what it is; the other slots open without it
        elif not stat.S_ISDIR(mode & _MODE_MASK):  # a directory is somebody's: no object is mistaken for it
            raise not_a_file(name)
    return found


def names(fd: int, folder: str, subfolder: str = "") -> Names:
    """Returns the full names of the objects in an open directory, each once; errors as of `objects`.

    Asks only the directory, which tells what is a file, and so takes a quarter of the time.
    """
    os.lseek(fd, 0, os.SEEK_SET)  # as the kernel does: whoever looked before left it at the end
    with os.scandir(fd) as entries:
        found = list(entries)
    leaves = list(dict.fromkeys(entry.name for entry in found))  # a directory that changes may show one twice
    if _are_objects(leaves, subfolder) and all(entry.is_file(follow_symlinks=False) for entry in found):
        prefix = folder + "/"
        return [prefix + leaf for leaf in leaves]
    return [name for name, _ in objects(fd, folder, subfolder)]


def arrivals(fd: int, folder: str) -> dict[str, int]:
    """Returns when each object of an open directory was last written to, in ns, by full name. Raises `OSError`."""
    leaves, words = _scan(fd)
    times = array("q", words.tobytes())[_MTIME::_ROW_WORDS]
    return {f"{folder}/{leaf}": time_ns for leaf, time_ns in zip(leaves, times, strict=True) if is_leaf(leaf)}


def not_a_file(name: str) -> Corruption:
    """Returns the error for a thing under an object's name.

    Skipped, it would be an object that is missing from a listing; followed, somebody else's file.
    """
    return Corruption(name, "something else than a regular file stands where an object should be")


def _scan(fd: int) -> tuple[list[str], array[int]]:
    """Returns the names in a directory and their META rows as words of 8 bytes."""
    joined, meta, ident = kernel.scan(fd, _NEVER_RECENT_NS, kernel.layout.SCAN_IGNORE_CTIME)
    leaves = os.fsdecode(joined).split("\0")[:-1]
    words = array("Q", meta)
    if sys.byteorder == "big":
        words.byteswap()
    if any(flags & kernel.layout.ENTRY_FAILED for flags in set(_flags(ident))):
        return _look_again(fd, leaves)
    return leaves, words


def _flags(ident: bytes) -> array[int]:
    """Returns the last column of IDENT rows."""
    flags = array("I", ident)
    if sys.byteorder == "big":
        flags.byteswap()
    per_row = IDENT.size // flags.itemsize
    return flags[per_row - 1 :: per_row]


def _look_again(fd: int, leaves: Sequence[str]) -> tuple[list[str], array[int]]:
    """Looks at each entry by itself, because the kernel could not look at one: raises what keeps it from that."""
    found: list[str] = []
    words = array("Q")
    for leaf in leaves:
        try:
            status = os.stat(leaf, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:  # deleted meanwhile
            continue
        found.append(leaf)
        row = array("Q", bytes(META.size))
        row[_MODE], row[_SIZE], row[_MTIME] = status.st_mode, status.st_size, status.st_mtime_ns % (1 << 64)
        words += row
    return found, words


def _are_objects(leaves: Sequence[str], subfolder: str) -> bool:
    """Whether all names are those of objects of this directory; False may mean that one has to look at each."""
    try:
        joined = "\0".join(leaves).encode("ascii")
    except UnicodeEncodeError:
        return False
    begins = b"\0" + joined
    return (
        not joined.translate(None, _LEAF_BYTES + b"\0")
        and b"\0." not in begins  # a temporary
        and max(map(len, leaves), default=0) <= _LEAF_BYTES_MAX
        and (not subfolder or (len(subfolder) == _SHARD and begins.count(b"\0" + subfolder.encode()) == len(leaves)))
    )


def _is_file(mode: int) -> bool:
    return stat.S_ISREG(mode & _MODE_MASK)
