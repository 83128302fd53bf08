"""Trees and lists: split as the format says, reassembled to what they were, and bounded whatever is served for them."""

from __future__ import annotations

import hashlib
import random
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.catalog import runs
from respaldo.catalog.runs import put_tree, split_leaf
from respaldo.catalog.trees import ListBuilder, TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import EMPTY, Content
from respaldo.format.content import DIRECT_CHUNKS_MAX, HOLE, ROW, parse_node
from respaldo.format.tree import META, Branch, Leaf, parse_tree
from tests.format.samples import leaves

KEY = b"n" * 32


class Shelf:
    """Keeps chunks in a dict, as a sink and as a reader that checks nothing."""

    def __init__(self):
        self.chunks = {}
        self.put_order = []

    def put(self, kind, raw):
        chunk_id = ChunkId(hashlib.sha256(kind.word.encode() + bytes(raw)).digest())
        self.chunks[kind, chunk_id] = bytes(raw)
        self.put_order.append(chunk_id)
        return chunk_id

    def put_each(self, kind, data, spans):
        return [self.put(kind, data[start:end]) for start, end in spans]

    def knows(self, kind, chunk_id):
        return (kind, chunk_id) in self.chunks

    def separate(self):
        pass

    def get(self, kind, chunk_id):
        try:
            return self.chunks[kind, chunk_id]
        except KeyError:
            raise ChunkMissing(kind.word, chunk_id) from None


def directory(names):
    """A directory of files of ten bytes, each with content of its own, every seventh one a link or a directory."""
    rows, content, targets = [], [], []
    for number, name in enumerate(names):
        mode, size = stat.S_IFREG | 0o644, 10
        if number % 7 == 3:
            mode, size = stat.S_IFLNK | 0o777, 6
            targets.append(b"target\0")
        else:
            if number % 7 == 5:
                mode, size = stat.S_IFDIR | 0o755, 0
            content.append(hashlib.sha256(name).digest())
        rows.append(META.pack(mode, number % 3, 5, 0, size, number, 0))
    return Leaf(
        names=b"".join(name + b"\0" for name in names),
        meta=b"".join(rows),
        content=b"".join(content),
        targets=b"".join(targets),
        users={0: "root", 1: "one", 2: "two"},
        groups={5: "tty"},
    )


def many(count, seed=0):
    source = random.Random(seed)
    return sorted({b"%012x" % source.getrandbits(48) for _ in range(count)})


# --- directories -----------------------------------------------------------------------------------------------------


@given(leaves())
def test_short_directory_is_one_tree(leaf):
    """Up to the limit a directory is one leaf, its encoding the chunk."""
    shelf = Shelf()
    tree = put_tree(shelf, leaf, KEY)
    assert shelf.chunks == {(Kind.TREE, tree): leaf.encode()}
    assert list(TreeReader(shelf).entries(tree)) == list(leaf.entries())
    assert TreeReader(shelf).run_ids(tree) == []


