from __future__ import annotations

import random
from array import array

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.core.ids import Kind, PackName
from respaldo.flows.gc.choose import GROUP_MIN, SMALL_BYTES, choose, groups, settle_duplicates, weigh
from respaldo.flows.gc.options import PackPlan, PruneOptions
from respaldo.format.pack import BlockRow, Footer
from respaldo.store.bitmaps import Bitmaps
from tests.store.repositories import SESSION, initialise, opened, pieces, sink, store


def plan(number: int, length: int, live: int) -> PackPlan:
    return PackPlan(name=PackName(number.to_bytes(32, "big")), number=number, length_bytes=length, live_bytes=live)


@pytest.fixture
def repo(tmp_path):
    backend = MemoryBackend()
    initialise(backend)
    with opened(backend, tmp_path / "cache") as repo:
        yield repo


def test_weigh_takes_a_block_in_proportion():
    """A block counts whole where all of it is live, by the share of its raw bytes where a part is, else not at all."""
    rows = tuple(BlockRow(1, 500 + 72, 1000, 2, bytes(32)) for _ in range(3))
    footer = Footer(
        session=SESSION, body_hash=bytes(32), blocks=rows, ids=bytes(32 * 6), lengths=array("I", [250, 750] * 3)
    )
    assert weigh(footer, 0b000011) == 572
    assert weigh(footer, 0b000111) == 572 + 572 // 4
    assert weigh(footer, 0b111111) == 3 * 572
    assert weigh(footer, 0b100000) == 572 * 3 // 4
    assert weigh(footer, 0) == 0


def test_small_packs_make_a_group_when_they_make_a_big_pack():
    """All small packs go together where that gives one that is not small."""
    small = [plan(number, SMALL_BYTES // 2, SMALL_BYTES // 2) for number in range(2)]
    assert groups(small) == [small]
    assert groups(small[:1]) == []


def test_small_packs_of_one_class_make_a_group():
    """Else sixteen of one size class do, and fewer wait."""
    small = [plan(number, 65536, 3000) for number in range(GROUP_MIN)]
    assert groups(small) == [small]
    assert groups(small[:-1]) == []
    assert groups([*small[:-1], plan(99, 1 << 20, 3000)]) == []


def test_choice_takes_the_cheapest_first_and_stops_at_the_limit(repo):
    """What frees most for what is copied comes first; what goes beyond the limit is left."""
    packs = [store(repo, pieces(40, seed=seed))[1][0] for seed in range(4)]
    numbers = [repo.index.number_of(name) for name in packs]
    live = Bitmaps()
    for number, count in zip(numbers, (0, 30, 4, 12), strict=True):
        live.add_run(number, 0, count) if count else None
    listing = repo.list_packs()
    choice = choose(repo, live, listing, frozenset(), PruneOptions())
    assert [pack.number for pack in choice.dead] == [numbers[0]]
    assert [pack.number for pack in choice.repack] == [numbers[2], numbers[3]]
    cheap = choice.repack[0].live_bytes
    choice = choose(repo, live, listing, frozenset(), PruneOptions(max_repack_bytes=cheap))
    assert [pack.number for pack in choice.repack] == [numbers[2]]
    assert [pack.number for pack in choice.left] == [numbers[3]]
    choice = choose(repo, live, listing, frozenset(), PruneOptions(repack_below=1.0))
    assert [pack.number for pack in choice.repack] == [numbers[2], numbers[3], numbers[1]]
    assert choice.packs == 4


def test_choice_leaves_packs_of_sessions_that_are_alive(repo):
    """What a session in progress has stored stays, dead as it looks."""
    store(repo, pieces(10))
    alive = choose(repo, Bitmaps(), repo.list_packs(), frozenset({SESSION}), PruneOptions())
    assert (alive.dead, alive.repack, alive.packs) == ([], [], 1)
    assert len(choose(repo, Bitmaps(), repo.list_packs(), frozenset(), PruneOptions()).dead) == 1


def test_one_copy_of_a_duplicate_stays_live(repo):
    """Of a chunk in several packs one copy stays live, the one in the pack of which most is live."""
    first = list(pieces(15, seed=1))  # one block: their rows are in order
    store(repo, first)
    usable, repo.index.usable = repo.index.usable, set()  # a second client that has not heard of the first pack
    store(repo, [*first[:10], *pieces(5, seed=2)])
    repo.index.usable |= usable
    assert len(list(repo.index.duplicates())) == 10
    one, two = sorted(repo.index.usable)
    live = Bitmaps()
    live.add_run(one, 0, 15)
    live.add_run(two, 0, 10)
    settle_duplicates(repo, live)
    assert live.number(one).bit_count() == 15
    assert live.number(two) == 0
    live = Bitmaps()
    live.add_run(one, 3, 2)
    live.add_run(two, 0, 15)
    settle_duplicates(repo, live)
    assert live.number(one) == 0
    assert live.number(two).bit_count() == 15


def test_duplicates_are_those_that_looking_for_them_finds(repo):
    """Every chunk with several copies comes up once, with all of them, in the base of the index and beside it."""
    rng = random.Random(3)
    pool = list(pieces(60, length=500, seed=4))
    repo.index.ordinals.recent_rows_min = 70
    expected: dict[bytes, int] = {}
    for _ in range(6):
        repo.index.usable = set()
        ids, _ = store(repo, rng.sample(pool, 25))
        for chunk_id in ids:
            expected[chunk_id] = expected.get(chunk_id, 0) + 1
    found = {tuple(sorted(copies)) for copies in repo.index.duplicates()}
    assert found == {tuple(sorted(repo.index.copies(chunk_id))) for chunk_id, count in expected.items() if count > 1}
    assert sum(map(len, found)) == sum(count for count in expected.values() if count > 1)


def test_runs_are_as_long_as_chunks_lie_together(repo):
    """A run of ids is found at once where they lie one behind the other, and ends where they do not."""
    there = sink(repo)
    ids = [there.put(Kind.DATA, raw) for _, raw in pieces(300, length=200, seed=5)]
    there.flush()
    there.close()
    (number,) = repo.index.usable
    asked = b"".join([*ids[10:200], *ids[5:7], bytes(32), *ids[299:]])
    assert repo.index.find_run(asked, 0) == (number, 10, 190)
    assert repo.index.find_run(asked, 190 * 32) == (number, 5, 2)
    assert repo.index.find_run(asked, 192 * 32) is None
    assert repo.index.find_run(asked, 193 * 32) == (number, 299, 1)
