"""Runs taken over from a stored directory: always the tree that would be made without them."""

from __future__ import annotations

import hashlib
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.catalog import runs
from respaldo.catalog.runs import Alike, Span, put_runs
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import Kind
from respaldo.format.tree import META, Leaf
from tests.catalog.test_trees import KEY, Shelf

SMALL = {"RUN_ENTRIES_SPLIT": 6, "RUN_ENTRIES_MIN": 2, "RUN_ENTRIES_MAX": 5, "_RUN_MASK": 3}


def made(entries: dict[bytes, int]) -> Leaf:
    """Returns a directory of files of few chunks, empty ones, links and directories, by what is drawn for a name."""
    meta, content, targets, levels, xattrs = [], [], [], {}, {}
    for row, (name, drawn) in enumerate(sorted(entries.items())):
        kind = (stat.S_IFREG, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)[drawn % 4]
        meta.append(META.pack(kind | 0o644, 0, 0, 0, 0 if kind == stat.S_IFDIR else drawn % 3, drawn, 0))
        if kind == stat.S_IFLNK:
            targets.append(b"t" * (drawn % 3) + b"\0")
        count = 1 if kind == stat.S_IFDIR else (drawn % 3) * (kind == stat.S_IFREG)
        if count == 2:
            levels[row] = (0, 2)
        content += [hashlib.sha256(name + bytes([drawn, part])).digest() for part in range(count)]
        if drawn % 5 == 0:
            xattrs[row] = ((b"user.a", b"b"),)
    return Leaf(
        names=b"".join(name + b"\0" for name in sorted(entries)),
        meta=b"".join(meta),
        content=b"".join(content),
        targets=b"".join(targets),
        levels=levels,
        xattrs=xattrs,
    )


def common(before: dict[bytes, int], after: dict[bytes, int]) -> list[Span]:
    """Returns what two directories have in common, as long as it goes on in both."""
    old, new = sorted(before), sorted(after)
    spans: list[Span] = []
    for row, name in enumerate(new):
        if before.get(name) != after[name]:
            continue
        there = old.index(name)
        last = spans[-1] if spans else Span(-1, -1, 0)
        if (last.row + last.length, last.row_there + last.length) == (row, there):
            spans[-1] = last._replace(length=last.length + 1)
        else:
            spans.append(Span(row, there, 1))
    return spans


NAMES = st.integers(0, 60).map(lambda number: b"%02d" % number)
ENTRIES = st.dictionaries(NAMES, st.integers(0, 30), min_size=7, max_size=50)


@given(ENTRIES, st.dictionaries(NAMES, st.none() | st.integers(0, 30), max_size=4))
@settings(max_examples=300)
def test_runs_that_are_taken_over_are_those_that_would_be_made(before, edits):
    """Whatever changes, comes and goes, the tree is the one that is made of the directory alone, run by run."""
    after = {name: drawn for name, drawn in (before | edits).items() if drawn is not None}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(runs, name, value)
        patch.setattr(runs, "RUN_BYTES_MAX", 700)
        shelf, whole = Shelf(), Shelf()
        old, _ = put_runs(shelf, made(before), KEY, None)
        known = TreeReader(shelf).runs(old)
        expected, _ = put_runs(whole, made(after), KEY, None)
        tree, found = put_runs(shelf, made(after), KEY, Alike(known, common(before, after)))
    assert tree == expected
    assert set(whole.chunks) <= set(shelf.chunks)
    assert list(TreeReader(shelf).runs(tree)) == found


@pytest.mark.parametrize("edit", ["change", "add", "remove"])
def test_one_change_builds_one_run_of_many(edit):
    """Of 40,000 entries of which one changes, comes or goes, one run or two are built, and the tree that joins all."""
    before = {b"%08d" % (number * 2): 0 for number in range(40_000)}
    after = dict(before)
    if edit == "remove":
        del after[b"%08d" % 40_000]
    else:
        after[b"%08d" % (40_000 + (edit == "add"))] = 4
    shelf = Shelf()
    old, known = put_runs(shelf, made(before), KEY, None)
    built: list[int] = []

    class Counting(Shelf):
        def put(self, kind, raw):
            built.append(len(raw))
            return super().put(kind, raw)

    spans = common_of_one(before, after)
    tree, found = put_runs(Counting(), made(after), KEY, Alike(known, spans))
    assert len(built) <= 3
    assert len(found) > 8
    assert tree != old
    assert (Kind.TREE, tree) not in shelf.chunks
    assert tree == put_runs(Shelf(), made(after), KEY, None)[0]


def common_of_one(before: dict[bytes, int], after: dict[bytes, int]) -> list[Span]:
    """Returns what two directories have in common of which one entry is another."""
    old, new = sorted(before), sorted(after)
    at = next(row for row, name in enumerate(new) if before.get(name) != after[name] or old[row] != name)
    rest = len(new) - at - (len(after) >= len(before))
    return [Span(0, 0, at), Span(len(new) - rest, len(old) - rest, rest)]
