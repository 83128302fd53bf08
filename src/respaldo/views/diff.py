"""Differences: what was added, removed, changed and renamed between two directories, in the order of paths.

Both sides are walked in step; where the sides say that two directories are the same, neither is read. Renames are found
in a pass before: what went and what came is matched by content, whole directories first. Memory: a directory a level,
and `CANDIDATES_MAX` paths on either side; beyond that, renames are reported as what went and what came.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain, islice
from typing import Protocol

from respaldo.core.model import Entry

CANDIDATES_MAX = 50_000
ACLS = frozenset({b"system.posix_acl_access", b"system.posix_acl_default"})
_REMEMBERED_MAX = 50_000
_TRIES = 8
"""With so many of the candidates with its key something that came is compared: a comparison may read a file."""
Key = tuple[int, bytes]
Pair = tuple[Entry | None, Entry | None]


class Verb(StrEnum):
    """Says what became of a path."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    TYPE = "type"
    METADATA = "metadata"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Is one difference. Paths begin with "/", below what is compared, and are empty for that itself.

    ``fields``: what differs: content, target, device, mode, owner, mtime, xattrs, acl, flags, links, mark.
    ``was``: of what was renamed, its path before.
    """

    verb: Verb
    path: bytes
    before: Entry | None
    after: Entry | None
    fields: tuple[str, ...] = ()
    was: bytes = b""


class Sides(Protocol):
    """Gives what is to be compared. Entries come in the order of their names."""

    def before(self, entry: Entry, path: bytes) -> Iterator[Entry]:
        """Yields what is in a directory of the first side."""
        ...

    def after(self, entry: Entry, path: bytes) -> Iterator[Entry]:
        """Yields what is in a directory of the second side."""
        ...

    def both(self, before: Entry, after: Entry, path: bytes) -> tuple[Iterator[Entry], Iterator[Entry]] | None:
        """Returns what may differ in two directories, None where nothing can."""
        ...

    def fields(self, before: Entry, after: Entry, path: bytes) -> tuple[str, ...]:
        """Returns what differs between two entries of one type, the content of directories aside."""
        ...

    def key(self, entry: Entry, *, live: bool) -> bytes:
        """Returns what entries of equal content have in common, empty where they are not to be matched."""
        ...

    def same(self, before: Entry, after: Entry, path: bytes) -> bool:
        """Whether entries with equal keys have equal content."""
        ...


def plain_fields(before: Entry, after: Entry) -> tuple[str, ...]:
    """Returns what differs between two entries of one type, content aside.

    Not times of birth, which nothing restores, nor a directory's time: it follows from what is in it.
    """
    acls = ({pair for pair in before.xattrs if pair[0] in ACLS}, {pair for pair in after.xattrs if pair[0] in ACLS})
    differs = {
        "target": before.target != after.target,
        "device": before.rdev != after.rdev,
        "mode": before.mode != after.mode,
        "owner": (before.uid, before.gid, before.user, before.group) != (after.uid, after.gid, after.user, after.group),
        "mtime": before.mtime_ns != after.mtime_ns and not before.is_dir,
        "xattrs": set(before.xattrs) - acls[0] != set(after.xattrs) - acls[1],
        "acl": acls[0] != acls[1],
        "flags": before.attributes != after.attributes,
        "links": bool(before.link_group) != bool(after.link_group),
        "mark": before.mark != after.mark,
    }
    return tuple(name for name, it_does in differs.items() if it_does)


def compare(sides: Sides, before: Entry, after: Entry) -> Iterator[Change]:
    """Yields what differs; raises what the sides do."""
    renames = _Renames(sides)
    seen: list[Change] = []
    for change in _Walk(sides, None).run(before, after):
        renames.add(change)
        if len(seen) <= _REMEMBERED_MAX:
            seen.append(change)
    renames.match()
    if not renames.came and len(seen) <= _REMEMBERED_MAX:  # nothing to be told otherwise than it was seen
        yield from seen
        return
    yield from _Walk(sides, renames).run(before, after)


class _Walk:
    """Walks once. Without known renames it goes into all that was added or removed."""

    def __init__(self, sides: Sides, renames: _Renames | None) -> None:
        self._sides = sides
        self._renames = renames

    def run(self, before: Entry, after: Entry) -> Iterator[Change]:
        yield from self._pair(before, after, b"")
        stack = [self._inside(before, after, b"")]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                continue
            path, one, other = step
            if one is None or other is None or stat.S_IFMT(one.mode) != stat.S_IFMT(other.mode):
                yield from self._apart(one, other, path, stack)
                continue
            yield from self._pair(one, other, path)
            if one.is_dir:
                stack.append(self._inside(one, other, path))

    def _pair(self, one: Entry, other: Entry, path: bytes) -> Iterator[Change]:
        fields = self._sides.fields(one, other, path)
        if fields:
            verb = Verb.MODIFIED if {"content", "target", "device"} & set(fields) else Verb.METADATA
            yield Change(verb=verb, path=path, before=one, after=other, fields=fields)

    def _apart(
        self, one: Entry | None, other: Entry | None, path: bytes, stack: list[Iterator[tuple[bytes, *Pair]]]
    ) -> Iterator[Change]:
        """Yields what came, went, or became something else; then goes into it, but not where it was renamed whole."""
        renames = self._renames
        if one is not None and other is not None:
            yield Change(verb=Verb.TYPE, path=path, before=one, after=other, fields=("type",))
        elif one is not None:
            if renames and path in renames.went:
                return
            yield Change(verb=Verb.REMOVED, path=path, before=one, after=None)
        elif other is not None:
            found = renames.came.get(path) if renames else None
            if found is not None:
                was, entry = found
                fields = self._sides.fields(entry, other, path)
                yield Change(verb=Verb.RENAMED, path=path, before=entry, after=other, fields=fields, was=was)
                return
            yield Change(verb=Verb.ADDED, path=path, before=None, after=other)
        if one is not None and one.is_dir:
            stack.append((path + b"/" + child.name, child, None) for child in self._sides.before(one, path))
        if other is not None and other.is_dir:
            stack.append(self._all_after(other, path))

    def _all_after(self, entry: Entry, path: bytes) -> Iterator[tuple[bytes, *Pair]]:
        for child in self._sides.after(entry, path):
            yield path + b"/" + child.name, None, child

    def _inside(self, before: Entry, after: Entry, path: bytes) -> Iterator[tuple[bytes, *Pair]]:
        if not (before.is_dir and after.is_dir):
            return
        found = self._sides.both(before, after, path)
        if found is None:
            return
        ones, others = found
        one, other = next(ones, None), next(others, None)
        while one is not None or other is not None:
            if other is None or (one is not None and one.name < other.name):
                if one is not None:
                    yield path + b"/" + one.name, one, None
                one = next(ones, None)
            elif one is None or other.name < one.name:
                yield path + b"/" + other.name, None, other
                other = next(others, None)
            else:
                yield path + b"/" + one.name, one, other
                one, other = next(ones, None), next(others, None)


class _Renames:
    """Matches what went with what came. ``came``: new path → (old path, old entry); ``went``: old paths."""

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        self._removed: dict[Key, list[tuple[bytes, Entry]]] = {}
        self._added: dict[Key, list[tuple[bytes, Entry]]] = {}
        self._counts = [0, 0]
        self.came: dict[bytes, tuple[bytes, Entry]] = {}
        self.went: set[bytes] = set()

    def add(self, change: Change) -> None:
        """Takes what may be one end of a rename."""
        entry, side = change.before, 0
        if change.verb is Verb.ADDED:
            entry, side = change.after, 1
        elif change.verb is not Verb.REMOVED:
            return
        if entry is None or self._counts[side] >= CANDIDATES_MAX:
            return
        key = self._sides.key(entry, live=bool(side))
        if key:
            self._counts[side] += 1
            where = self._added if side else self._removed
            where.setdefault((stat.S_IFMT(entry.mode), key), []).append((change.path, entry))

    def match(self) -> None:
        """Pairs equal content: directories before files, upper ones first, equal names before others."""
        common = [key for key in self._removed if key in self._added]
        common.sort(key=lambda key: (key[0] != stat.S_IFDIR, self._removed[key][0][0].count(b"/")))
        for key in common:
            self._match(
                {path: entry for path, entry in self._removed[key] if not _below(path, self.went)},
                [item for item in self._added[key] if not _below(item[0], self.came)],
            )
        self._removed.clear()
        self._added.clear()

    def _match(self, went: dict[bytes, Entry], came: list[tuple[bytes, Entry]]) -> None:
        by_name: dict[bytes, dict[bytes, Entry]] = {}
        for was, old in went.items():
            by_name.setdefault(old.name, {})[was] = old
        for path, entry in sorted(came, key=lambda item: item[1].name not in by_name):
            namesakes = by_name.get(entry.name, {})
            for was, old in list(islice(chain(namesakes.items(), went.items()), _TRIES)):
                if self._sides.same(old, entry, path):
                    self.came[path] = (was, old)
                    self.went.add(was)
                    del went[was], by_name[old.name][was]
                    break


def _below(path: bytes, tops: dict[bytes, tuple[bytes, Entry]] | set[bytes]) -> bool:
    """Whether a path lies in one of some directories, or is one."""
    while path:
        if path in tops:
            return True
        path = path.rpartition(b"/")[0]
    return False


def placed(change: Change, before: bytes, after: bytes) -> Change:
    """Returns a change with whole paths: of what was removed the first side's, else the second's."""
    top = before if change.verb is Verb.REMOVED else after
    was = before.rstrip(b"/") + change.was if change.was else b""
    return replace(change, path=(top.rstrip(b"/") + change.path) or b"/", was=was)
