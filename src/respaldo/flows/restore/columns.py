"""Columns: the plain files of a directory, from the tree's rows to the kernel's without an object for each.

A file is plain if it is small, regular and has nothing but content, owner, mode and time; most are. Their rows go to
`scatter` as the tree has them, but for owners that are others here. Everything else becomes an `Entry`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import TypeVar

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.core.model import Entry
from respaldo.format.columns import u32_array
from respaldo.format.leafcheck import default_count
from respaldo.format.tree import META, Leaf
from respaldo.fs.settle import SET_ID, Owner, Owners

T = TypeVar("T")

PLAIN_BYTES = 4 << 20
BATCH_BYTES = 4 << 20
BATCH_FILES = 256
_TYPE = 0o170000
_REGULAR = stat.S_IFREG
_OWNER = Struct("<II")
"""Uid and gid, as they stand in a row behind the mode."""


@dataclass(slots=True)
class Files:
    """Is plain files in columns: names, `layout.META` rows ready to be set, sizes, ids of their chunks joined.

    ``disowned`` are those whose owner cannot be given back here.
    """

    names: list[bytes] = field(default_factory=list)
    meta: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    ids: list[bytes] = field(default_factory=list)
    disowned: list[bytes] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def batches(self) -> Iterator[Files]:
        """Yields them in batches of bounded length."""
        first = length = 0
        for number, size in enumerate(self.sizes):
            length += size
            if length >= BATCH_BYTES or number - first >= BATCH_FILES:
                yield self.part(first, number + 1)
                first, length = number + 1, 0
        if first < len(self.sizes):
            yield self.part(first, len(self.sizes))

    def part(self, first: int, last: int) -> Files:
        """Returns some of them, those without an owner with the first ones."""
        if first == 0 and last == len(self.sizes):
            return self
        disowned = self.disowned if first == 0 else []
        part = slice(first, last)
        return Files(self.names[part], self.meta[part], self.sizes[part], self.ids[part], disowned)


class Columns:
    """Takes leaves apart. One thread."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    def add(self, files: Files, entry: Entry) -> bool:
        """Adds an entry to plain files if it is one."""
        if (
            entry.mode & _TYPE != _REGULAR
            or entry.size > PLAIN_BYTES
            or entry.xattrs
            or entry.link_group
            or entry.attributes
            or entry.mark
            or entry.content.level
        ):
            return False
        files.names.append(entry.name)
        self._give(files, self._owners.of(entry), entry.mode, entry.size, entry.mtime_ns)
        files.sizes.append(entry.size)
        files.ids.append(entry.content.ids)
        return True

    def split(self, leaf: Leaf, names: list[bytes]) -> tuple[Files, list[Entry]]:
        """Returns the plain files of a leaf, and its other entries."""
        strangers = self._strangers(leaf)
        if not strangers:
            plain = _all_plain(leaf, names)
            if plain is not None:
                return plain, []
        files = Files()
        others: list[int] = []
        their_ids: list[bytes] = []
        odd = {*leaf.levels, *leaf.links, *leaf.xattrs, *leaf.marks}
        meta, ids = leaf.meta, leaf.content
        at = end = 0
        for row, (mode, uid, gid, attributes, size, mtime_ns, _) in enumerate(META.iter_unpack(meta)):
            if mode & _TYPE == _REGULAR and size <= PLAIN_BYTES and not attributes and row not in odd:
                if size:
                    end = at + CHUNK_ID_BYTES
                files.names.append(names[row])
                files.sizes.append(size)
                files.ids.append(ids[at:end])
                owner = strangers.get((uid, gid)) if strangers else None
                if owner is None:
                    files.meta.append(meta[row * META.size : (row + 1) * META.size])
                else:
                    self._give(files, owner, mode, size, mtime_ns)
            else:
                _, count = leaf.levels.get(row) or (0, default_count(mode, size, leaf.marks.get(row, 0)))
                end = at + count * CHUNK_ID_BYTES
                others.append(row)
                their_ids.append(ids[at:end])
            at = end
        return files, _entries(leaf, names, others, their_ids)

    def _strangers(self, leaf: Leaf) -> dict[tuple[int, int], Owner]:
        """Returns whom files belong to here, of those owners that are not the same here."""
        found = {}
        for uid, gid in {_OWNER.unpack_from(leaf.meta, at) for at in range(4, len(leaf.meta), META.size)}:
            owner = self._owners.by(uid, gid, leaf.users.get(uid, ""), leaf.groups.get(gid, ""))
            if owner != (uid, gid, True):
                found[uid, gid] = owner
        return found

    @staticmethod
    def _give(files: Files, owner: Owner, mode: int, size: int, mtime_ns: int) -> None:
        """Adds the row of a file that gets another owner than the recorded one; its name is there already."""
        if not owner.exact:
            mode &= ~SET_ID
            files.disowned.append(files.names[-1])
        files.meta.append(META.pack(mode, owner.uid, owner.gid, 0, size, mtime_ns, 0))


