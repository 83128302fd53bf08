"""Chunks in and out: what is put is got back, known chunks are not stored twice, and no error is lost."""

from __future__ import annotations

import hashlib
import random
import threading

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.backend.faults import CHANGES, Fault, Faults, lasting_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageFailed, StorageFull
from respaldo.core.ids import ChunkId, Kind, PackName, pack_object, parse_hash_leaf
from respaldo.store.packs import read_footer
from tests.store.repositories import initialise, opened, pieces, replica, sink, store


def put_all(there, chunks):
    for kind, raw in chunks:
        there.put(kind, raw)
    there.flush()


def drain(there):
    there.flush()
    there.close()


kinds = st.sampled_from(list(Kind))


@given(
    st.lists(st.tuples(kinds, st.integers(0, 30), st.sampled_from([1, 100, 3000, 20_000])), max_size=120),
    st.integers(1, 3),
)
@settings(max_examples=25)
def test_chunks_round_trip(tmp_path_factory, content, workers):
    """Chunks of all kinds and sizes come back as they were put, each stored once."""
    backend = MemoryBackend()
    initialise(backend)
    chunks = [(kind, random.Random(seed).randbytes(length)) for kind, seed, length in content]
    with opened(backend, tmp_path_factory.mktemp("cache")) as repo:
        there = sink(repo, workers=workers)
        ids = [there.put(kind, raw) for kind, raw in chunks]
        there.flush()
        tally = there.tally
        there.close()
        assert [repo.source.get(kind, chunk_id) for (kind, _), chunk_id in zip(chunks, ids, strict=True)] == [
            raw for _, raw in chunks
        ]
        distinct = set(chunks)
        assert (tally.chunks_new, tally.bytes_new) == (len(distinct), sum(len(raw) for _, raw in distinct))
        assert tally.chunks_new + tally.chunks_known == len(chunks)
        assert repo.index.chunk_count() == len(distinct)


@pytest.mark.parametrize(("kept_bytes", "opened"), [(1 << 20, 2), (100, 6)])
def test_blocks_that_were_opened_are_kept_up_to_a_length(repo, monkeypatch, kept_bytes, opened):
    """The last one always, others as far as they fit."""
    stored = []
    for number in range(2):
        there = sink(repo)
        stored.append(there.put(Kind.TREE, bytes([number]) * 80))
        drain(there)
    repo.synchronise()
    repo.source.kept_bytes = kept_bytes
    blocks = []
    block = repo.source.block
    monkeypatch.setattr(repo.source, "block", lambda *key: blocks.append(key) or block(*key))
    for _ in range(3):
        for tree in stored:
            repo.source.get(Kind.TREE, tree)
            repo.source.get(Kind.TREE, tree)
    assert len(blocks) == opened


def test_chunk_of_one_kind_is_not_the_chunk_of_another(repo):
    """Content that holds a tree's bytes has another id than the tree, and does not read as one."""
    there = sink(repo)
    data, tree = there.put(Kind.DATA, b"same"), there.put(Kind.TREE, b"same")
    drain(there)
    assert data != tree
    assert there.tally.chunks_new == 2
    with pytest.raises(Corruption):
        repo.source.get(Kind.TREE, data)


def test_chunks_of_earlier_sessions_are_known(repo):
    """A second session stores nothing, and remembers what it relied on and where."""
    first = list(pieces(100))
    _, [pack] = store(repo, first)
    number = repo.index.number_of(pack)
    repo.synchronise()
    there = sink(repo)
    for kind, raw in first:
        there.put(kind, raw)
    assert there.knows(Kind.DATA, there.name(Kind.DATA, first[0][1]))
    assert not there.knows(Kind.DATA, there.name(Kind.DATA, b"news"))
    assert (there.tally.chunks_new, there.tally.chunks_known) == (0, 100)
    assert there.relied.packs == {number}
    assert len(list(there.relied.chunks_in({number}))) == 101
    there.flush()
    assert there.unlisted == []
    there.close()


def test_condemned_pack_is_not_relied_on(repo):
    """What lies in packs that are not usable is stored again."""
    store(repo, pieces(10))
    repo.index.usable.clear()
    there = sink(repo)
    for kind, raw in pieces(10):
        there.put(kind, raw)
    drain(there)
    assert (there.tally.chunks_new, there.relied.packs) == (10, set())
    assert len(repo.index.copies(there.name(Kind.DATA, next(pieces(1))[1]))) == 2


