"""Keeping in mind: from frames to rows of the memo, and back to a leaf whose subdirectories alone have changed."""

from __future__ import annotations

import stat
from array import array
from dataclasses import replace

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.flows.backup.before import like
from respaldo.flows.backup.carry import between
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Carried, Frame
from respaldo.flows.backup.memo import Memo, Totals
from respaldo.format.columns import u32_array
from respaldo.format.tree import Leaf, leaf_as_encoded
from respaldo.fs.meta import Names

_NO_RULES = bytes(16)
"""Is no digest of any rules, so that a directory remembered in part never looks the same as a whole."""
_NO_TREE = bytes(32)


def remember(memo: Memo, frame: Frame, rules: bytes, tree: ChunkId, leaf: Leaf | bytes, totals: Totals) -> None:
    """Remembers a directory that was looked at entry by entry; ``leaf``: encoded where that was done already."""
    entered = [row for row in frame.subdirs if row not in frame.dropped and frame.contents.get(row)]
    children = b"".join([frame.contents[row] for row in entered])
    # In a long directory they take as much as the row that is made now.
    frame.contents, frame.name_list, frame.carried = {}, [], []
    memo.put(
        frame.key,
        rules=rules,
        tree=tree,
        mark=frame.mark,
        totals=totals,
        subdirs=array("I", entered).tobytes(),
        children=children,
        names=frame.names,
        meta=frame.meta,
        ident=frame.ident_to_remember(),
        leaf=leaf if isinstance(leaf, bytes) else leaf.encode(),
    )


def with_new_children(memo: Memo, frame: Frame) -> Leaf:
    """Returns the leaf of a directory in which nothing but what lies below its subdirectories has changed.

    Notes in the frame what of it is as it was.
    """
    remembered = memo.get(frame.key)
    try:
        old = leaf_as_encoded(bytes(remembered.leaf) if remembered is not None else b"")
    except ValueError:
        raise StorageFailed("local cache", "it changed while it was used", hint="run the command again") from None
    fresh = {frame.child_name(row): tree for row, tree in zip(frame.subdirs, frame.children, strict=True)}
    modes, spots, content = u32_array(old.meta)[:: META_BYTES // 4], old.spots(), bytearray(old.content)
    names = old.names.split(b"\0")
    changed: list[int] = []
    for row, mode in enumerate(modes):
        if stat.S_ISDIR(mode) and spots[row] < spots[row + 1]:
            at = slice(spots[row] * CHUNK_ID_BYTES, spots[row + 1] * CHUNK_ID_BYTES)
            tree = fresh.get(names[row], content[at])
            if tree != content[at]:
                content[at] = tree
                changed.append(row)
    frame.carried = [
        Carried(start, start, end - start, b"") for start, end in between(changed, len(old)) if start < end
    ]
    frame.like = like(ChunkId(remembered.tree), old) if remembered is not None else None
    return replace(old, content=bytes(content))


def remember_again(memo: Memo, frame: Frame, rules: bytes, tree: ChunkId, leaf: Leaf | bytes) -> None:
    """Remembers a directory that looks as it did, with other trees below."""
    remembered = memo.get(frame.key)
    if remembered is None or frame.same is None:
        return
    memo.put(
        frame.key,
        rules=rules,
        tree=tree,
        mark=frame.mark,
        totals=frame.same.totals,
        subdirs=bytes(remembered.subdirs),
        children=b"".join(frame.children),
        names=frame.names,
        meta=frame.meta,
        ident=bytes(remembered.ident),
        leaf=leaf if isinstance(leaf, bytes) else leaf.encode(),
    )


def remember_part(memo: Memo, frame: Frame, owners: Names) -> None:
    """Remembers the files of a directory that is not finished, for the run after one that is cut off."""
    if frame.same is not None or not (frame.contents or frame.carried):
        return
    part = frame.settled_part()
    leaf, totals = part.leaf(owners)
    memo.put(
        frame.key,
        rules=_NO_RULES,
        tree=_NO_TREE,
        mark=frame.mark,
        totals=totals,
        subdirs=b"",
        children=b"",
        names=leaf.names,
        meta=part.kept(part.meta, META_BYTES),
        ident=part.kept(part.ident_to_remember(), IDENT_BYTES),
        leaf=leaf.encode(),
    )
