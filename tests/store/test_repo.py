"""The repository: made once, whole or not at all; opened by who may; and what there is, kept in step with storage."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import lmdb
import pytest

from respaldo.backend.faults import CHANGES, VERBS, Crash, Fault, Faults, lasting_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.codec.slots import STANDARD
from respaldo.core.errors import (
    Corruption,
    NotARepository,
    ObjectExists,
    RespaldoError,
    StorageFailed,
    UnsupportedFormat,
    WrongSecret,
)
from respaldo.core.ids import Kind, SegmentName, pack_object, parse_hash_leaf, segment_object
from respaldo.format.header import HEADER, MAGIC, close_object
from respaldo.format.segment import Listed, Segment
from respaldo.format.snapshot import Condemnation
from respaldo.store import slots
from respaldo.store.header import read_header
from respaldo.store.making import create
from respaldo.store.packs import read_footer
from respaldo.store.repo import Repo
from tests.flows.check.scenes import flipped
from tests.store.repositories import CONFIG, OTHER, SECRET, SESSION, Clock, initialise, opened, pieces, replica, store

# --- making --------------------------------------------------------------------------------------------------------


def test_init_makes_header_slot_and_configuration(backend, tmp_path):
    """A new repository is three objects, and opens with its secret and configuration."""
    assert sorted(name.partition("/")[0] for name in backend.snapshot()) == ["config", "header", "keys"]
    with opened(backend, tmp_path) as repo:
        assert repo.config == CONFIG
        assert repo.header.created_ns == Clock().now
        assert list(repo.index.packs()) == []


def test_init_twice_is_refused_and_changes_nothing(backend):
    """A repository is not made over another one."""
    before = backend.snapshot()
    with pytest.raises(ObjectExists):
        initialise(backend)
    assert backend.snapshot() == before


def init_steps():
    counted = Faults(MemoryBackend())
    initialise(counted)
    return counted.count()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("error", [lasting_failure, Crash])
@pytest.mark.parametrize("at", range(1, init_steps() + 1))
def test_init_interrupted_at_each_call_can_be_repeated(tmp_path, at, error, after):
    """Whichever call fails or kills: there is a whole repository or none, and the next init makes one that opens."""
    inner = MemoryBackend()
    with pytest.raises((StorageFailed, Crash)):
        initialise(Faults(inner, [Fault(at=at, error=error, after=after, verbs=VERBS)]))
    if inner.exists(HEADER) is None:
        initialise(inner)
    with opened(inner, tmp_path) as repo:
        assert repo.config == CONFIG
    assert len(inner.list("keys")) == 1


class Interleaved(Faults):
    """Lets another init run, whole, between two calls of this one."""

    def __init__(self, inner, turn):
        super().__init__(inner)
        self.turn = turn
        self.other = ""

    def _call(self, verb, name, effect):
        if len(self.calls) == self.turn and not self.other:
            self.other = attempt(self.inner)
        return super()._call(verb, name, effect)


def attempt(backend):
    try:
        initialise(backend)
    except ObjectExists:
        return "lost"
    return "won"


@pytest.mark.parametrize("turn", range(init_steps()))
@pytest.mark.parametrize("leftover", [False, True])
def test_two_inits_at_once_make_one_repository(tmp_path, turn, leftover):
    """However two inits interleave, one wins, the other learns of it, and the winner's repository opens."""
    inner = MemoryBackend()
    if leftover:
        with pytest.raises(Crash):
            initialise(Faults(inner, [Fault(at=init_steps(), error=Crash)]))
    mine = Interleaved(inner, turn)
    assert sorted([attempt(mine), mine.other]) == ["lost", "won"]
    with opened(inner, tmp_path):
        pass
    assert {name.partition("/")[0] for name in inner.snapshot()} == {"header", "keys", "config"}