@given(leaves(), st.binary(min_size=32, max_size=32))
@settings(max_examples=100)
def test_runs_put_together_are_the_directory(leaf, key):
    """However a directory is split, its runs are sound trees, and their entries in order are the directory's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "RUN_ENTRIES_SPLIT", 2)
        patch.setattr(runs, "RUN_ENTRIES_MIN", 1)
        patch.setattr(runs, "RUN_ENTRIES_MAX", 4)
        patch.setattr(runs, "_RUN_MASK", 3)
        shelf = Shelf()
        tree = put_tree(shelf, leaf, key)
        reader = TreeReader(shelf)
        assert list(reader.entries(tree)) == list(leaf.entries())
        found = list(reader.leaves(tree))
        assert sum(len(run) for run in found) == len(leaf)
        for run in found:
            assert parse_tree(run.encode(), "x") == run
        for entry in leaf.entries():
            assert reader.find(tree, entry.name) == entry


@pytest.mark.parametrize(("count", "split"), [(4096, False), (4097, True), (30_000, True)])
def test_long_directory_is_split_within_bounds(count, split):
    """More than 4096 entries make runs of 1024 to 8192, the last one aside."""
    names = many(count)
    assert len(names) == count
    shelf = Shelf()
    tree = put_tree(shelf, directory(names), KEY)
    found = parse_tree(shelf.get(Kind.TREE, tree), "x")
    assert isinstance(found, Branch) == split
    if split:
        counts = [length for _, length in found.runs]
        assert sum(counts) == count
        assert all(1024 <= length <= 8192 for length in counts[:-1])
    assert [entry.name for entry in TreeReader(shelf).entries(tree)] == names


@pytest.mark.parametrize("at", [0, 10_000, 29_999, 30_000])
def test_one_more_name_rewrites_one_run(at):
    """A name more, wherever: the branch and one run are new (two where the run is cut anew), all others as before."""
    names = many(30_000)
    shelf = Shelf()
    before = set(TreeReader(shelf).run_ids(put_tree(shelf, directory(names), KEY)))
    near = names[min(at, len(names) - 1)] if at else b"!"
    names = sorted([*names, near + b"+"])
    plain = Leaf(
        names=b"".join(name + b"\0" for name in names),
        meta=META.pack(stat.S_IFIFO, 0, 0, 0, 0, 0, 0) * len(names),
    )
    others = [name for name in names if name != near + b"+"]
    without = Leaf(names=b"".join(name + b"\0" for name in others), meta=plain.meta[META.size :])
    old = set(TreeReader(shelf).run_ids(put_tree(shelf, without, KEY)))
    new = set(TreeReader(shelf).run_ids(put_tree(shelf, plain, KEY)))
    assert len(before) == len(old) >= 6
    assert len(new - old) <= 2


def test_runs_are_cut_by_a_keyed_hash_and_at_the_maximum(monkeypatch):
    """Another key cuts elsewhere; where it chooses no name, runs end at 8192 entries."""
    leaf = directory(many(30_000))
    cuts = {tuple(len(run) for run in split_leaf(leaf, key)) for key in (b"1" * 32, b"2" * 32, b"3" * 32)}
    assert len(cuts) == 3
    monkeypatch.setattr(runs, "_RUN_MASK", (1 << 64) - 1)
    assert [len(run) for run in split_leaf(leaf, KEY)] == [8192, 8192, 8192, 30_000 - 3 * 8192]


def test_heavy_directory_is_split_by_weight():
    """Entries with megabytes of attributes do not make a tree that no reader takes."""
    names = [b"%03d" % number for number in range(40)]
    leaf = Leaf(
        names=b"".join(name + b"\0" for name in names),
        meta=META.pack(stat.S_IFIFO, 0, 0, 0, 0, 0, 0) * 40,
        xattrs={row: ((b"user.big", bytes(1 << 20)),) for row in range(40)},
    )
    shelf = Shelf()
    tree = put_tree(shelf, leaf, KEY)
    assert list(TreeReader(shelf).entries(tree)) == list(leaf.entries())
    assert max(len(raw) for raw in shelf.chunks.values()) <= 8 << 20


def test_name_that_is_not_there_is_not_found():
    """Neither a part of a name, nor two with what lies between them."""
    shelf = Shelf()
    for leaf in (directory([b"abc", b"abd", b"b"]), Leaf(names=b"", meta=b"")):
        tree = put_tree(shelf, leaf, KEY)
        for name in (b"", b"a", b"ab", b"bc", b"abc\0abd", b"c"):
            assert TreeReader(shelf).find(tree, name) is None


# --- hostile trees ---------------------------------------------------------------------------------------------------


class Serves(Shelf):
    """Serves one answer for whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.asked = 0

    def get(self, kind, chunk_id):
        self.asked += 1
        if self.asked > 100:
            raise AssertionError("it goes on for ever")
        return self.answer


def test_branch_that_refers_to_itself_ends():
    """A branch below a branch is refused at once."""
    reader = Serves(Branch(((ChunkId(b"x" * 32), 1),)).encode())
    with pytest.raises(Corruption):
        list(TreeReader(reader).entries(ChunkId(b"x" * 32)))
    assert reader.asked == 2


@pytest.mark.parametrize("rows", [1, 2, 1024])
def test_list_that_refers_to_itself_ends(rows):
    """A list node that is its own child ends with the levels, or because it does not add up."""
    reader = Serves(ROW.pack(b"x" * 32, 10) * rows)
    content = Content(level=8, ids=b"x" * 32)
    if rows == 1:
        assert list(TreeReader(reader).list_rows(content)) == [(b"x" * 32, 10)]
        assert reader.asked == 8
    else:
        with pytest.raises(Corruption, match="add up"):
            list(TreeReader(reader).list_rows(content))


