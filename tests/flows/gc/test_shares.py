from __future__ import annotations

import random
from array import array
from collections import Counter
from itertools import accumulate, permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import put_in_trash
from respaldo.catalog.snapshots import forget, load
from respaldo.core.errors import ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, Kind, SnapshotId, pack_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc import choose as choose_module
from respaldo.flows.gc.goal import plan_space
from respaldo.flows.gc.labels import SHARED, Labels, weigh_labels
from respaldo.flows.gc.options import Goal, PruneOptions, Shares
from respaldo.flows.gc.run import plan_prune, run_prune
from respaldo.flows.gc.shares import Account, measure_shares
from respaldo.format.content import HOLE, parse_node
from respaldo.format.pack import BlockRow, Footer, parse_footer
from respaldo.format.tree import parse_references
from respaldo.store.repo import Repo
from tests.protocol.ground import leave_undecided, put_marker
from tests.protocol.scene import (
    Kept,
    back_up,
    change_tree,
    make_repository,
    open_repository,
    snapshot_of,
    write_tree,
)

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
    assert found.alone == {each: oracle.freed({each}, there) for each in there}
    sums = list(accumulate(found.steps[each] for each in going))
    assert sums == [oracle.freed(set(going[: count + 1]), there) for count in range(len(going))]
    assert found.together == oracle.freed(set(going), there)
    assert found.held == oracle.freed(there, there)


def test_share_counts_roots_that_are_not_shown(repo, tmp_path):
    """What the trash or an undecided snapshot holds too is not freed; what may expire or goes anyway does not."""
    source = tmp_path / "source"
    write_tree(source, 1)
    first = snapshot_of(back_up(repo, source))
    assert shares(repo).alone[first] == shares(repo).held > 0
    session = bytes(16)
    undecided = leave_undecided(repo, session)
    assert shares(repo).alone[first] == shares(repo).held, "its session is dead"
    marker = put_marker(repo, session, 0)
    assert shares(repo).alone[first] == 0
    assert shares(repo, [first]).together == 0
    repo.backend.discard([marker, f"pending/{undecided.hex()}"])
    second = snapshot_of(back_up(repo, source))
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


# --- labels --------------------------------------------------------------------------------------------------------


@given(
    meets=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(1, 20), st.booleans()), min_size=1, max_size=20
    ),
    roots=st.sampled_from([4, 1 << 15]),
)
def test_labels_know_the_first_and_whether_there_was_another(meets, roots):
    """Runs and single positions alike, against a dictionary of sets; what is live up to a root is what it met first."""
    labels = Labels(roots)
    met: dict[int, list[int]] = {}
    for root, row, count, run in sorted(meets):
        labels.root = root
        if run:
            labels.add_run(7, row, count)
            for each in range(row, row + count):
                met.setdefault(each, []).append(root)
        else:
            news = root not in met.get(row, []) and len(set(met.get(row, []))) < 2
            assert labels.add((7, row)) == news
            met.setdefault(row, []).append(root)
    found = {row: (label >> 1, bool(label & SHARED)) for row, label in enumerate(labels.rows[7]) if label}
    assert found == {row: (min(found), len(set(found)) > 1) for row, found in met.items()}
    for last in range(6):
        assert labels.live(last).number(7) == sum(1 << row for row, found in met.items() if min(found) <= last)


@given(lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=12), data=st.data())
def test_shares_of_a_block_add_up_to_it(lengths, data):
    """However chunks are labelled, nothing of a block is lost and nothing counts twice."""
    raw = sum(lengths)
    sealed = data.draw(st.integers(73, raw + 72))
    given_labels = data.draw(st.lists(st.integers(2, 9), min_size=len(lengths), max_size=len(lengths)))
    footer = Footer(
        session=bytes(16),
        body_hash=bytes(32),
        blocks=(BlockRow(1, sealed, raw, len(lengths), bytes(32)),),
        ids=bytes(32 * len(lengths)),
        lengths=array("I", lengths),
    )
    weights: Counter[int] = Counter()
    weigh_labels(footer, array("H", given_labels), weights)
    assert weights.total() == sealed
    for label, weight in weights.items():
        mine = sum(length for length, each in zip(lengths, given_labels, strict=True) if each == label)
        assert abs(weight - sealed * mine / raw) <= len(lengths)


