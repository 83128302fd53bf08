"""Segments are merged: few are left to read, every pack stays in their union, and no claim hides one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import Corruption
from respaldo.core.ids import Kind, PackName, SegmentName, pack_object, parse_hash_leaf, segment_object
from respaldo.format.segment import Listed, Segment
from respaldo.store import tiers
from respaldo.store.merged import Unread
from tests.flows.check.scenes import flipped
from tests.store.repositories import SESSION, initialise, opened, replica, store


def session(repo, number):
    """Stores one small pack with its segment, and merges what is due; returns the pack and the merged segment."""
    repo.synchronise(lenient=True)
    [chunk], [pack] = store(repo, [(Kind.DATA, b"content %d" % number)])
    return chunk, pack, repo.segments.merge(SESSION)


def names(backend):
    return {SegmentName(parse_hash_leaf(name[9:])) for name, _ in backend.list("segments")}


def reads(backend, cache):
    """Opens it as a new client; returns the segments and the packs that were read, and the packs that it knows."""
    counted = Faults(backend)
    with opened(counted, cache) as other:
        known = {pack.name for pack in other.index.packs()}
        damaged = list(other.damaged)
    got = [name for verb, name in counted.calls if verb == "get"]
    return (
        [name for name in got if name.startswith("segments/")],
        [name for name in got if name.startswith("packs/")],
        known,
        damaged,
    )


def test_sixteen_segments_become_one(repo, backend, tmp_path):
    """The sixteenth session merges; a new client reads that one alone, and no pack."""
    made = [session(repo, number) for number in range(16)]
    assert [merged is not None for _, _, merged in made] == [False] * 15 + [True]
    merged = repo.read_segment(made[-1][2])
    assert {item.pack for item in merged.packs} == {pack for _, pack, _ in made}
    assert {*merged.supersedes, made[-1][2]} == names(backend)
    segments, packs, known, _ = reads(backend, tmp_path / "new")
    assert segments[0] == segment_object(made[-1][2])
    assert len(segments) == 16, "one wave: they are asked for together"
    assert (packs, known) == ([], {pack for _, pack, _ in made})


def test_merged_segment_is_longer_than_what_it_supersedes(repo, backend):
    """So whoever reads the longest first need not read the others."""
    merged = [session(repo, number)[2] for number in range(32)]
    sizes = dict(backend.list("segments"))
    for name in filter(None, merged):
        size = sizes[segment_object(name)]
        assert all(size > sizes[segment_object(old)] for old in repo.read_segment(name).supersedes)


def test_few_segments_are_read_of_many(repo, backend, tmp_path, monkeypatch):
    """A new client reads what stands, and at most one wave of what it need not have read."""
    monkeypatch.setattr(tiers, "FANOUT", 4)
    monkeypatch.setattr("respaldo.store.merged.AT_ONCE", 1)
    packs = {session(repo, number)[1] for number in range(100)}
    assert len(names(backend)) == 125  # cascades spare the merged ones of full classes
    segments, read, known, _ = reads(backend, tmp_path / "new")
    assert len(segments) <= 3 * (1 + tiers.tier(tiers.Extent(100, 0)))
    assert (read, known) == ([], packs)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), fanout=st.sampled_from([2, 3, 4]))
def test_no_pack_is_lost_from_the_union(tmp_path_factory, seed, fanout):
    """Whatever two clients do, and whatever packs and superseded segments go: all packs stand in what is left."""
    chance = random.Random(seed)
    backend, folder = MemoryBackend(), tmp_path_factory.mktemp("clients")
    initialise(backend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiers, "FANOUT", fanout)
        with opened(backend, folder / "a") as one, opened(backend, folder / "b") as two:
            alive: list[PackName] = []
            for number in range(chance.randrange(5, 25)):
                repo = chance.choice((one, two))
                alive.append(session(repo, number)[1])
                if chance.random() < 0.2:
                    backend.delete(pack_object(alive.pop(chance.randrange(len(alive)))))
                if chance.random() < 0.2:
                    backend.discard(map(segment_object, repo.superseded_segments()))
        with opened(backend, folder / "new") as repo:
            assert {pack.name for pack in repo.index.packs()} == set(alive)
            assert set(alive) <= repo.segments.packs_listed()
            standing = names(backend) - repo.superseded_segments()
            classes = tiers.tier(tiers.Extent(max(len(alive), 1), 0)) + 2
            assert len(standing) <= 2 * fanout * classes


def test_two_sessions_merge_the_same_segments(repo, backend, tmp_path):
    """Both merged segments stand, neither loses anything, and one of a later merge takes in both."""
    for number in range(15):
        session(repo, number)
    with opened(backend, tmp_path / "other") as other:
        store(repo, [(Kind.DATA, b"sixteenth")])
        other.synchronise()
        listing = repo.list_packs().packs
        first, second = repo.segments.merge(SESSION), other.segments.merge(SESSION)
        assert first is not None
        assert second is not None
        assert set(repo.read_segment(first).packs) == set(repo.read_segment(second).packs)
    backend.discard(map(segment_object, repo.superseded_segments()))
    assert names(backend) == {first, second}
    assert reads(backend, tmp_path / "new")[2] == listing.keys()


def test_segment_put_while_another_merges_keeps_its_pack(repo, monkeypatch):
    """Another process with the same cache may put a segment when the packs were listed: what it lists is not gone."""
    for number in range(15):
        session(repo, number)
    repo.synchronise()
    store(repo, [(Kind.DATA, b"sixteenth")])
    late: list[PackName] = []
    real = repo.segments.listed

    def listed():
        if not late:
            late.extend(store(repo, [(Kind.DATA, b"late")])[1])
        return real()

    monkeypatch.setattr(repo.segments, "listed", listed)
    merged = repo.segments.merge(SESSION)
    assert merged is not None
    assert late[0] in {item.pack for item in repo.read_segment(merged).packs}


@pytest.mark.parametrize("at", [1, 2])
def test_crash_while_merging_loses_nothing(repo, backend, tmp_path, at):
    """Before the merged segment is put, after it, or while what it supersedes is deleted."""
    packs = {session(repo, number)[1] for number in range(15)}
    packs.update(store(repo, [(Kind.DATA, b"last")])[1])
    repo.backend = Faults(backend, [Fault(at=at, error=Crash, verbs=CHANGES)])

    def merge_and_collect():
        repo.segments.merge(SESSION)
        for name in sorted(repo.superseded_segments()):
            repo.backend.delete(segment_object(name))

    with pytest.raises(Crash):
        merge_and_collect()
    repo.backend = backend
    _, read, known, damaged = reads(backend, tmp_path / "new")
    assert (read, known, damaged) == ([], packs, [])


def test_false_claim_hides_nothing(repo, backend, tmp_path):
    """What a segment passes off as superseded is found in the packs' own footers, by old clients and new ones."""
    chunks = [session(repo, number)[0] for number in range(3)]
    lie = Segment(session=SESSION, packs=(), supersedes=tuple(names(backend)))
    name, data = repo.vault.seal_segment(lie.encode(), longer_than=1 << 17)
    backend.put(segment_object(name), [data])
    with opened(backend, tmp_path / "new") as other:
        assert all(other.source.get(Kind.DATA, chunk) for chunk in chunks)
    repo.synchronise()
    assert all(repo.source.get(Kind.DATA, chunk) for chunk in chunks)
    backend.discard(map(segment_object, repo.superseded_segments()))
    with opened(backend, tmp_path / "later") as other:
        assert all(other.source.get(Kind.DATA, chunk) for chunk in chunks)