@pytest.mark.parametrize("level", [9, 1 << 30])
def test_list_of_impossible_depth_is_refused(level):
    """More levels than there can be are refused before anything is read."""
    reader = Serves(b"")
    with pytest.raises(Corruption):
        list(TreeReader(reader).list_rows(Content(level=level, ids=b"x" * 32)))
    assert reader.asked == 0


def test_list_with_a_hole_above_or_without_rows_is_refused():
    """Holes stand at the lowest level only; a node has rows."""
    for answer in (ROW.pack(HOLE, 10), b"", b"x" * 39, ROW.pack(b"x" * 32, 0), ROW.pack(b"x" * 32, 1) * 1025):
        with pytest.raises(Corruption):
            list(TreeReader(Serves(answer)).list_rows(Content(level=2, ids=b"x" * 32)))


def test_runs_out_of_order_or_of_other_lengths_are_refused():
    """Names ascend from run to run, and a branch knows its runs' lengths."""
    shelf = Shelf()
    first, second = (shelf.put(Kind.TREE, directory(names).encode()) for names in ([b"a", b"b"], [b"c"]))
    good = shelf.put(Kind.TREE, Branch(((first, 2), (second, 1))).encode())
    assert [entry.name for entry in TreeReader(shelf).entries(good)] == [b"a", b"b", b"c"]
    for wrong in (((second, 1), (first, 2)), ((first, 2), (first, 2)), ((first, 1), (second, 1)), ((good, 3),)):
        bad = shelf.put(Kind.TREE, Branch(wrong).encode())
        with pytest.raises(Corruption):
            list(TreeReader(shelf).entries(bad))


# --- lists -----------------------------------------------------------------------------------------------------------


def chunk_rows(count, seed=0, length=1000):
    source = random.Random(seed)
    return [(source.randbytes(32), length + number % 7) for number in range(count)]


def build(shelf, rows):
    builder = ListBuilder(shelf)
    for chunk_id, length in rows:
        if chunk_id == HOLE:
            builder.hole(length)
        else:
            builder.add(chunk_id, length)
    assert builder.length == sum(length for _, length in rows)
    return builder.finish()


def read(shelf, content):
    if not content.level:
        return [chunk_id for chunk_id in content]  # noqa: C416 - a Content is no list
    return [tuple(row) for row in TreeReader(shelf).list_rows(content)]


def test_file_of_few_chunks_refers_to_them():
    """Up to a limit, chunks stand in the tree itself."""
    for count in (0, 1, 2, DIRECT_CHUNKS_MAX):
        shelf = Shelf()
        rows = chunk_rows(count)
        content = build(shelf, rows)
        assert (content.level, shelf.chunks) == (0, {})
        assert read(shelf, content) == [chunk_id for chunk_id, _ in rows]
    assert build(Shelf(), []) == EMPTY


@pytest.mark.parametrize("count", [DIRECT_CHUNKS_MAX + 1, 257, 1024, 1025, 5000, 100_000])
def test_file_of_many_chunks_refers_to_a_list(count):
    """More make a list, of nodes within bounds, in as few levels as needed, that reads back as it was."""
    shelf = Shelf()
    rows = chunk_rows(count)
    content = build(shelf, rows)
    assert content.level >= 1
    assert len(content) == 1
    assert read(shelf, content) == rows
    nodes = [parse_node(raw, "x") for raw in shelf.chunks.values()]
    assert all(len(node) <= 1024 for node in nodes)
    below = [chunk_id for level, chunk_id in TreeReader(shelf).nodes(content) if level == 0]
    assert below == [chunk_id for chunk_id, _ in rows]
    root = parse_node(shelf.get(Kind.LIST, ChunkId(content.ids)), "x")
    assert len(root) > 1
    if content.level == 1:
        assert len(root) == count


@pytest.mark.parametrize("at", [0, 500, 4999])
def test_change_in_a_list_is_local(at):
    """A chunk more in a long file makes a handful of nodes, not all of them."""
    shelf = Shelf()
    rows = chunk_rows(20_000)
    build(shelf, rows)
    before = set(shelf.chunks)
    build(shelf, [*rows[:at], (b"\x01" * 32, 5), *rows[at:]])
    assert len(set(shelf.chunks) - before) <= 4
    assert len(before) > 60


holes = st.lists(
    st.tuples(st.integers(1, 400), st.integers(1, 1 << 40)) | st.tuples(st.just(0), st.integers(1, 1 << 40)), max_size=5
)