def _all_plain(leaf: Leaf, names: list[bytes]) -> Files | None:
    """Returns a leaf that holds nothing but plain files, as they are; None for any other. No look at each by itself."""
    if leaf.levels or leaf.links or leaf.xattrs or leaf.marks:
        return None
    words = u32_array(leaf.meta)
    step = META.size // 4
    modes, attributes, sizes, high = words[::step], words[3::step], words[4::step], words[5::step]
    if (
        {mode & _TYPE for mode in set(modes)} != {_REGULAR}
        or any(attributes)
        or any(high)
        or max(sizes) > PLAIN_BYTES
        or 0 in sizes
    ):
        return None
    meta, ids = leaf.meta, leaf.content
    return Files(
        names=names,
        meta=[meta[at : at + META.size] for at in range(0, len(meta), META.size)],
        sizes=sizes.tolist(),
        ids=[ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(ids), CHUNK_ID_BYTES)],
    )


def _entries(leaf: Leaf, names: list[bytes], rows: list[int], ids: list[bytes]) -> list[Entry]:
    """Returns some rows of a leaf as entries. Every link is among them, so that the targets are the same."""
    if not rows:
        return []
    meta = leaf.meta
    part = Leaf(
        names=b"".join([names[row] + b"\0" for row in rows]),
        meta=b"".join([meta[row * META.size : (row + 1) * META.size] for row in rows]),
        content=b"".join(ids),
        targets=leaf.targets,
        levels=_renumbered(leaf.levels, rows),
        links=_renumbered(leaf.links, rows),
        xattrs=_renumbered(leaf.xattrs, rows),
        marks=_renumbered(leaf.marks, rows),
        users=leaf.users,
        groups=leaf.groups,
    )
    return list(part.entries())


def _renumbered(values: Mapping[int, T], rows: list[int]) -> dict[int, T]:
    return {number: values[row] for number, row in enumerate(rows) if row in values} if values else {}


def leaf_of(entries: Sequence[Entry]) -> Leaf:
    """Returns entries as columns; the first name of an id stands for all of them."""
    rows = list(enumerate(entries))
    return Leaf(
        names=b"".join([entry.name + b"\0" for entry in entries]),
        meta=b"".join([_meta(entry) for entry in entries]),
        content=b"".join([entry.content.ids for entry in entries]),
        targets=b"".join([entry.target + b"\0" for entry in entries if entry.is_symlink]),
        levels={
            row: (entry.content.level, len(entry.content))
            for row, entry in rows
            if entry.content.level or len(entry.content) != default_count(entry.mode, entry.size, entry.mark)
        },
        links={row: entry.link_group for row, entry in rows if entry.link_group},
        xattrs={row: entry.xattrs for row, entry in rows if entry.xattrs},
        marks={row: entry.mark for row, entry in rows if entry.mark},
        users={entry.uid: entry.user for entry in reversed(entries) if entry.user},
        groups={entry.gid: entry.group for entry in reversed(entries) if entry.group},
    )


def _meta(entry: Entry) -> bytes:
    size = entry.rdev or entry.size
    return META.pack(entry.mode, entry.uid, entry.gid, entry.attributes, size, entry.mtime_ns, entry.btime_ns)