def test_packs_close_below_their_size_and_hold_whole_blocks(repo, backend):
    """Many packs: none longer than configured, every one readable from its end, own ones known as such."""
    there = sink(repo)
    for kind, raw in pieces(1500):
        there.put(kind, raw)
    there.flush()
    sizes = [pack.length_bytes for pack in there.unlisted]
    assert len(sizes) >= 4
    assert max(sizes) <= repo.config.pack_bytes
    assert {repo.index.number_of(pack.name) for pack in there.unlisted} == there.own_packs <= repo.index.usable
    for pack in there.unlisted:
        footer, encoded = read_footer(backend, repo.vault, pack.name, pack.length_bytes)
        assert encoded == pack.encoded
        assert all(block.raw_length <= repo.config.block_bytes for block in footer.blocks)
    assert there.tally.stored_bytes == sum(pack.footer.body_length for pack in there.unlisted)
    there.close()


def test_few_trees_share_the_pack_of_the_data(repo):
    """A small session makes one pack, trees behind data; a large one keeps trees apart."""
    there = sink(repo)
    there.put(Kind.TREE, b"t" * 500)
    there.put(Kind.DATA, b"d" * 500)
    there.put(Kind.LIST, b"l" * 500)
    there.flush()
    [pack] = there.unlisted
    assert pack.footer.blocks[0].kind == Kind.DATA
    assert {block.kind for block in pack.footer.blocks[1:]} == {Kind.TREE, Kind.LIST}
    there.unlisted.clear()
    for _, raw in pieces(400, 30_000, seed=1):
        there.put(Kind.TREE, raw)
    for kind, raw in pieces(100, seed=2):
        there.put(kind, raw)
    drain(there)
    mixed = [pack for pack in there.unlisted if len({block.kind == Kind.DATA for block in pack.footer.blocks}) == 2]
    assert (len(there.unlisted) > 10, len(mixed) <= 1) == (True, True)


def test_trees_alone_make_a_pack(repo):
    """A session without new data still stores its trees."""
    there = sink(repo)
    tree = there.put(Kind.TREE, b"t" * 500)
    drain(there)
    assert repo.source.get(Kind.TREE, tree) == b"t" * 500


def test_chunk_longer_than_a_block_is_a_block_of_its_own(repo):
    """A chunk is never split."""
    there = sink(repo)
    raw = random.Random(5).randbytes(repo.config.block_bytes * 3 + 1)
    ids = [there.put(Kind.DATA, b"before"), there.put(Kind.DATA, raw), there.put(Kind.DATA, b"after")]
    drain(there)
    assert [repo.source.get(Kind.DATA, chunk_id) for chunk_id in ids] == [b"before", raw, b"after"]


def test_put_copies_what_it_is_given(repo):
    """The caller may overwrite its buffer as soon as put has returned."""
    there = sink(repo)
    buffer = bytearray(b"first")
    first = there.put(Kind.DATA, buffer)
    buffer[:] = b"other"
    other = there.put(Kind.DATA, memoryview(buffer))
    drain(there)
    assert (repo.source.get(Kind.DATA, first), repo.source.get(Kind.DATA, other)) == (b"first", b"other")


def test_nothing_counts_as_stored_before_it_is_durable(repo, backend):
    """The index learns of a chunk only after its pack was put; without a flush nothing is left behind."""
    there = sink(repo)
    ids = [there.put(kind, raw) for kind, raw in pieces(1200)]
    listed = {name for name, _ in backend.list("packs")}
    assert {pack_object(pack.name) for pack in repo.index.packs()} <= listed
    there.close()
    known = [chunk_id for chunk_id in ids if repo.index.find(chunk_id, usable_only=False)]
    assert len(known) < len(ids)
    for chunk_id in known:
        repo.source.get(Kind.DATA, chunk_id)


def full(name):
    return StorageFull(name, "injected")


def run_session(repo, backend):
    there = sink(repo, backend)
    try:
        for kind, raw in pieces(1500):
            there.put(kind, raw)
        for _, raw in pieces(20, seed=7):
            there.put(Kind.TREE, raw)
        there.flush()
        repo.put_segments(b"S" * 16, there.unlisted)
    finally:
        there.close()


