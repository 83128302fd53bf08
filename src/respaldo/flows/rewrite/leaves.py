"""Leaves with rows taken out, and the runs of a long directory put together again. Pure.

Invariant: a leaf without some rows is the one that a backup makes that leaves them out: no trace of them is left, not
in the names of owners either.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.format.leafcheck import default_count
from respaldo.format.tree import META, Leaf

T = TypeVar("T")


def directories(leaf: Leaf) -> Iterator[tuple[int, ChunkId]]:
    """Yields (row, tree) of the directories that have one."""
    for row, mode, ids in _contents(leaf):
        if ids and stat.S_ISDIR(mode):
            yield row, ChunkId(ids)


def _contents(leaf: Leaf) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    for row, (mode, _, _, _, size, _, _) in enumerate(META.iter_unpack(leaf.meta)):
        level = leaf.levels.get(row)
        end = at + CHUNK_ID_BYTES * (level[1] if level else default_count(mode, size, leaf.marks.get(row, 0)))
        yield row, mode, leaf.content[at:end]
        at = end


def altered(leaf: Leaf, kept: Sequence[bool] | None, trees: Mapping[int, bytes], marks: Mapping[int, int]) -> Leaf:
    """Returns a leaf without the rows that are not ``kept``, with other ``trees`` and ``marks`` of some rows.

    The same leaf where all stays as it is.
    """
    contents = list(_contents(leaf))
    content = b"".join([trees.get(row, ids) for row, _, ids in contents if kept is None or kept[row]])
    if kept is None:
        all_marks = {**leaf.marks, **marks}
        if content == leaf.content and all_marks == leaf.marks:
            return leaf
        return replace(leaf, content=content, marks=all_marks)
    rows = [row for row, keep in enumerate(kept) if keep]
    names = leaf.names.split(b"\0")
    targets = iter(leaf.targets.split(b"\0"))
    of_links = {row: next(targets) for row, mode, _ in contents if stat.S_ISLNK(mode)}
    new = {row: number for number, row in enumerate(rows)}
    meta = b"".join([leaf.meta[row * META.size : (row + 1) * META.size] for row in rows])
    return _with_owners(
        Leaf(
            names=b"".join([names[row] + b"\0" for row in rows]),
            meta=meta,
            content=content,
            targets=b"".join([of_links[row] + b"\0" for row in rows if row in of_links]),
            levels=_moved(leaf.levels, new),
            links=_moved(leaf.links, new),
            xattrs=_moved(leaf.xattrs, new),
            marks=_moved({**leaf.marks, **marks}, new),
            users=leaf.users,
            groups=leaf.groups,
        )
    )


def _moved(rows: Mapping[int, T], new: Mapping[int, int]) -> dict[int, T]:
    return {new[row]: value for row, value in rows.items() if row in new}


def _with_owners(leaf: Leaf) -> Leaf:
    """Returns a leaf that names none but the owners that occur in it."""
    owners = {item[1:3] for item in META.iter_unpack(leaf.meta)}
    uids, gids = {uid for uid, _ in owners}, {gid for _, gid in owners}
    return replace(
        leaf,
        users={number: name for number, name in leaf.users.items() if number in uids},
        groups={number: name for number, name in leaf.groups.items() if number in gids},
    )


def joined(runs: Sequence[Leaf]) -> Leaf:
    """Returns a directory of which these are the runs."""
    if len(runs) == 1:
        return runs[0]
    starts: list[int] = []
    at = 0
    for run in runs:
        starts.append(at)
        at += len(run)
    return Leaf(
        names=b"".join([run.names for run in runs]),
        meta=b"".join([run.meta for run in runs]),
        content=b"".join([run.content for run in runs]),
        targets=b"".join([run.targets for run in runs]),
        levels=_shifted([run.levels for run in runs], starts),
        links=_shifted([run.links for run in runs], starts),
        xattrs=_shifted([run.xattrs for run in runs], starts),
        marks=_shifted([run.marks for run in runs], starts),
        users={number: name for run in runs for number, name in run.users.items()},
        groups={number: name for run in runs for number, name in run.groups.items()},
    )


def _shifted(maps: Sequence[Mapping[int, T]], starts: Sequence[int]) -> dict[int, T]:
    return {start + row: value for rows, start in zip(maps, starts, strict=True) for row, value in rows.items()}