def test_two_inits_in_threads_make_one_repository(tmp_path):
    """The same with threads that nobody steers."""
    for turn in range(10):
        inner = MemoryBackend()
        results = []

        def run(inner=inner, results=results):
            try:
                initialise(inner)
                results.append("won")
            except RespaldoError:
                results.append("lost")

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count("won") == 1
        with opened(inner, tmp_path / str(turn)):
            pass


# --- opening -------------------------------------------------------------------------------------------------------


def test_wrong_secret_is_said(backend, tmp_path):
    """A secret that no slot opens with."""
    with pytest.raises(WrongSecret):
        opened(backend, tmp_path, secret=OTHER)


def test_place_without_header_is_no_repository(tmp_path):
    """Neither nothing nor something else is a repository."""
    with pytest.raises(NotARepository):
        opened(MemoryBackend(), tmp_path)
    with pytest.raises(NotARepository):
        opened(replica({HEADER: b"#!/bin/sh\n"}), tmp_path)


def test_newer_format_is_said(tmp_path):
    """A header of another format or suite is told from damage."""
    from respaldo.format import canonical

    for fields in ([2, "aes-256-gcm", b"R" * 16, 0], [2], [1, "rot13", b"R" * 16, 0]):
        backend = replica({HEADER: close_object(MAGIC + canonical.pack(fields))})
        with pytest.raises(UnsupportedFormat):
            opened(backend, tmp_path)


def test_other_header_than_the_pinned_one_is_refused(backend, tmp_path):
    """A client that has seen this place before is not fooled by another repository there, before any secret is used."""
    pinned = read_header(backend).hash
    with opened(backend, tmp_path, pinned=pinned):
        pass
    other = MemoryBackend()
    initialise(other)
    with pytest.raises(Corruption) as caught:
        opened(other, tmp_path, pinned=pinned)
    assert caught.value.name == HEADER


def test_slots_and_config_of_another_repository_do_not_open(backend, tmp_path):
    """Keys depend on the header: slot or configuration from elsewhere is refused, even under the same secret."""
    other = MemoryBackend()
    initialise(other)
    mixed = backend.snapshot()
    mixed[HEADER] = other.get(HEADER)
    with pytest.raises(WrongSecret):
        opened(replica(mixed), tmp_path)
    mixed = backend.snapshot()
    [config] = [name for name in mixed if name.startswith("config/")]
    mixed[config] = other.get(config)
    with pytest.raises(Corruption) as caught:
        opened(replica(mixed), tmp_path)
    assert caught.value.name == config


def test_highest_configuration_counts(backend, tmp_path):
    """Versions are compared as numbers of sixteen digits; a missing one is damage."""
    with opened(backend, tmp_path) as repo:
        name = "config/" + "f" * 16
        newer = replace(CONFIG, level=9)
        backend.put(name, [repo.vault.seal_record("config", name, newer.encode())])
    with opened(backend, tmp_path) as repo:
        assert repo.config == newer
    for name, _ in backend.list("config"):
        backend.delete(name)
    with pytest.raises(Corruption, match="no configuration"):
        opened(backend, tmp_path)


def test_two_who_change_the_configuration_at_once_lose_neither_change(backend, tmp_path):
    """What another one puts after the configuration was read is in the version that comes after it."""
    with opened(backend, tmp_path / "one") as one, opened(backend, tmp_path / "other") as other:

        def change(config):
            if other.config.level == CONFIG.level:
                other.configure(lambda config: replace(config, level=7))
            return replace(config, parity=50)

        one.configure(change)
        assert one.config == replace(CONFIG, level=7, parity=50)
    with opened(backend, tmp_path) as repo:
        assert repo.config == replace(CONFIG, level=7, parity=50)