def test_full_disk_at_each_call_surfaces_and_the_next_run_completes(tmp_path, backend):
    """Whichever write of a session fails: the caller hears of it, nothing half-done is known, the next completes."""
    counted = Faults(backend)
    with opened(replica(backend.snapshot()), tmp_path / "count") as repo:
        counted.inner = repo.backend
        run_session(repo, counted)
    calls = counted.count(CHANGES)
    assert calls >= 5
    for at in range(1, calls + 1):
        inner = replica(backend.snapshot())
        with opened(inner, tmp_path / str(at)) as repo:
            failing = Faults(inner, [Fault(at=at, error=full, verbs=CHANGES)])
            repo.backend = failing
            with pytest.raises(StorageFull):
                run_session(repo, failing)
            repo.backend = inner
            for pack in repo.index.packs():
                read_footer(inner, repo.vault, pack.name, pack.length_bytes)
            assert len(list(repo.index.packs())) <= len(inner.list("packs"))
            repo.synchronise()
            assert repo.damaged == []
            run_session(repo, inner)
            for _, raw in pieces(1500):
                there = repo.index.find(ChunkId(_id(repo, raw)), usable_only=True)
                assert there is not None


def _id(repo, raw):
    return blake3(raw, key=repo.ring.id_keys[Kind.DATA]).digest()


def test_sink_that_failed_takes_nothing_more(repo, backend):
    """After an error every call raises it again: a caller who passes over one cannot believe in what follows."""
    failing = Faults(backend, [Fault(at=1, error=full, verbs=CHANGES)])
    there = sink(repo, failing)
    with pytest.raises(StorageFull):
        put_all(there, pieces(5000))
    for _ in range(2):
        with pytest.raises(StorageFull):
            there.flush()
        with pytest.raises(StorageFull):
            there.put(Kind.DATA, b"x")
    there.close()
    for name, length in backend.list("packs"):
        read_footer(backend, repo.vault, PackName(parse_hash_leaf(name[6:])), length)


def test_write_that_fails_in_a_stage_makes_no_pack(repo, backend):
    """A disk that is full for one write only leaves no pack that lacks a block, and no stage open."""

    class Once(MemoryBackend):
        def __init__(self):
            super().__init__()
            self.lock = threading.Lock()
            self.writes = 0
            self.open = 0

        def stage(self, folder):
            stage = super().stage(folder)
            write, commit, discard = stage.write, stage.commit, stage.discard
            done = []
            self.open += 1

            def end(action, *arguments):
                if not done:
                    done.append(True)
                    self.open -= 1
                action(*arguments)

            stage.commit = lambda name: end(commit, name)
            stage.discard = lambda: end(discard)

            def counted(piece):
                with self.lock:
                    self.writes += 1
                    if self.writes == 7:
                        raise StorageFull("packs", "for a moment")
                write(piece)

            stage.write = counted
            return stage

    once = Once()
    there = sink(repo, once)
    with pytest.raises(StorageFull):
        put_all(there, pieces(3000))
    there.close()
    assert once.open == 0
    for name, length in once.list("packs"):
        footer, _ = read_footer(once, repo.vault, PackName(parse_hash_leaf(name[6:])), length)
        assert hashlib.sha256(once.get(name)[: footer.body_length]).digest() == footer.body_hash


# --- out -----------------------------------------------------------------------------------------------------------


def test_chunk_in_no_pack_is_missing(repo):
    """What nobody stored is missing, and the error says what."""
    with pytest.raises(ChunkMissing) as caught:
        repo.source.get(Kind.LIST, ChunkId(b"?" * 32))
    assert (caught.value.kind, caught.value.chunk_id) == ("list", b"?" * 32)


def test_location_is_where_the_chunk_lies(repo):
    """A location leads to the block, and in it to the chunk."""
    content = list(pieces(100))
    ids, _ = store(repo, content)
    for (kind, raw), chunk_id in zip(content, ids, strict=True):
        at = repo.source.locate(kind, chunk_id)
        assert repo.source.block(at.pack, at.block)[at.offset : at.offset + at.length] == raw
        repo.source.check(kind, chunk_id, raw)
        with pytest.raises(Corruption):
            repo.source.check(kind, chunk_id, raw + b"x")


def test_chunks_are_located_together_as_they_are_one_by_one(repo):
    """Ids in and out of order, in several packs, repeated, and one that no pack holds."""
    ids = []
    for seed in range(3):
        there = sink(repo)
        ids += [there.put(Kind.DATA, random.Random(seed * 100 + number).randbytes(3000)) for number in range(40)]
        drain(there)
    asked = [*ids, *ids[5:9], *reversed(ids), ids[7]]
    expected = [repo.source.locate(Kind.DATA, chunk_id) for chunk_id in asked]
    assert repo.source.locate_each(b"".join(asked)) == expected
    strange = ChunkId(bytes(32))
    found = repo.source.locate_each(b"".join([ids[3], strange, ids[4], strange]))
    assert found == [repo.source.locate(Kind.DATA, ids[3]), None, repo.source.locate(Kind.DATA, ids[4]), None]


