"""What is there: one scan of a directory that exists, walked in step with the snapshot's entries.

Both are in bytewise order, so that a directory of a million names needs no table. Says of an entry whether it is as the
snapshot has it but for its content.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from respaldo import kernel
from respaldo.core.model import Entry
from respaldo.fs.meta import CAPABILITY, Xattrs, beside, read_xattrs
from respaldo.fs.place import TEMPORARY, Folder
from respaldo.fs.settle import SET_ID, Owner
from respaldo.kernel.layout import ENTRY_FAILED, ENTRY_MOUNT, GATHER_XATTRS, GATHERED, IDENT, INODE_FLAGS, META

_OTHERS_LABELS = b"security."


class Present:
    """Is a directory's names and rows. One pass: names are asked for in ascending order."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.names, self._meta, self._ident = folder.scan()
        self._next = 0
        self._passed: list[int] = []
        self._probed: dict[int, tuple[bool, int]] = {}

    def row(self, name: bytes) -> int:
        """Returns the row of a name, -1 where it is not there. Never goes back."""
        names = self.names
        at, end = self._next, len(names)
        while at < end and names[at] < name:
            self._passed.append(at)
            at += 1
        found = at < end and names[at] == name
        self._next = at + found
        return at if found else -1

    def find(self, name: bytes) -> int:
        """Returns the row of a name, -1 where it is not there; has no part in the pass."""
        at = bisect_left(self.names, name)
        return at if at < len(self.names) and self.names[at] == name else -1

    def temporaries(self, after: bytes, last: bytes) -> range:
        """Returns the rows of names that begin as temporary ones do, and come after one and not after another."""
        begin = bisect_right(self.names, max(after, TEMPORARY))
        return range(begin, bisect_right(self.names, min(last, TEMPORARY + b"\xff"), begin))

    def others(self) -> list[int]:
        """Returns the rows that no name was asked for; ends the pass."""
        others = [*self._passed, *range(self._next, len(self.names))]
        self._next = len(self.names)
        return others

    def meta(self, row: int) -> tuple[int, int, int, int, int, int, int]:
        """Returns a `layout.META` row."""
        found: tuple[int, int, int, int, int, int, int] = META.unpack_from(self._meta, row * META.size)
        return found

    def mode(self, row: int) -> int:
        """Returns an entry's mode."""
        return self.meta(row)[0]

    def ident(self, row: int) -> tuple[int, int, int, int]:
        """Returns a `layout.IDENT` row: ino, ctime, number of links, flags."""
        found: tuple[int, int, int, int] = IDENT.unpack_from(self._ident, row * IDENT.size)
        return found

    def is_mount(self, row: int) -> bool:
        """Whether something is mounted on a name, or that cannot be told."""
        return bool(self.ident(row)[3] & (ENTRY_FAILED | ENTRY_MOUNT))

    def probe(self, rows: Sequence[int]) -> None:
        """Finds out whether regular files have extended attributes and which inode flags, all in one call."""
        if not rows:
            return
        names = b"".join(self.names[row] + b"\0" for row in rows)
        # With sizes of zero nothing is read; everything else that `gather` finds out is wanted.
        gathered = kernel.gather(
            self.folder.fd, names, bytes(META.size * len(rows)), bytes(IDENT.size * len(rows)), bytearray()
        )
        for row, (_, error, flags, attributes, _) in zip(rows, GATHERED.iter_unpack(gathered), strict=True):
            self._probed[row] = (bool(flags & GATHER_XATTRS) or error != 0, -1 if error else attributes)

    def flags_differ(self, entry: Entry, row: int) -> bool:
        """Whether a regular file that was probed has other inode flags; False where that cannot be told."""
        attributes = self._probed.get(row, (True, -1))[1]
        return attributes >= 0 and attributes != entry.attributes & INODE_FLAGS

    def settled(self, entry: Entry, row: int, owner: Owner, *, chown: bool) -> bool:
        """Whether an entry has owner, mode, time and attributes as it should; flags apart."""
        mode, uid, gid, _, _, mtime_ns, _ = self.meta(row)
        wanted = entry.mode
        same_owner = (uid, gid) == owner[:2]
        if not (owner.exact and same_owner) and not stat.S_ISDIR(mode):
            wanted &= ~SET_ID
        if mtime_ns != entry.mtime_ns or (chown and not same_owner):
            return False
        if mode != wanted and not stat.S_ISLNK(mode):
            return False
        may_have = self._probed.get(row, (True, 0))[0]
        return (not may_have and not entry.xattrs) or same_xattrs(self._xattrs(row), entry.xattrs)

    def _xattrs(self, row: int) -> Xattrs:
        try:
            return read_xattrs(beside(self.folder.fd, self.names[row]))
        except OSError:
            return ()

    def target(self, row: int) -> bytes:
        """Returns where a symlink leads to."""
        try:
            return os.readlink(self.names[row], dir_fd=self.folder.fd)
        except OSError:
            return b""


def same_xattrs(found: Xattrs, wanted: Xattrs) -> bool:
    """Whether an entry needs no change of extended attributes: labels that the snapshot lacks are the system's own."""
    if found == wanted:
        return True
    have = dict(wanted)
    others = tuple(
        pair for pair in found if pair[0] in have or not pair[0].startswith(_OTHERS_LABELS) or pair[0] == CAPABILITY
    )
    return others == wanted
