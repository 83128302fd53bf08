from __future__ import annotations

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import pack_object
from respaldo.flows.gc.choose import settle_duplicates
from respaldo.flows.gc.sound import needed_after_all
from respaldo.store.bitmaps import Bitmaps
from tests.protocol.ground import Cancel, lay_ground, prune
from tests.protocol.scene import fresh_cache, memory_with, open_repository
from tests.store.repositories import initialise, opened, pieces, store


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return lay_ground(tmp_path_factory.mktemp("ground"))


def names(backend, folder: str) -> set[str]:
    return {name for name in backend.snapshot() if name.startswith(folder)}


def test_sound_copy_of_a_damaged_chunk_stays(tmp_path):
    """Where the copy that is live turns out damaged, the pack that holds the other one is not deleted."""
    backend = MemoryBackend()
    initialise(backend)
    with opened(backend, tmp_path / "cache") as repo:
        chunks = list(pieces(20, seed=1))
        _, [first] = store(repo, chunks)
        repo.index.usable = set()
        _, [second] = store(repo, chunks)
        numbers = [repo.index.number_of(name) for name in (first, second)]
        live = Bitmaps()
        live.add_run(numbers[0], 0, 20)
        assert needed_after_all(repo, live, [numbers[1]], Cancel()) == (set(), [])
        content = bytearray(backend.get(pack_object(first)))
        content[200] ^= 1
        backend.damage(pack_object(first), bytes(content))
        stay, damages = needed_after_all(repo, live, [numbers[1]], Cancel())
        assert stay == {numbers[1]}
        assert [error.name for error in damages] == [pack_object(first)]


def test_sound_copy_stays_where_the_damaged_one_is_to_be_copied(tmp_path):
    """Both packs are to go, and the copy that is live is the damaged one: it cannot be copied, so the other one stays.

    The next time that one is the live one.
    """
    backend = MemoryBackend()
    initialise(backend)
    with opened(backend, tmp_path / "cache") as repo:
        chunks = list(pieces(20, seed=1))
        _, [first] = store(repo, chunks)
        repo.index.usable = set()
        _, [second] = store(repo, chunks)
        numbers = [repo.index.number_of(name) for name in (first, second)]
        repo.index.usable = set(numbers)
        live = Bitmaps()
        live.add_run(numbers[0], 0, 20)
        content = bytearray(backend.get(pack_object(first)))
        content[200] ^= 1
        backend.damage(pack_object(first), bytes(content))
        stay, damages = needed_after_all(repo, live, numbers, Cancel())
        assert stay == {numbers[1]}
        assert len(damages) == 1
        settle_duplicates(repo, live)
        assert live.number(numbers[1]).bit_count() == 20
        assert not live.number(numbers[0])


def test_pack_whose_live_content_is_damaged_stays(ground):
    """What cannot be copied sound is not deleted: the pack stays, the damage is reported, everything else is done."""
    with open_repository(memory_with(ground.objects), ground.copy_of_cache()) as repo:
        victim = prune(repo).plan.repack[0]
    backend = memory_with(ground.objects)
    name = pack_object(victim.name)
    content = bytearray(backend.get(name))
    for at in range(60, len(content) // 2, 100):
        content[at] ^= 1
    backend.damage(name, bytes(content))
    with open_repository(backend, ground.copy_of_cache()) as repo:
        try:
            result = prune(repo)
        except Corruption:  # a tree lay in it: nothing was done at all
            assert not names(backend, "condemned/")
            assert names(backend, "packs/") == {each for each in ground.objects if each.startswith("packs/")}
        else:
            assert result.exit_status == 4
    assert name in backend.snapshot()


@pytest.mark.parametrize("folder", ["pending", "packs"])
def test_nothing_is_deleted_where_a_snapshot_needs_what_is_not_there(ground, folder):
    """A damaged manifest or a missing pack stops a collection before anything is condemned."""
    backend = memory_with(ground.objects)
    snapshot = next(iter(ground.left))
    if folder == "pending":
        backend.damage(f"pending/{snapshot.hex()}", bytes(4096))
    else:
        with open_repository(memory_with(ground.objects), ground.copy_of_cache()) as repo:
            needed = prune(repo).plan.repack
        for pack in needed:
            backend.delete(pack_object(pack.name))
    before = names(backend, "packs/")
    with (
        open_repository(backend, fresh_cache(ground.folder / "fresh")) as repo,
        pytest.raises((Corruption, ChunkMissing)) as raised,
    ):
        prune(repo)
    assert raised.value.exit_status == 4
    assert names(backend, "packs/") == before
    assert not names(backend, "condemned/")