@pytest.mark.parametrize("order", list(permutations([3 << 1, 2 << 1 | SHARED, 2 << 1])))
def test_copies_are_joined_to_one_label(order):
    """In whatever order copies are met, the one that stays has the first root of all."""
    labels = Labels(4)
    labels.rows[1] = array("H", order)
    labels.rows[2] = array("H", [0])
    labels.join([(1, 0), (1, 1), (1, 2)], (2, 3))
    assert list(labels.rows[1]) == [0, 0, 0]
    assert list(labels.rows[2]) == [0, 0, 0, 2 << 1 | SHARED]


# --- goals ---------------------------------------------------------------------------------------------------------


def lay_history(repo: Repo, source, seeds: int = 6) -> list[SnapshotId]:
    """Makes snapshots each of which holds half a megabyte that no other holds, and something that all hold."""
    rng = random.Random(1)
    source.mkdir()
    (source / "always").write_bytes(rng.randbytes(500_000))
    made = []
    for _ in range(seeds):
        (source / "now").write_bytes(rng.randbytes(500_000))
        made.append(snapshot_of(back_up(repo, source)))
    return made


def packed(repo: Repo) -> int:
    return sum(length for _, length in repo.backend.list("packs"))


@pytest.mark.parametrize("wanted", [1, 400_000, 900_000, 1_400_000, 2_300_000])
def test_goal_takes_the_fewest_that_give_the_space(repo, tmp_path, wanted):
    """One snapshot less is not enough; and forgetting them and collecting gives what was promised."""
    made = lay_history(repo, tmp_path / "source")
    options = PruneOptions(repack_below=0.8)
    plan = plan_space(repo, Goal(free_bytes=wanted), made[:-1], options, progress=Silent(), cancel=Cancel())
    assert plan.reached
    assert list(plan.going) == made[: len(plan.going)]
    assert plan.going
    assert sum(plan.shares.steps[each] for each in plan.going) > 490_000 * len(plan.going)
    before = packed(repo)
    fewer = plan_prune(repo, plan.options, progress=Silent(), cancel=Cancel(), without=set(plan.going[:-1]))
    assert fewer.sure_bytes < wanted
    for snapshot in plan.going:
        forget(repo, snapshot)
    result = run_prune(repo, plan.options, progress=Silent(), cancel=Cancel())
    assert before - packed(repo) >= wanted
    assert before - packed(repo) == result.freed_bytes >= plan.freed_bytes


def test_goal_says_how_far_it_gets(repo, tmp_path):
    """Where all that may go is not enough, the plan says what it gives; where nothing is wanted, nothing goes."""
    made = lay_history(repo, tmp_path / "source")
    options = PruneOptions(repack_below=0.8)

    def plan(goal: Goal):
        return plan_space(repo, goal, made[:3], options, progress=Silent(), cancel=Cancel())

    far = plan(Goal(free_bytes=10**9))
    assert not far.reached
    assert far.going == tuple(made[:3])
    assert far.freed_bytes > 3 * 500_000
    assert plan(Goal(size_bytes=10**9)).going == ()
    assert plan(Goal(size_bytes=10**9)).reached
    assert plan(Goal(size_bytes=far.stored_bytes - 900_000)).going == tuple(made[:2])
    assert plan(Goal(free_bytes=900_000)).going == tuple(made[:2])


def test_goal_copies_no_more_than_it_takes(repo, tmp_path, monkeypatch):
    """Packs more than half live are copied only until there is enough; those that are less, as by any collection."""
    monkeypatch.setattr(choose_module, "SMALL_BYTES", 0)
    source = tmp_path / "source"
    source.mkdir()
    rng = random.Random(2)
    for number in range(12):
        (source / f"file{number:02}").write_bytes(rng.randbytes(250_000))
    first = snapshot_of(back_up(repo, source))
    for number in range(2, 12, 4):
        (source / f"file{number:02}").unlink()
    snapshot_of(back_up(repo, source))

    def plan(wanted: int):
        return plan_space(
            repo,
            Goal(free_bytes=wanted),
            [first],
            PruneOptions(repack_below=0.8),
            progress=Silent(),
            cancel=Cancel(),
        )

    little, much = plan(150_000), plan(450_000)
    assert little.reached
    assert much.reached
    assert 0 < little.copied_bytes < much.copied_bytes