def test_damaged_merged_segment_supersedes_nothing(repo, backend, tmp_path):
    """What it repeated is read from the ones it took the place of, and none of them may go."""
    packs = {pack for _, pack, _ in (session(repo, number) for number in range(16))}
    [(merged, _)] = sorted(backend.list("segments"), key=lambda item: -item[1])[:1]
    backend.damage(merged, flipped(backend.get(merged), 500))
    _, read, known, damaged = reads(backend, tmp_path / "new")
    assert (read, known, [error.name for error in damaged]) == ([], packs, [merged])
    assert repo.superseded_segments() == frozenset()


def test_pack_that_is_gone_is_left_out(repo, backend):
    """A merged segment does not remember what was deleted; one that lists nothing that exists may go."""
    first = session(repo, 0)[1]
    others = {session(repo, number)[1] for number in range(1, 15)}
    backend.delete(pack_object(first))
    _, last, merged = session(repo, 15)
    assert {item.pack for item in repo.read_segment(merged).packs} == others | {last}
    assert merged not in repo.superseded_segments()
    for pack in others | {last}:
        backend.delete(pack_object(pack))
    assert repo.superseded_segments() == names(backend)


def test_superseded_segments_are_remembered(repo, backend, tmp_path):
    """A client that passed over a segment does not read it next time either."""
    for number in range(20):
        session(repo, number)
    cache = tmp_path / "new"
    reads(backend, cache)
    assert reads(backend, cache)[:2] == ([], [])


