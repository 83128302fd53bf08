from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import put_in_trash
from respaldo.catalog.snapshots import forget, load
from respaldo.core.errors import ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, Kind, SnapshotId, pack_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc.look import look_ahead
from respaldo.flows.gc.options import PruneOptions, Shares
from respaldo.flows.gc.run import plan_prune
from respaldo.flows.gc.shares import Account, measure_shares
from respaldo.format.content import HOLE, parse_node
from respaldo.format.pack import parse_footer
from respaldo.format.tree import parse_references
from respaldo.store.repo import Repo
from tests.protocol.ground import leave_undecided, put_marker
from tests.protocol.scene import (
    OPTIONS,
    Kept,
    back_up,
    change_tree,
    make_repository,
    open_repository,
    snapshot_of,
    write_tree,
)

PRUNE = PruneOptions()

# --- a naive oracle: every snapshot's chunks as a set, every chunk's bytes from its footer ------------------------


def chunks_below(repo: Repo, root: bytes) -> set[bytes]:
    """Returns the ids of all that a snapshot refers to, its trees and lists included."""
    found: set[bytes] = set()
    trees, lists = [root], []
    while trees or lists:
        if lists:
            level, node = lists.pop()
            found.add(node)
            for row in parse_node(repo.source.get(Kind.LIST, node), "list"):
                if row.id != HOLE:
                    lists += [(level - 1, row.id)] if level > 1 else []
                    found.add(row.id)
            continue
        tree = trees.pop()
        found.add(tree)
        below = parse_references(repo.source.get(Kind.TREE, tree), "tree")
        trees += pieces(below.trees)
        found.update(pieces(below.data))
        lists += below.lists
    return found


def pieces(ids: bytes) -> list[bytes]:
    return [ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(ids), CHUNK_ID_BYTES)]


def bytes_of_chunks(repo: Repo) -> dict[bytes, list[int]]:
    """Returns what each copy of each chunk takes: its part of its block."""
    found: dict[bytes, list[int]] = {}
    for pack in repo.index.packs():
        footer = parse_footer(repo.index.footer(pack.number), pack_object(pack.name))
        for block, first in zip(footer.blocks, footer.first_rows, strict=False):
            ends = list(accumulate(footer.lengths[first : first + block.chunks], initial=0))
            for row in range(block.chunks):
                part = (
                    block.sealed_length * ends[row + 1] // block.raw_length
                    - block.sealed_length * ends[row] // block.raw_length
                )
                found.setdefault(footer.chunk_id(first + row), []).append(part)
    return found


class Oracle:
    """Knows what every root needs, and what that takes."""

    def __init__(self, repo: Repo) -> None:
        self.needs = {item.id: chunks_below(repo, item.manifest.root) for item in load(repo).snapshots}
        self.sizes = bytes_of_chunks(repo)

    def freed(self, gone: set[SnapshotId], roots: set[SnapshotId]) -> int:
        """Returns what goes when some of the roots are forgotten; raises where a chunk has several copies."""
        kept = set().union(*(self.needs[each] for each in roots - gone))
        lost = set().union(*(self.needs[each] for each in gone)) - kept
        return sum(size for each in lost for [size] in (self.sizes[each],))


def shares(repo: Repo, going: list[SnapshotId] | None = None, without: frozenset[SnapshotId] = frozenset()) -> Shares:
    return measure_shares(repo, going=going or [], without=without, progress=Silent(), cancel=Cancel())


@pytest.fixture
def repo(tmp_path):
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        yield repo


STEPS = st.lists(
    st.tuples(st.sampled_from(["change", "same", "back", "move", "copy"]), st.integers(0, 5)), min_size=1, max_size=6
)


@given(steps=STEPS, order=st.randoms(use_true_random=False), away=st.integers(0, 3))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shares_are_those_of_an_oracle_that_counts_every_chunk(tmp_path_factory, steps, order, away):
    """Alone, step by step in any order, together, and with some that go in any case: as sets would have it."""
    folder = tmp_path_factory.mktemp("shares")
    backend = MemoryBackend()
    make_repository(backend)
    sources = [folder / f"source{number}" for number in range(2)]
    for number, source in enumerate(sources):
        write_tree(source, number)
    with open_repository(backend, folder / "cache") as repo:
        made = [snapshot_of(back_up(repo, sources[0]))]
        for number, (what, seed) in enumerate(steps):
            source = sources[seed % 2]
            if what == "change":
                change_tree(source, seed)
            elif what == "back":
                write_tree(source, seed % 2)
            elif what == "move":
                next(path for path in sorted(source.iterdir()) if path.is_dir()).rename(source / f"moved{number}")
            elif what == "copy":
                (source / f"copy{number}").mkdir()
                for path in sorted(path for path in source.glob("*/*") if path.is_file())[:3]:
                    (source / f"copy{number}" / path.name).write_bytes(path.read_bytes())
            made.append(snapshot_of(back_up(repo, source)))
        oracle = Oracle(repo)
        order.shuffle(made)
        without = frozenset(made[: min(away, len(made) - 1)])
        there = set(made) - without
        going = [each for each in made if each in there][: order.randint(0, len(there))]
        found = shares(repo, going, without)
        for forgotten in (True, False):
            seen = look_ahead(
                repo, PRUNE, going, forgotten=forgotten, without=without, progress=Silent(), cancel=Cancel()
            )
            gone = {*without, *going} if forgotten else without
            assert seen == (plan_prune(repo, PRUNE, without=gone, progress=Silent(), cancel=Cancel()), found)
    assert found.alone == {each: oracle.freed({each}, there) for each in there}
    sums = list(accumulate(found.steps[each] for each in going))
    assert sums == [oracle.freed(set(going[: count + 1]), there) for count in range(len(going))]
    assert found.together == oracle.freed(set(going), there)
    assert found.held == oracle.freed(there, there)


