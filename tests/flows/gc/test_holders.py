"""What each snapshot costs is what counting says that goes through every snapshot, and what forgetting it frees."""

from __future__ import annotations

import os
import random

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import put_in_trash
from respaldo.catalog.snapshots import forget, load
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc import holders as holders_module
from respaldo.flows.gc.holders import Holders, Sets, weigh_rows
from respaldo.flows.gc.labels import weigh_labels
from respaldo.flows.gc.shares import measure_shares
from respaldo.format.pack import parse_footer
from tests.protocol.ground import leave_undecided, put_marker
from tests.protocol.scene import Kept, back_up, change_tree, make_repository, open_repository, snapshot_of, write_tree


@pytest.fixture
def repo(tmp_path):
    """Five snapshots of one tree that changes and two of another, one of which holds a list."""
    backend = MemoryBackend()
    make_repository(backend)
    one, two = tmp_path / "one", tmp_path / "two"
    write_tree(one, 1, files=9)
    write_tree(two, 1, files=4)
    (two / "long").write_bytes(random.Random(1).randbytes(60_000))
    made = []
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        for number in range(5):
            made.append(snapshot_of(back_up(repo, one)))
            if number % 2:
                made.append(snapshot_of(back_up(repo, two)))
                (two / f"more{number}").write_bytes(os.urandom(300))
            change_tree(one, number)
        put_in_trash(repo, made[1], 10**18)
        yield repo


def looked(repo) -> Holders:
    holders = Holders(repo, progress=Silent(), cancel=Cancel())
    holders.look()
    return holders


def referred(repo, root) -> dict[bytes, Kind]:
    """Returns every chunk below a root."""
    trees = TreeReader(repo.source)
    found, stack = {}, [root]
    while stack:
        tree = stack.pop()
        found[tree] = Kind.TREE
        found.update(dict.fromkeys(trees.run_ids(tree), Kind.TREE))
        for entry in trees.entries(tree):
            if entry.is_dir:
                stack += entry.content
            else:
                found.update({chunk: Kind.LIST if level else Kind.DATA for level, chunk in trees.nodes(entry.content)})
    return found


def by_counting(repo) -> dict:
    """Returns (data, trees, own data, own trees) of each snapshot."""
    held = {item.id: referred(repo, item.manifest.root) for item in load(repo).snapshots}
    figures = {}
    for snapshot, chunks in held.items():
        counts = [0, 0, 0, 0]
        others = set().union(*(chunks for other, chunks in held.items() if other != snapshot))
        for chunk, kind in chunks.items():
            length = repo.source.locate(kind, ChunkId(chunk)).length
            at = 0 if kind is Kind.DATA else 1
            counts[at] += length
            counts[at + 2] += length if chunk not in others else 0
        figures[snapshot] = tuple(counts)
    return figures


def test_costs_are_those_of_counting(repo):
    """Of each snapshot, those in the trash included: data and trees, and what of them nobody else holds."""
    costs = looked(repo).measure()
    assert costs.missing == 0
    expected = by_counting(repo)
    assert {
        snapshot: (cost.data_bytes, cost.tree_bytes, cost.own_data_bytes, cost.own_tree_bytes)
        for snapshot, cost in costs.snapshots.items()
    } == expected
    assert all(any(figures) for figures in expected.values())


def test_costs_are_the_same_where_little_is_remembered(repo, monkeypatch):
    """Of what was looked up, nothing has to be known any more."""
    expected = looked(repo).measure()
    monkeypatch.setattr(holders_module, "_FOUND_MAX", 1)
    assert looked(repo).measure() == expected
    monkeypatch.setattr(holders_module, "_FOUND_BYTES_MAX", 32)
    assert looked(repo).measure() == expected


def test_no_place_is_looked_up_twice(repo, monkeypatch):
    """Where data lies is remembered by where it begins, however many trees hold it."""
    asked = []
    find_run = repo.index.find_run

    def count(ids, at, *, usable_only=True):
        asked.append(ids[at : at + 32])
        return find_run(ids, at, usable_only=usable_only)

    monkeypatch.setattr(repo.index, "find_run", count)
    looked(repo)
    assert asked
    assert len(asked) == len(set(asked))