def test_reader_finds_chunks_that_were_moved_under_it(repo, backend, tmp_path):
    """When a pack goes after its chunks were copied, a reader with an old index finds the copy."""
    [chunk_id], [pack] = store(repo, [(Kind.DATA, b"wanted")])
    other = replica({})
    other._objects = backend._objects
    with opened(other, tmp_path / "collector") as collector:
        collector.index.usable.clear()
        store(collector, [(Kind.DATA, b"wanted")])
        collector.backend.delete(pack_object(pack))
    assert repo.source.get(Kind.DATA, chunk_id) == b"wanted"
    assert repo.index.number_of(pack) is None


def test_reader_that_finds_no_copy_says_so(repo, backend):
    """When a pack is gone for good, its chunks are missing."""
    [chunk_id], [pack] = store(repo, [(Kind.DATA, b"wanted")])
    backend.delete(pack_object(pack))
    with pytest.raises((ChunkMissing, ObjectMissing)):
        repo.source.get(Kind.DATA, chunk_id)


def test_reader_takes_a_sound_copy_for_a_damaged_one(repo, backend):
    """Of two copies one is damaged: reading gives the bytes; with both damaged it says so."""
    [chunk_id], [first] = store(repo, [(Kind.TREE, b"wanted")])
    repo.index.usable.clear()
    _, [second] = store(repo, [(Kind.TREE, b"wanted")])
    sound = {pack: backend.get(pack_object(pack)) for pack in (first, second)}
    for bad in ((first,), (second,), (first, second)):
        for pack, content in sound.items():
            changed = content[:60] + b"????" + content[64:] if pack in bad else content
            backend.damage(pack_object(pack), changed)
        repo.source.forget_positions()
        if len(bad) == 1:
            assert repo.source.get(Kind.TREE, chunk_id) == b"wanted"
        else:
            with pytest.raises(Corruption):
                repo.source.get(Kind.TREE, chunk_id)


def test_failing_storage_is_no_missing_chunk(repo, backend):
    """An error of the storage comes through as what it is."""
    [chunk_id], _ = store(repo, [(Kind.DATA, b"wanted")])
    failing = Faults(backend, [Fault(at=1, error=lasting_failure, times=100)])
    repo.source._backend = failing
    with pytest.raises(StorageFailed):
        repo.source.get(Kind.DATA, chunk_id)


def test_blocks_may_be_read_by_many_threads(repo):
    """Once located, blocks are fetched and opened by several threads at once."""
    content = list(pieces(600))
    ids, _ = store(repo, content)
    places = [repo.source.locate(kind, chunk_id) for (kind, _), chunk_id in zip(content, ids, strict=True)]
    wrong = []

    def read(first):
        for number in range(first, len(places), 4):
            at = places[number]
            if repo.source.block(at.pack, at.block)[at.offset : at.offset + at.length] != content[number][1]:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_blocks_may_be_read_while_the_index_is_read_and_grows(repo, monkeypatch):
    """Readers in other threads need the index for packs out of sight, while its own thread looks up and writes."""
    monkeypatch.setattr("respaldo.store.source._FOOTERS_KEPT", 1)
    content = list(pieces(1500))
    ids, packs = store(repo, content)
    assert len(packs) > 3
    places = [repo.source.locate(kind, chunk_id) for (kind, _), chunk_id in zip(content, ids, strict=True)]
    numbers = random.Random(3).sample(range(len(places)), 400)
    wrong = []
    shared, owner = repo.index._read, threading.get_ident()

    def guarded():
        if threading.get_ident() != owner:
            wrong.append("the transaction of the index's own thread")
        return shared()

    monkeypatch.setattr(repo.index, "_read", guarded)

    def read(share):
        for number in share:
            at = places[number]
            raw = repo.source.block(at.pack, at.block)[at.offset : at.offset + at.length]
            if raw != content[number][1]:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(numbers[first::3],)) for first in range(3)]
    for thread in threads:
        thread.start()
    records = 0
    while any(thread.is_alive() for thread in threads):
        for kind, chunk_id in ((Kind.DATA, ids[number]) for number in numbers[:50]):
            repo.source.locate(kind, chunk_id)
        repo.index.put_records({f"condemned/{records}": bytes(2 << 20)})
        records += 1
    for thread in threads:
        thread.join()
    assert wrong == []