def test_share_counts_roots_that_are_not_shown(repo, tmp_path):
    """What the trash or an undecided snapshot holds too is not freed; what may expire or goes anyway does not."""
    source = tmp_path / "source"
    write_tree(source, 1)
    # Under a path of its own: the directories above the real one change whenever anybody writes there.
    options = replace(OPTIONS, recorded_as=b"/source")
    first = snapshot_of(back_up(repo, source, options=options))
    assert shares(repo).alone[first] == shares(repo).held > 0
    session = bytes(16)
    undecided = leave_undecided(repo, session)
    assert shares(repo).alone[first] == shares(repo).held, "its session is dead"
    marker = put_marker(repo, session, 0)
    assert shares(repo).alone[first] == 0
    assert shares(repo, [first]).together == 0
    repo.backend.discard([marker, f"pending/{undecided.hex()}"])
    second = snapshot_of(back_up(repo, source, options=options))
    put_in_trash(repo, second, 10**18)
    assert shares(repo, [first]).together == 0
    assert shares(repo, [first], frozenset([second])).together == shares(repo).held


def test_share_counts_one_copy_of_a_chunk_that_lies_in_two_packs(repo, tmp_path):
    """Two snapshots that use different copies of the same chunks share them; the other copies go in any case."""
    source = tmp_path / "source"
    write_tree(source, 1)
    first = snapshot_of(back_up(repo, source))
    once = shares(repo).held
    repo.index.usable = set()
    for path in source.rglob("*"):
        if path.is_file():
            path.touch()
    oracle = Oracle(repo)
    numbers = {pack.number for pack in repo.index.packs()}

    synchronise = repo.synchronise
    repo.synchronise = lambda *args, **kwargs: _unusable(repo, synchronise(*args, **kwargs), numbers)  # type: ignore[method-assign]
    second = snapshot_of(back_up(repo, source))
    repo.synchronise = synchronise  # type: ignore[method-assign]
    again = Oracle(repo)
    doubled = [each for each, sizes in again.sizes.items() if len(sizes) > 1]
    assert doubled
    found = shares(repo, [first, second])
    data = again.needs[first] & again.needs[second]
    assert set(doubled) <= data
    assert found.held == sum(max(again.sizes[each]) for each in again.needs[first] | again.needs[second])
    assert found.held == found.together
    assert found.alone[first] == sum(oracle.sizes[each][0] for each in again.needs[first] - data)
    assert once <= found.held


def test_look_ahead_goes_through_the_trees_once(repo, tmp_path, monkeypatch):
    """Plan and shares together read no more trees than the shares alone."""
    source = tmp_path / "source"
    write_tree(source, 1)
    for number in range(3):
        back_up(repo, source)
        change_tree(source, number)
    asked = []
    get = repo.source.get
    monkeypatch.setattr(repo.source, "get", lambda kind, chunk_id: asked.append(chunk_id) or get(kind, chunk_id))
    shares(repo)
    alone = len(asked)
    look_ahead(repo, PRUNE, (), forgotten=True, progress=Silent(), cancel=Cancel())
    assert len(asked) == 2 * alone


def _unusable(repo, listing, numbers):
    repo.index.usable -= numbers
    return listing


def test_tree_is_read_twice_at_most(repo, tmp_path, monkeypatch):
    """However many snapshots share a tree: once when it is met, once when it turns out to be shared."""
    source = tmp_path / "source"
    write_tree(source, 3)
    made = [snapshot_of(back_up(repo, source))]
    for seed in range(6):
        change_tree(source, seed)
        made.append(snapshot_of(back_up(repo, source)))
    reads: Counter[bytes] = Counter()
    get = repo.source.get

    def counting(kind, chunk_id):
        reads[chunk_id] += 1
        return get(kind, chunk_id)

    monkeypatch.setattr(repo.source, "get", counting)
    shares(repo, made)
    assert set(reads.values()) == {1, 2}


def test_account_begins_again_where_a_root_vanishes(repo, tmp_path, monkeypatch):
    """A snapshot that is forgotten while it is looked at leaves no trace in what is counted."""
    source = tmp_path / "source"
    write_tree(source, 3)
    first = snapshot_of(back_up(repo, source))
    change_tree(source, 1)
    second = snapshot_of(back_up(repo, source))
    alone = Oracle(repo)
    walk = Account._walk

    def vanishing(self, root):
        monkeypatch.setattr(Account, "_walk", walk)
        forget(repo, first)
        raise ObjectMissing("a pack")

    monkeypatch.setattr(Account, "_walk", vanishing)
    found = shares(repo, [second])
    assert found.alone == {second: alone.freed({second}, {second})}