@given(holes, st.integers(0, 5))
def test_files_with_holes_round_trip(runs, seed):
    """Holes come back where they were, in a list whatever the number of chunks; neighbours come back as one."""
    rows = []
    joined = []
    for number, (count, hole) in enumerate(runs):
        chunks = chunk_rows(count, seed * 10 + number)
        rows += [*chunks, (HOLE, hole)]
        joined += chunks
        before = joined.pop()[1] if joined and joined[-1][0] == HOLE else 0
        joined.append((HOLE, before + hole))
    rows += chunk_rows(seed)
    joined += chunk_rows(seed)
    shelf = Shelf()
    content = build(shelf, rows)
    if runs:
        assert content.level >= 1
        assert read(shelf, content) == joined
        assert HOLE not in {chunk_id for _, chunk_id in TreeReader(shelf).nodes(content)}


@given(st.integers(1000, 1030), st.integers(1, 3))
@settings(max_examples=40)
def test_holes_that_come_one_by_one_are_one_also_at_the_end_of_a_node(count, pieces):
    """A hole that fills its node is not cut in two by the next piece of it."""
    shelf = Shelf()
    chunks = [(bytes([1 + number % 255]) * 32, 10) for number in range(count)]
    content = build(shelf, [*chunks, *[(HOLE, 5)] * pieces, *chunks])
    assert read(shelf, content) == [*chunks, (HOLE, 5 * pieces), *chunks]


def test_holes_that_meet_are_refused_within_and_across_nodes():
    """A list of 2^60 tiny holes, made of six nodes, ends at the second one."""
    for rows in ([(HOLE, 1)] * 2, [(HOLE, 1)], [(HOLE, 1), (b"x" * 32, 1), (HOLE, 1)]):
        shelf = Shelf()
        node, length = shelf.put(Kind.LIST, b"".join(ROW.pack(*row) for row in rows)), len(rows)
        for _ in range(5):
            node, length = shelf.put(Kind.LIST, ROW.pack(node, length) * 1024), length * 1024
        with pytest.raises(Corruption, match="adjacent"):
            list(TreeReader(shelf).list_rows(Content(level=6, ids=node)))


def test_shared_nodes_are_counted_and_looked_up_once():
    """How much of a file is data, and what it consists of, takes as long as what is stored of it."""
    shelf = Shelf()
    node, length = shelf.put(Kind.LIST, ROW.pack(b"x" * 32, 1) + ROW.pack(HOLE, 1)), 2
    for _ in range(5):
        node, length = shelf.put(Kind.LIST, ROW.pack(node, length) * 1024), length * 1024
    content = Content(level=6, ids=node)
    assert TreeReader(shelf).data_bytes(content) == length // 2
    assert list(TreeReader(shelf).nodes(content))[-1] == (0, b"x" * 32)
    with pytest.raises(Corruption):
        TreeReader(shelf).data_bytes(Content(level=9, ids=node))


def test_hole_of_nothing_is_none():
    """An empty hole leaves no trace."""
    shelf = Shelf()
    builder = ListBuilder(shelf)
    builder.hole(0)
    builder.add(b"x" * 32, 1)
    builder.hole(0)
    assert builder.finish() == Content(level=0, ids=b"x" * 32)


def test_file_that_is_one_hole_is_a_list():
    """Nothing but a hole is a list of one row."""
    shelf = Shelf()
    content = build(shelf, [(HOLE, 1 << 40)])
    assert (content.level, read(shelf, content)) == (1, [(HOLE, 1 << 40)])


@given(st.integers(0, 3000), st.integers(0, 3000), st.sampled_from([None, 0, 100, 2000]))
@settings(max_examples=40)
def test_resumed_list_is_the_uninterrupted_one(count, cut, hole):
    """A list that is taken up from its state in another run ends as if nothing had happened."""
    rows = chunk_rows(count)
    if hole is not None:
        rows.insert(min(hole, count), (HOLE, 77))
    whole = Shelf()
    expected = build(whole, rows)
    shelf = Shelf()
    first = ListBuilder(shelf)
    for chunk_id, length in rows[:cut]:
        first.hole(length) if chunk_id == HOLE else first.add(chunk_id, length)
    direct, listed, levels, length = first.state()
    second = ListBuilder(shelf)
    second.resume(direct, levels, length, listed=listed)
    for chunk_id, size in rows[cut:]:
        second.hole(size) if chunk_id == HOLE else second.add(chunk_id, size)
    assert second.length == sum(size for _, size in rows)
    assert second.finish() == expected
    assert shelf.chunks == whole.chunks
