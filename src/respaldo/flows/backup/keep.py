"""Keeping in mind: from frames to rows of the memo, and back to a leaf whose subdirectories alone have changed."""

from __future__ import annotations

from array import array
from dataclasses import replace

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame
from respaldo.flows.backup.memo import Memo, Totals
from respaldo.format.tree import Leaf, parse_tree
from respaldo.fs.meta import Names

LEAF_BYTES_MAX = 1 << 31
_NO_RULES = bytes(16)
"""Is no digest of any rules, so that a directory remembered in part never looks the same as a whole."""
_NO_TREE = bytes(32)


def remember(memo: Memo, frame: Frame, rules: bytes, tree: ChunkId, leaf: Leaf, totals: Totals) -> None:
    """Remembers a directory that was looked at entry by entry."""
    entered = [row for row in frame.subdirs if row not in frame.dropped and frame.contents.get(row)]
    children = b"".join([frame.contents[row] for row in entered])
    frame.contents, frame.name_list = {}, []  # in a long directory they take as much as the row that is made now
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
        leaf=leaf.encode(),
    )


def with_new_children(memo: Memo, frame: Frame) -> Leaf:
    """Returns the leaf of a directory in which nothing but what lies below its subdirectories has changed."""
    remembered = memo.get(frame.key)
    old = parse_tree(bytes(remembered.leaf), "local cache", length_max=LEAF_BYTES_MAX) if remembered else None
    if not isinstance(old, Leaf):
        raise StorageFailed("local cache", "it changed while it was used", hint="run the command again")
    fresh = {frame.child_name(row): tree for row, tree in zip(frame.subdirs, frame.children, strict=True)}
    content = b"".join([fresh.get(entry.name, entry.content.ids) for entry in old.entries()])
    return replace(old, content=content)


def remember_again(memo: Memo, frame: Frame, rules: bytes, tree: ChunkId, leaf: Leaf) -> None:
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
        leaf=leaf.encode(),
    )


def remember_part(memo: Memo, frame: Frame, owners: Names) -> None:
    """Remembers the files of a directory that is not finished, for the run after one that is cut off."""
    if frame.same is not None or not frame.contents:
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