def test_damaged_slot_does_not_keep_another_from_opening(backend, tmp_path):
    """One sound slot is enough."""
    with opened(backend, tmp_path) as repo:
        name = slots.add(
            backend, repo.ring, repo.vault, secret=OTHER, kdf=STANDARD, label="", now_ns=0, random=os.urandom
        )
    [first] = [item for item, _ in backend.list("keys") if item != name]
    backend.damage(first, flipped(backend.get(first), 9))
    with opened(backend, tmp_path, secret=OTHER):
        pass
    with pytest.raises(Corruption):
        opened(backend, tmp_path, secret=SECRET)


# --- what is there -------------------------------------------------------------------------------------------------


def twin(repo, tmp_path, name="twin"):
    """The same repository, as another client sees it."""
    other = MemoryBackend()
    other._objects = repo.backend._objects
    return opened(other, tmp_path / name)


def test_new_client_learns_of_packs_from_segments_alone(repo, backend, tmp_path):
    """With segments, no pack is touched."""
    ids, packs = store(repo, pieces(900))
    assert len(packs) > 1
    counted = Faults(backend)
    with opened(counted, tmp_path / "new") as other:
        assert all(other.index.find(chunk_id, usable_only=True) for chunk_id in ids)
    assert [name for verb, name in counted.calls if verb == "get" and name.startswith("packs/")] == []


def test_pack_in_no_segment_is_found(repo, tmp_path):
    """What an interrupted session left is found by listing, and named as unlisted."""
    ids, [pack] = store(repo, pieces(5), segment=False)
    _, [listed] = store(repo, pieces(5, seed=2))
    with twin(repo, tmp_path) as other:
        assert all(other.index.find(chunk_id, usable_only=True) for chunk_id in ids)
        assert [item.name for item in other.unlisted()] == [pack]
        assert {item.name for item in other.index.packs()} == {pack, listed}


def test_changes_of_others_are_followed(repo, tmp_path):
    """Packs and segments that others add appear, what others delete goes, in whatever order."""
    first, [old] = store(repo, pieces(5))
    with twin(repo, tmp_path) as other:
        second, _ = store(other, pieces(5, seed=2))
        other.backend.delete(pack_object(old))
    listing = repo.synchronise()
    assert old not in listing.packs
    assert all(repo.index.find(chunk_id, usable_only=True) for chunk_id in second)
    assert not any(repo.index.find(chunk_id, usable_only=False) for chunk_id in first)
    for name, _ in repo.backend.list("segments"):
        repo.backend.delete(name)
    repo.synchronise()
    assert repo.index.segments() == set()
    assert all(repo.index.find(chunk_id, usable_only=True) for chunk_id in second)


def test_pack_that_comes_back_is_known_again(repo, tmp_path):
    """A pack that was out of sight for a while is entered anew, though its segment was applied before."""
    ids, [pack] = store(repo, pieces(5))
    content = repo.backend.get(pack_object(pack))
    repo.backend.delete(pack_object(pack))
    repo.synchronise()
    repo.backend.damage(pack_object(pack), content)
    repo.synchronise()
    assert all(repo.index.find(chunk_id, usable_only=True) for chunk_id in ids)


@pytest.mark.parametrize("folder", ["condemned", "packs", "segments"])
def test_failed_listing_is_an_error_and_forgets_nothing(repo, folder):
    """A listing that fails is never an empty one."""
    ids, _ = store(repo, pieces(5))
    inner = repo.backend

    class Failing(Faults):
        def list(self, wanted):
            if wanted == folder:
                raise StorageFailed(wanted, "injected")
            return super().list(wanted)

    repo.backend = Failing(inner)
    with pytest.raises(StorageFailed):
        repo.synchronise()
    assert all(repo.index.find(chunk_id, usable_only=True) for chunk_id in ids)
    repo.backend = inner