def test_vanished_segment_means_listing_again(repo, backend):
    """What superseded it is in the next listing: a reader does not fall back to packs."""
    for number in range(15):
        session(repo, number)
    old = names(backend)
    session(repo, 15)
    merged = names(backend) - old
    listings = [dict.fromkeys(old, 1), dict.fromkeys(merged, 1)]
    for name in old:
        backend.delete(segment_object(name))
    damaged: list[Corruption] = []
    found = [name for name, _ in Unread(lambda: listings.pop(0), repo.read_segment, (), damaged)]
    assert set(found) == merged & names(backend)
    assert (listings, damaged) == ([], [])


def test_segment_that_vanishes_for_ever_ends_the_reading(repo):
    """Storage that lists what it does not have is not asked for ever."""
    ghosts = iter(range(100))
    unread = Unread(lambda: {SegmentName(next(ghosts).to_bytes(32, "big")): 1}, repo.read_segment, (), [])
    assert list(unread) == []
    assert next(ghosts) < 20


def test_merging_leaves_what_cannot_be_read(repo, backend):
    """A segment that was damaged is not merged, nor chosen again and again."""
    for number in range(15):
        session(repo, number)
    store(repo, [(Kind.DATA, b"last")])
    name = min(name for name, _ in backend.list("segments"))
    backend.damage(name, flipped(backend.get(name), 500))
    assert repo.segments.merge(SESSION) is None
    _, _, merged = session(repo, 17)
    assert merged is not None
    assert SegmentName(parse_hash_leaf(name[9:])) not in repo.read_segment(merged).supersedes


def test_listed_twice_with_other_lengths_takes_the_listed_one(repo, backend):
    """A segment that gives a pack another length than it has does not enter the merged one."""
    chunk, pack, _ = session(repo, 0)
    real = repo.read_segment(next(iter(names(backend)))).packs[0]
    lie = Segment(session=SESSION, packs=(Listed(pack=pack, length_bytes=real.length_bytes + 1, footer=real.footer),))
    name, data = repo.vault.seal_segment(lie.encode())
    backend.put(segment_object(name), [data])
    merged = next(filter(None, (session(repo, number)[2] for number in range(1, 16))))
    assert [item for item in repo.read_segment(merged).packs if item.pack == pack] == [real]
    assert repo.source.get(Kind.DATA, chunk) == b"content 0"


def test_replica_without_the_newest_is_read_from_the_old(repo, backend, tmp_path):
    """Storage that is behind shows what was superseded, and that still says everything."""
    packs = {session(repo, number)[1] for number in range(15)}
    behind = replica(backend.snapshot())
    session(repo, 15)
    assert reads(behind, tmp_path / "new")[2] == packs
