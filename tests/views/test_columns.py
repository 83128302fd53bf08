from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.format.tree import Branch, Leaf, parse_tree
from respaldo.views import fuse_wire as wire
from respaldo.views.attributes import Attributes, Batch, Item
from respaldo.views.columns import Columns, parse_columns
from tests.format.samples import BRANCH, FILE, LEAF, leaves, meta


def seen_in(entries):
    """Returns what a listing shows of entries."""
    return [
        (
            e.name,
            (e.mode, e.uid, e.gid, e.attributes, e.rdev or e.size, e.mtime_ns, e.btime_ns),
            e.content.level,
            e.link_group,
        )
        for e in entries
    ]


@given(leaves())
def test_columns_show_what_the_entries_are(leaf):
    """Names, metadata, levels, hard links and subdirectories are those of the entries, unpacked or not."""
    entries = list(leaf.entries())
    columns = parse_columns(leaf.encode(), "tree")
    assert columns.names == [entry.name for entry in entries]
    assert columns.rows(0, len(entries) + 1) == seen_in(entries)
    assert columns.rows(1, 2) == seen_in(entries[1:3])
    trees = [entry.content.ids if entry.is_dir and entry.content.ids else None for entry in entries]
    assert [columns.tree(row) for row in range(len(entries))] == trees
    assert columns.trees() == b"".join(filter(None, trees))
    assert columns.entries == entries


@given(leaves())
def test_columns_name_every_row_that_is_odd(leaf):
    """A row that is not odd is a file of one name and at most one list level, a directory or a link."""
    columns = parse_columns(leaf.encode(), "tree")
    for row, entry in enumerate(leaf.entries()):
        plain = stat.S_IFMT(entry.mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}
        if not plain or entry.content.level or entry.link_group:
            assert row in columns.odd


def test_columns_of_a_branch_are_the_branch():
    """What joins runs is no run."""
    assert parse_columns(BRANCH.encode(), "tree") == BRANCH


@given(st.binary(max_size=60), st.integers(0, 400))
def test_columns_refuse_or_show_what_is_harmless(junk, at):
    """Bent bytes raise `Corruption` when they are parsed or asked, and names that are shown lead nowhere else."""
    raw = LEAF.encode()
    raw = raw[:at] + junk + raw[at + len(junk) :]
    try:
        columns = parse_columns(raw, "tree")
        if isinstance(columns, Branch):
            return
        columns.trees()
        columns.rows(0, 100)
    except Corruption:
        with pytest.raises(Corruption):
            parse_tree(raw, "tree")
        return
    assert all(name not in {b"", b".", b".."} and b"/" not in name for name in columns.names)


@pytest.mark.parametrize(
    "leaf",
    [
        Leaf(names=b"..\0", meta=meta(FILE)),
        Leaf(names=b"a/b\0", meta=meta(FILE)),
        Leaf(names=b"b\0a\0", meta=meta(FILE) * 2),
        Leaf(names=b"a\0", meta=meta(FILE) * 2),
        Leaf(names=b"a\0", meta=meta(FILE), links={3: b"L" * 16}),
        Leaf(names=b"a\0", meta=meta(FILE), links={0: b"L"}),
        Leaf(names=b"a\0", meta=meta(0o700000 | 0o644)),
        Leaf(names=b"a\0", meta=meta(FILE, size=1 << 63)),
    ],
)
def test_columns_refuse_what_no_directory_holds(leaf):
    """Names that lead elsewhere, columns of other lengths and rows that are not there are damage."""
    with pytest.raises(Corruption):
        parse_columns(leaf.encode(), "tree")


@given(leaves(), st.integers(0, 1 << 60), st.integers(3, 99))
def test_batch_is_packed_as_its_items_are(leaf, base, next_at):
    """A part of a directory goes out as the same bytes, whether at once or one entry after the other."""
    columns = parse_columns(leaf.encode(), "tree")
    assert isinstance(columns, Columns)
    items, odd = [], {}
    for row, (name, (mode, uid, gid, _, size, mtime_ns, _), _, _) in enumerate(columns.rows(0, len(leaf))):
        attributes = Attributes(base + row, mode, 1, uid, gid, size, size, mtime_ns, 0)
        if row in columns.odd:
            attributes = odd[row] = attributes._replace(ino=7, nlink=3, size=5, size_on_disk=None)
        items.append(Item(name, base + row, attributes, lasting=True))
    packed = wire.batch_out(Batch(columns.names, columns.meta, base, odd, last=True), next_at)
    assert packed == [wire.plus_out(item, at) for at, item in enumerate(items, next_at)]