def test_torn_pack_is_never_a_target_of_deduplication(repo, backend, tmp_path):
    """A pack of another length than its segment says, or whose end does not open, is not known."""
    ids, [pack] = store(repo, pieces(5))
    name = pack_object(pack)
    content = backend.get(name)
    backend.damage(name, content[:-100])
    repo.synchronise()
    with twin(repo, tmp_path) as other:
        for client in (repo, other):
            assert not any(client.index.find(chunk_id, usable_only=False) for chunk_id in ids)
            assert [error.name for error in client.damaged if isinstance(error, Corruption)] == [name]
    backend.damage(name, content)
    repo.synchronise()
    assert all(repo.index.find(chunk_id, usable_only=True) for chunk_id in ids)


def test_damaged_segment_is_named_and_done_without(repo, backend, tmp_path):
    """Segments only repeat: with one damaged, its packs are read instead."""
    ids, _ = store(repo, pieces(5))
    [(name, _)] = backend.list("segments")
    backend.damage(name, flipped(backend.get(name), 500))
    with twin(repo, tmp_path) as other:
        assert all(other.index.find(chunk_id, usable_only=True) for chunk_id in ids)
        assert [error.name for error in other.damaged if isinstance(error, Corruption)] == [name]


def test_segment_cannot_place_blocks_beyond_a_packs_end(repo, backend, tmp_path):
    """A footer in a segment that does not fit the pack's length is refused; the pack itself is asked."""
    _, [big] = store(repo, pieces(300))
    ids, [small] = store(repo, pieces(1, seed=2))
    footer = read_footer(backend, repo.vault, big, backend.exists(pack_object(big)))[1]
    for name, _ in backend.list("segments"):
        backend.delete(name)
    length = backend.exists(pack_object(small))
    listed = Listed(pack=small, length_bytes=length, footer=footer)
    segment, data = repo.vault.seal_segment(Segment(session=SESSION, packs=(listed,)).encode())
    backend.put(segment_object(segment), [data])
    with twin(repo, tmp_path) as other:
        assert [error.reason for error in other.damaged if isinstance(error, Corruption)] == [
            "gives a pack blocks beyond its end"
        ]
        assert other.source.get(Kind.DATA, ids[0]) == next(pieces(1, seed=2))[1]


def condemn(repo, *packs):
    name = "condemned/" + os.urandom(16).hex()
    record = Condemnation(collector=SESSION, time_ns=0, packs=packs)
    repo.backend.put(name, [repo.vault.seal_record("condemnation", name, record.encode())])
    return name


def test_condemned_packs_are_read_but_not_relied_on(repo):
    """A condemned pack serves readers as long as it exists; writers store its chunks again."""
    ids, [pack] = store(repo, pieces(5))
    condemn(repo, pack)
    listing = repo.synchronise()
    assert listing.condemned == {pack}
    assert not any(repo.index.find(chunk_id, usable_only=True) for chunk_id in ids)
    assert repo.source.get(Kind.DATA, ids[0]) == next(pieces(1))[1]


def test_condemnations_are_listed_before_packs(repo, backend):
    """A pack that is condemned after the condemnations were listed must still be in the listing of packs."""
    counted = Faults(backend)
    repo.backend = counted
    repo.list_packs()
    assert [name for verb, name in counted.calls if verb == "list"] == ["condemned", "packs"]


def test_unreadable_condemnation_stops_writers_and_not_readers(repo, backend):
    """Whoever writes must know what is condemned; whoever reads goes on, and relies on nothing."""
    ids, _ = store(repo, pieces(5))
    name = condemn(repo)
    backend.damage(name, flipped(backend.get(name), 70))
    with pytest.raises(Corruption):
        repo.synchronise()
    repo.synchronise(lenient=True)
    assert [error.name for error in repo.damaged if isinstance(error, Corruption)] == [name]
    assert repo.index.usable == set()
    assert repo.source.get(Kind.DATA, ids[0]) == next(pieces(1))[1]


def test_segments_are_of_bounded_size(repo, backend, monkeypatch):
    """Many footers make several segments; a reader of all of them knows every pack."""
    monkeypatch.setattr("respaldo.store.segments.SEGMENT_FOOTER_BYTES", 20_000)
    _, packs = store(repo, pieces(2000))
    names = [name for name, _ in backend.list("segments")]
    assert len(packs) > len(names) > 1
    listed = [item.pack for name in names for item in repo.read_segment(SegmentName(parse_hash_leaf(name[9:]))).packs]
    assert sorted(listed) == sorted(packs)


