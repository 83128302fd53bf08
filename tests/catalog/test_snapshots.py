"""Snapshots: what counts as one, in which state of the protocol, and what names they answer to."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from respaldo.backend.faults import Fault, Faults, lasting_failure
from respaldo.catalog.decided import cached, commit_of, keep
from respaldo.catalog.snapshots import decide, list_pending, load, outcome_name, pending_name, put_pending
from respaldo.core.errors import Corruption, NoSuchSnapshot, ObjectExists, StorageFailed, UsageError
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.format.snapshot import Manifest, Verdict
from tests.flows.check.scenes import flipped
from tests.store.repositories import SESSION

MANIFEST = Manifest(
    session=SESSION,
    root=ChunkId(b"r" * 32),
    sources=(b"/s",),
    time_ns=1,
    started_ns=1,
    ended_ns=2,
    host="h",
    user="u",
    uid=0,
)


def snapshot(number):
    return SnapshotId(bytes([number]) * 16)


def commit(repo, number, **fields):
    manifest = replace(MANIFEST, **fields)
    assert decide(repo, snapshot(number), Verdict.COMMIT, put_pending(repo, snapshot(number), manifest)) == "commit"
    return manifest


def damage(backend, name):
    backend.damage(name, flipped(backend.get(name), 100))


@pytest.mark.parametrize("fields", [{"label": "x" * 70_000}, {"sources": (b"/s",) * 140_000}, {"time_ns": 1 << 63}])
def test_manifest_that_no_reader_accepts_is_not_put(repo, fields):
    """What would count as damaged the next time it is read never becomes a snapshot."""
    with pytest.raises(UsageError):
        put_pending(repo, snapshot(1), replace(MANIFEST, **fields))
    assert not list_pending(repo)


def loaded(repo):
    """What a listing shows: the same from the cache as afresh."""
    first, again = load(repo), load(repo)
    assert (first.snapshots, first.undecided) == (again.snapshots, again.undecided)
    return [item.id for item in first.snapshots], list(first.undecided), [error.name for error in first.damaged]


def test_committed_manifest_is_a_snapshot(repo):
    """With its outcome, a manifest comes back as it was put."""
    manifest = commit(repo, 1, label="a", tags=("x", "y"))
    [item] = load(repo).snapshots
    assert (item.id, item.hex, item.manifest) == (snapshot(1), "01" * 16, manifest)
    assert loaded(repo) == ([snapshot(1)], [], [])


def test_what_another_process_keeps_after_the_listing_stays_kept(repo, monkeypatch):
    """Processes of one client share a cache: what one commits while another lists is not thrown out of it as gone.

    The client of an area, which cannot read what is there, would not know of it any more.
    """
    commit(repo, 1)
    load(repo)
    listed = repo.backend.names

    def names(folder):
        found = listed(folder)
        if folder == "pending" and len(found) == 1:
            pending_hash = put_pending(repo, snapshot(2), MANIFEST)
            decide(repo, snapshot(2), Verdict.COMMIT, pending_hash)
            keep(repo.index, {snapshot(2): commit_of(MANIFEST.encode(), pending_hash, pending_name(snapshot(2)))})
        return found

    monkeypatch.setattr(repo.backend, "names", names)
    load(repo)
    assert {item for item, _ in cached(repo.index)} == {snapshot(1), snapshot(2)}


def test_snapshots_come_by_time(repo):
    """By the time they show, then by when they began, then by id; whatever the order they were made in."""
    for number, time_ns, started_ns in ((5, 3, 1), (1, 3, 1), (2, 1, 9), (3, 3, 0)):
        commit(repo, number, time_ns=time_ns, started_ns=started_ns)
    assert loaded(repo)[0] == [snapshot(2), snapshot(3), snapshot(1), snapshot(5)]


def test_pending_without_outcome_is_undecided(repo):
    """A manifest alone is no snapshot."""
    put_pending(repo, snapshot(1), MANIFEST)
    assert loaded(repo) == ([], [snapshot(1)], [])
    assert list_pending(repo) == {snapshot(1)}


def test_undecided_becomes_what_is_decided(repo):
    """Being undecided is not remembered."""
    pending_hash = put_pending(repo, snapshot(1), MANIFEST)
    loaded(repo)
    decide(repo, snapshot(1), Verdict.COMMIT, pending_hash)
    assert loaded(repo) == ([snapshot(1)], [], [])


def test_aborted_is_neither_shown_nor_undecided(repo):
    """An abort is an end, with its manifest and without."""
    decide(repo, snapshot(1), Verdict.ABORT, put_pending(repo, snapshot(1), MANIFEST))
    decide(repo, snapshot(2), Verdict.ABORT, bytes(32))
    assert loaded(repo) == ([], [], [])


def test_first_outcome_stands(repo):
    """Whoever decides second learns what was decided."""
    pending_hash = put_pending(repo, snapshot(1), MANIFEST)
    assert decide(repo, snapshot(1), Verdict.COMMIT, pending_hash) is Verdict.COMMIT
    assert decide(repo, snapshot(1), Verdict.ABORT, pending_hash) is Verdict.COMMIT
    pending_hash = put_pending(repo, snapshot(2), MANIFEST)
    assert decide(repo, snapshot(2), Verdict.ABORT, bytes(32)) is Verdict.ABORT
    assert decide(repo, snapshot(2), Verdict.COMMIT, pending_hash) is Verdict.ABORT
    assert loaded(repo)[0] == [snapshot(1)]


@pytest.mark.parametrize("length", [0, 10, 4095])
def test_torn_outcome_is_undecided(repo, backend, length):
    """A short outcome decides nothing: not shown, never an abort to a collector; to whoever commits, not a commit."""
    pending_hash = put_pending(repo, snapshot(1), MANIFEST)
    decide(repo, snapshot(1), Verdict.COMMIT, pending_hash)
    content = backend.get(outcome_name(snapshot(1)))
    backend.damage(outcome_name(snapshot(1)), content[:length])
    assert loaded(repo) == ([], [snapshot(1)], [])
    assert decide(repo, snapshot(1), Verdict.COMMIT, pending_hash) is Verdict.ABORT
    backend.damage(outcome_name(snapshot(1)), content)
    assert loaded(repo) == ([snapshot(1)], [], [])


def test_outcome_of_another_snapshot_decides_nothing(repo, backend):
    """An outcome replayed under another name is not authentic there."""
    commit(repo, 1)
    put_pending(repo, snapshot(2), MANIFEST)
    backend.damage(outcome_name(snapshot(2)), backend.get(outcome_name(snapshot(1))))
    assert loaded(repo) == ([snapshot(1)], [snapshot(2)], [])


def test_outcome_for_another_manifest_is_damage(repo):
    """An outcome names the bytes that it decides."""
    put_pending(repo, snapshot(1), MANIFEST)
    decide(repo, snapshot(1), Verdict.COMMIT, hashlib.sha256(b"another").digest())
    commit(repo, 2)
    assert loaded(repo) == ([snapshot(2)], [], [pending_name(snapshot(1))])


def test_damaged_manifest_is_named_and_the_rest_listed(repo, backend):
    """One bad manifest takes no other with it."""
    commit(repo, 1)
    commit(repo, 2)
    name = pending_name(snapshot(1))
    backend.damage(name, flipped(backend.get(name), 100))
    assert loaded(repo) == ([snapshot(2)], [], [name])


def test_manifest_is_put_once(repo):
    """Nothing is ever written over."""
    put_pending(repo, snapshot(1), MANIFEST)
    with pytest.raises(ObjectExists):
        put_pending(repo, snapshot(1), MANIFEST)


def test_forgotten_snapshot_is_gone_from_the_cache(repo, backend):
    """Deleting the manifest is what counts, at once and for a client that had it cached."""
    commit(repo, 1)
    assert loaded(repo)[0] == [snapshot(1)]
    backend.delete(pending_name(snapshot(1)))
    assert loaded(repo) == ([], [], [])
    assert [name for name in repo.index.record_names() if name.startswith("pending/")] == []


def test_second_listing_reads_nothing(repo, backend):
    """Manifests are immutable once decided: they are read once."""
    for number in range(1, 6):
        commit(repo, number)
    load(repo)
    repo.backend = counted = Faults(backend)
    assert len(load(repo).snapshots) == 5
    assert [verb for verb, _ in counted.calls] == ["list", "list"]


@pytest.mark.parametrize("at", [1, 2])
def test_failed_listing_is_an_error_and_keeps_the_cache(repo, backend, at):
    """A listing that fails is not an empty one."""
    commit(repo, 1)
    load(repo)
    repo.backend = Faults(backend, [Fault(at=at, error=lasting_failure, verbs=frozenset({"list"}))])
    with pytest.raises(StorageFailed):
        load(repo)
    assert repo.index.record(pending_name(snapshot(1))) is not None


def test_failed_read_is_an_error_and_no_verdict(repo, backend):
    """Storage that does not answer makes nothing undecided or damaged."""
    commit(repo, 1)
    for at in (1, 2):
        repo.backend = Faults(backend, [Fault(at=at, error=lasting_failure, verbs=frozenset({"get"}))])
        with pytest.raises(StorageFailed):
            load(repo)
    repo.backend = backend
    assert loaded(repo)[0] == [snapshot(1)]


def test_forgetting_between_listing_and_reading_is_no_error(repo, backend):
    """What goes away meanwhile is left out."""
    commit(repo, 1)
    commit(repo, 2)

    class Forgets(Faults):
        def get(self, name, offset=0, length=None):
            for folder in (pending_name, outcome_name):
                if backend.exists(folder(snapshot(1))) is not None:
                    backend.delete(folder(snapshot(1)))
            return super().get(name, offset, length)

    repo.backend = Forgets(backend)
    result = load(repo)
    assert ([item.id for item in result.snapshots], result.undecided, result.damaged) == ([snapshot(2)], (), ())


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_mean_what_they_should(repo):
    """The latest, a label (of several the newest), an id, the beginning of one."""
    commit(repo, 0x11, time_ns=1, label="monday")
    commit(repo, 0x12, time_ns=2, label="monday")
    commit(repo, 0x22, time_ns=3)
    catalogue = load(repo)
    for name, number in (
        ("latest", 0x22),
        ("monday", 0x12),
        ("11", 0x11),
        ("2", 0x22),
        ("12" * 16, 0x12),
    ):
        assert catalogue.find(name).id == snapshot(number)
    for name in ("1", "", "3", "22" * 17, "tuesday", "LATEST", "11x"):
        with pytest.raises(NoSuchSnapshot) as caught:
            catalogue.find(name)
        assert caught.value.name == name


def test_whole_id_is_no_label(repo):
    """Whoever may label snapshots cannot make another one answer to an id."""
    commit(repo, 0x11)
    commit(repo, 0x22, label="11" * 16)
    assert load(repo).find("11" * 16).id == snapshot(0x11)


def test_latest_of_nothing_is_said(repo):
    """An empty repository has no latest snapshot."""
    with pytest.raises(NoSuchSnapshot, match="no snapshot yet"):
        load(repo).find("latest")


@pytest.mark.parametrize("name", ["latest", "02", snapshot(2).hex()])
def test_damaged_manifest_is_never_passed_over_silently(repo, backend, name):
    """Where the snapshot that is meant may be the damaged one, that is said, and no older one is taken."""
    commit(repo, 1, label="whole")
    commit(repo, 2, time_ns=2)
    damage(backend, pending_name(snapshot(2)))
    with pytest.raises(Corruption) as caught:
        load(repo).find(name)
    assert caught.value.name == pending_name(snapshot(2))
    assert "respaldo snapshots" in caught.value.hint


@pytest.mark.parametrize("name", ["whole", "01", snapshot(1).hex()])
def test_damaged_manifest_keeps_no_other_from_being_named(repo, backend, name):
    """An id or a label of a whole snapshot means it, whatever is damaged beside it."""
    commit(repo, 1, label="whole")
    commit(repo, 2, time_ns=2)
    damage(backend, pending_name(snapshot(2)))
    assert load(repo).find(name).id == snapshot(1)
    with pytest.raises(NoSuchSnapshot):
        load(repo).find("03")


def test_names_that_are_no_ids_are_ignored(repo, backend):
    """What lies in the folders and is no snapshot is passed over."""
    backend.damage("pending/readme", b"")
    backend.damage("outcome/" + "0" * 31, b"")
    assert loaded(repo) == ([], [], [])