def test_what_goes_is_what_forgetting_frees(repo):
    """To the byte what the collector's account says."""
    costs = looked(repo).measure().snapshots
    shares = measure_shares(repo, progress=Silent(), cancel=Cancel())
    assert {snapshot: cost.frees_bytes for snapshot, cost in costs.items()} == shares.alone
    assert any(shares.alone.values())


def test_one_alone_costs_everything_it_holds(repo):
    """Where there is no other, forgetting it frees all that it holds, and that is all there is."""
    first, *others = [item.id for item in load(repo).snapshots]
    for snapshot in others:
        forget(repo, snapshot)
    cost = looked(repo).measure().snapshots[first]
    assert cost.frees_bytes == cost.stored_bytes == measure_shares(repo, progress=Silent(), cancel=Cancel()).held
    assert (cost.own_data_bytes, cost.own_tree_bytes) == (cost.data_bytes, cost.tree_bytes)


@pytest.mark.parametrize("alive", [True, False])
def test_undecided_ones_hold_what_they_need(repo, alive):
    """While its session lives, what an undecided one holds is not freed; one that can expire holds nothing."""
    session = b"\x07" * 16
    leave_undecided(repo, session)
    if alive:
        put_marker(repo, session, 0)
    last = load(repo).snapshots[-1].id
    cost = looked(repo).measure().snapshots[last]
    assert (cost.frees_bytes == 0) == alive
    assert cost.frees_bytes == measure_shares(repo, progress=Silent(), cancel=Cancel()).alone[last]


def test_each_tree_is_read_once(repo, monkeypatch):
    """However many snapshots hold it."""
    reads = []
    get = repo.source.get

    def counted(kind, chunk_id):
        reads.append(chunk_id)
        return get(kind, chunk_id)

    monkeypatch.setattr(repo.source, "get", counted)
    holders = looked(repo)
    assert len(reads) == len(set(reads)) == holders.trees


def test_chunks_in_several_packs_count_once(repo):
    """As a collection would keep them."""
    before = looked(repo).measure().snapshots
    repo.index.usable.clear()  # a session that knows of nothing stores everything again
    from respaldo.store.chunks import ChunkSink

    sink = ChunkSink.into(repo, b"s" * 16)
    for item in load(repo).snapshots[:2]:
        for chunk, kind in referred(repo, item.manifest.root).items():
            sink.put(kind, repo.source.get(kind, ChunkId(chunk)))
    sink.flush()
    repo.put_segments(b"s" * 16, sink.unlisted)
    sink.close()
    after = looked(repo).measure().snapshots
    for snapshot, cost in after.items():
        assert (cost.data_bytes, cost.tree_bytes) == (before[snapshot].data_bytes, before[snapshot].tree_bytes)
    assert {item: cost.frees_bytes for item, cost in after.items()} == measure_shares(
        repo, progress=Silent(), cancel=Cancel()
    ).alone


def test_what_is_missing_is_counted(repo):
    """A repository that has lost a pack has figures still, and says how much they lack."""
    name = max(name for name, _ in repo.backend.list("packs"))
    repo.backend.delete(name)
    holders = looked(repo)
    costs = holders.measure()
    assert costs.missing == len(holders.missing) > 0
    assert any(cost.stored_bytes for cost in costs.snapshots.values())


def test_sets_are_numbered_once():
    """Equal sets have equal numbers, by whatever way they came about."""
    sets = Sets()
    one, two, four = (sets.number(bit) for bit in (1, 2, 4))
    assert sets.union(sets.union(one, two), four) == sets.union(one, sets.union(four, two)) == sets.number(7)
    assert sets.union(0, one) == sets.union(one, 0) == sets.union(one, one) == one


def test_rows_weigh_what_labels_weigh(repo):
    """The two ways of dividing a block agree, whatever the labels."""
    from array import array
    from collections import Counter

    rng = random.Random(3)
    for pack in repo.index.packs():
        footer = parse_footer(repo.index.footer(pack.number), "pack")
        labels = array("H", [rng.randrange(3) for _ in footer.lengths])
        expected, found, raw = Counter(), Counter(), 0
        weigh_labels(footer, labels, expected)
        for label, _, raw_bytes, sealed in weigh_rows(footer, labels):
            found[label] += sealed
            raw += raw_bytes
        assert found == expected
        assert raw == sum(footer.lengths)