def test_new_client_enters_all_segments_and_goes_on_where_that_was_cut_off(repo, backend, tmp_path, monkeypatch):
    """A client that finds many segments knows every chunk; one that fails at the last knows none, and then all."""
    monkeypatch.setattr("respaldo.store.segments.SEGMENT_FOOTER_BYTES", 20_000)
    ids, packs = store(repo, pieces(2000))
    names = sorted(SegmentName(parse_hash_leaf(name[9:])) for name, _ in backend.list("segments"))
    listed = repo.read_segment(names[0]).packs
    repo.segments._put(Segment(session=SESSION, packs=tuple(listed)))  # packs that stand in two segments
    names = sorted(SegmentName(parse_hash_leaf(name[9:])) for name, _ in backend.list("segments"))
    with Repo.open(backend, SECRET, cache_dir=tmp_path / "new", clock=Clock(), random=os.urandom) as other:
        read = other.segments.read

        def failing(name):
            if name == names[-1]:
                raise StorageFailed("segments", "the line is cut")
            return read(name)

        other.segments.read = failing
        with pytest.raises(StorageFailed):
            other.synchronise()
        assert list(other.index.packs()) == []
        assert all(other.index.find(chunk_id, usable_only=False) is None for chunk_id in ids)
        other.segments.read = read
        other.synchronise()
        assert other.damaged == []
        assert sorted(pack.name for pack in other.index.packs()) == sorted(packs)
        assert other.index.segments() == set(names)
        assert all(len(other.index.copies(chunk_id)) == 1 for chunk_id in ids)
        assert other.index.chunk_count() >= len(ids)


def test_names_that_mean_nothing_are_ignored(repo, backend, tmp_path):
    """What others leave in a folder is no object."""
    store(repo, pieces(5))
    for name in ("packs/readme", "segments/x", "packs/" + "a" * 63, "config/readme", "condemned/notes"):
        backend.damage(name, b"?")
    backend.delete("condemned/notes")
    with twin(repo, tmp_path) as other:
        assert other.damaged == []
        assert len(other.synchronise().packs) == 1


def test_repository_that_failed_to_open_leaves_the_cache_usable(backend, tmp_path):
    """An error while opening does not keep the cache busy."""
    with pytest.raises(Corruption):
        Repo.open(
            replica({**backend.snapshot(), "config/" + "f" * 16: b"torn"}),
            SECRET,
            cache_dir=tmp_path,
            clock=Clock(),
            random=os.urandom,
        )
    with opened(backend, tmp_path):
        pass


def test_create_puts_the_header_last(tmp_path):
    """Nobody takes for a repository what is not whole."""
    counted = Faults(MemoryBackend())
    create(
        counted, secret=SECRET, kdf=STANDARD, config=CONFIG, clock=Clock(), random=os.urandom, label=""
    )  # fmt: skip
    puts = [name.partition("/")[0] for verb, name in counted.calls if verb in CHANGES]
    assert puts == ["keys", "config", "header"]


def test_damage_in_the_cache_drops_it_and_the_next_run_makes_it_anew(backend, tmp_path):
    """A page that rotted costs one run, not every run until somebody removes the cache."""
    with opened(backend, tmp_path) as repo:
        store(repo, pieces(3))
    repo = opened(backend, tmp_path)
    with pytest.raises(StorageFailed, match="local cache") as caught, repo:
        raise lmdb.CorruptedError("a page of the wrong type")
    assert "again" in caught.value.hint
    assert not repo.cache_dir.exists()
    with opened(backend, tmp_path) as repo:
        repo.synchronise()
        assert repo.index.chunk_count() == 3
