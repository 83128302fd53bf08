"""Catalogues spare a new client reading; they never make a snapshot, nor hide or change one."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure
from respaldo.catalog.decided import Decided, cached, decode
from respaldo.catalog.rolls import list_rolls, read_roll, roll, superseded_rolls
from respaldo.catalog.snapshots import decide, load, outcome_name, pending_name, put_pending, roll_up
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import SnapshotId, catalogue_object
from respaldo.format.catalogue import Roll, Row
from respaldo.format.snapshot import Verdict
from respaldo.store import tiers
from tests.catalog.test_snapshots import MANIFEST
from tests.flows.check.scenes import flipped
from tests.store.repositories import opened


def snapshot(number):
    return SnapshotId(number.to_bytes(16, "big"))


def commit(repo, number):
    """Makes a snapshot as a session does: loads, commits, and merges what is due."""
    before = load(repo)
    manifest = replace(MANIFEST, time_ns=number, label=f"number {number}")
    assert decide(repo, snapshot(number), Verdict.COMMIT, put_pending(repo, snapshot(number), manifest)) == "commit"
    roll_up(repo, before)


def fresh(backend, cache):
    """What a new client sees, and what it read of it."""
    counted = Faults(backend)
    with opened(counted, cache) as other:
        del counted.calls[:]
        catalogue = load(other)
    return catalogue, [name for verb, name in counted.calls if verb == "get"]


def facts(catalogue):
    return [(item.id, item.manifest) for item in catalogue.snapshots], catalogue.undecided


def rows(repo):
    return {row.snapshot for name in list_rolls(repo) for row in read_roll(repo, name).rows}


def test_sixteen_snapshots_are_read_as_one_object(repo, backend, tmp_path):
    """A new client sees from the catalogue what another sees from manifests and outcomes."""
    for number in range(16):
        assert list_rolls(repo) == {}
        commit(repo, number)
    [name] = list_rolls(repo)
    assert rows(repo) == {snapshot(number) for number in range(16)}
    catalogue, read = fresh(backend, tmp_path / "new")
    assert read == [catalogue_object(name)]
    assert facts(catalogue) == facts(load(repo))
    assert (catalogue.loose, load(repo).loose) == (0, 0)


def test_few_objects_are_read_of_many_snapshots(repo, backend, tmp_path, monkeypatch):
    """What a new client reads grows with the logarithm; every snapshot stands in what is left."""
    monkeypatch.setattr(tiers, "FANOUT", 4)
    monkeypatch.setattr("respaldo.catalog.snapshots.FANOUT", 4)
    monkeypatch.setattr("respaldo.store.merged.AT_ONCE", 1)
    for number in range(90):
        commit(repo, number)
    catalogue, read = fresh(backend, tmp_path / "new")
    assert facts(catalogue) == facts(load(repo))
    assert len(catalogue.snapshots) == 90
    assert len(read) <= 3 * 2 + 3 * tiers.tier(tiers.Extent(90, 0))
    old = superseded_rolls(repo)
    assert len(old) > 10
    backend.discard(map(catalogue_object, old))
    assert facts(fresh(backend, tmp_path / "newer")[0]) == facts(load(repo))


def test_nothing_new_costs_two_listings(repo, backend):
    """Also where catalogues have come since."""
    for number in range(20):
        commit(repo, number)
    load(repo)
    repo.backend = counted = Faults(backend)
    assert len(load(repo).snapshots) == 20
    assert counted.calls == [("list", "pending"), ("list", "outcome")]


def test_forgotten_snapshot_stays_forgotten(repo, backend, tmp_path):
    """A row whose manifest is not listed says nothing; one whose outcome is not listed is undecided."""
    for number in range(18):
        commit(repo, number)
    backend.delete(pending_name(snapshot(3)))
    backend.delete(outcome_name(snapshot(5)))
    catalogue, _ = fresh(backend, tmp_path / "new")
    assert {item.id for item in catalogue.snapshots} == {snapshot(number) for number in range(18)} - {
        snapshot(3),
        snapshot(5),
    }
    assert catalogue.undecided == (snapshot(5),)
    assert facts(load(repo)) == facts(catalogue)


def test_merged_catalogue_leaves_forgotten_ones_out(repo, backend, monkeypatch):
    """What was forgotten is not repeated again, and a catalogue of nothing else may go."""
    monkeypatch.setattr(tiers, "FANOUT", 4)
    monkeypatch.setattr("respaldo.catalog.snapshots.FANOUT", 4)
    for number in range(15):
        commit(repo, number)
    backend.delete(pending_name(snapshot(0)))
    commit(repo, 15)
    commit(repo, 16)
    newest = max(list_rolls(repo).items(), key=lambda item: item[1])[0]
    assert {row.snapshot for row in read_roll(repo, newest).rows} == {snapshot(number) for number in range(1, 16)}
    for number in range(1, 17):
        backend.delete(pending_name(snapshot(number)))
    assert superseded_rolls(repo) == list_rolls(repo).keys()


def test_torn_outcome_that_a_catalogue_repeats_is_a_commit(repo, backend, tmp_path):
    """Its writer read the outcome when it was whole; without the catalogue, the snapshot is undecided."""
    for number in range(16):
        commit(repo, number)
    backend.damage(outcome_name(snapshot(2)), b"torn")
    assert facts(fresh(backend, tmp_path / "new")[0]) == facts(load(repo))
    for name in list_rolls(repo):
        backend.delete(catalogue_object(name))
    assert fresh(backend, tmp_path / "newer")[0].undecided == (snapshot(2),)


def test_torn_outcome_enters_no_catalogue(repo, backend):
    """Nor does what is undecided, aborted, or decided for another manifest."""
    decide(repo, snapshot(100), Verdict.ABORT, put_pending(repo, snapshot(100), MANIFEST))
    put_pending(repo, snapshot(101), MANIFEST)
    put_pending(repo, snapshot(102), MANIFEST)
    decide(repo, snapshot(102), Verdict.COMMIT, hashlib.sha256(b"another").digest())
    put_pending(repo, snapshot(103), MANIFEST)
    backend.damage(outcome_name(snapshot(103)), b"torn")
    for number in range(17):
        commit(repo, number)
    assert list_rolls(repo)
    assert max(rows(repo)) < snapshot(100)


def plant(repo, *planted, supersedes=()):
    made = Roll(rows=planted, supersedes=supersedes)
    name, data = repo.vault.seal_catalogue(made.encode(), longer_than=1 << 17)
    repo.backend.put(catalogue_object(name), [data])
    return name


def test_row_that_lies_changes_nothing_for_who_knows_better(repo, backend, tmp_path):
    """A wrong pending hash or manifest does not reach a cache that has the right one, nor the next catalogue."""
    for number in range(15):
        commit(repo, number)
    load(repo)
    right = dict(cached(repo.index))
    wrong = replace(MANIFEST, label="wrong").encode()
    lie = plant(
        repo,
        Row(snapshot=snapshot(0), pending_hash=b"w" * 32, manifest=right[snapshot(0)].manifest),
        Row(snapshot=snapshot(1), pending_hash=right[snapshot(1)].pending_hash, manifest=wrong),
    )
    commit(repo, 15)
    after = {key: (item.pending_hash, item.manifest) for key, item in cached(repo.index)}
    assert {key: (item.pending_hash, item.manifest) for key, item in right.items()}.items() <= after.items()
    [honest] = list_rolls(repo).keys() - {lie}
    assert {row.snapshot: (row.pending_hash, row.manifest) for row in read_roll(repo, honest).rows} == after


def test_row_of_no_manifest_is_read_from_the_manifest(repo, backend, tmp_path):
    """What does not parse as one is passed over."""
    for number in range(15):
        commit(repo, number)
    put_pending(repo, snapshot(99), MANIFEST)
    plant(repo, *(Row(snapshot=snapshot(number), pending_hash=bytes(32), manifest=b"\xc0") for number in range(15)))
    commit(repo, 15)
    for name in sorted(list_rolls(repo), key=list_rolls(repo).get)[:1]:
        backend.delete(catalogue_object(name))
    assert facts(fresh(backend, tmp_path / "new")[0]) == facts(load(repo))


def test_damaged_or_falsely_superseded_catalogues_hide_nothing(repo, backend, tmp_path):
    """Manifests and outcomes are read one by one then."""
    for number in range(16):
        commit(repo, number)
    [name] = list_rolls(repo)
    plant(repo, supersedes=(name,))
    assert facts(fresh(backend, tmp_path / "lied to")[0]) == facts(load(repo))
    backend.damage(catalogue_object(name), flipped(backend.get(catalogue_object(name)), 1000))
    assert facts(fresh(backend, tmp_path / "damaged")[0]) == facts(load(repo))


def test_lost_catalogue_is_made_again(repo, backend):
    """A client that sees a catalogue gone, and nothing in its place, repeats its snapshots in the next one."""
    for number in range(31):
        commit(repo, number)
    backend.discard(map(catalogue_object, list_rolls(repo)))
    commit(repo, 31)
    assert rows(repo) == {snapshot(number) for number in range(32)}


def test_two_clients_merge_at_once(repo, backend, tmp_path):
    """Both catalogues stand and say the same; one that is merged later takes in both."""
    for number in range(15):
        commit(repo, number)
    with opened(backend, tmp_path / "other") as other:
        decide(repo, snapshot(15), Verdict.COMMIT, put_pending(repo, snapshot(15), MANIFEST))
        everything = {item.id for item in load(repo).snapshots}
        assert everything == {item.id for item in load(other).snapshots}
        put, listing = backend.put, backend.list
        waiting = []
        other.backend = Faults(backend)
        other.backend.put = lambda name, pieces: waiting.append((name, pieces))
        second = roll(other, everything)
        assert roll(repo, everything) is not None
        for name, pieces in waiting:
            put(name, pieces)
        assert len(list(listing("catalogue"))) == 2
        assert second in list_rolls(repo)
    assert facts(fresh(backend, tmp_path / "new")[0]) == facts(load(repo))


def test_crash_before_a_catalogue_is_put_costs_nothing(repo, backend, tmp_path):
    """The snapshot is committed, and the next session merges."""
    for number in range(15):
        commit(repo, number)
    before = load(repo)
    decide(repo, snapshot(15), Verdict.COMMIT, put_pending(repo, snapshot(15), MANIFEST))
    repo.backend = Faults(backend, [Fault(at=1, error=Crash, verbs=CHANGES)])
    with pytest.raises(Crash):
        roll_up(repo, before)
    repo.backend = backend
    assert len(fresh(backend, tmp_path / "new")[0].snapshots) == 16
    commit(repo, 16)
    assert len(rows(repo)) == 17


def test_failed_listing_of_catalogues_is_an_error(repo, backend, tmp_path):
    """Storage that does not answer is not storage without catalogues."""
    for number in range(16):
        commit(repo, number)
    with opened(backend, tmp_path / "new") as other:
        other.backend = Faults(backend, [Fault(at=3, error=lasting_failure, verbs=frozenset({"list"}))])
        with pytest.raises(StorageFailed):
            load(other)


def test_cache_that_was_changed_is_read_again(repo, backend):
    """What the cache does not hold as it was put counts as not cached."""
    commit(repo, 1)
    load(repo)
    [(_, record)] = [(name, bytes(record)) for name, record in repo.index.records("pending/")]
    for bent in (b"", record[:20], flipped(record, 10), flipped(record, len(record) - 1)):
        repo.index.put_records({pending_name(snapshot(1)): bent})
        assert decode(memoryview(bent)) is None
        repo.backend = counted = Faults(backend)
        assert [item.manifest.label for item in load(repo).snapshots] == ["number 1"]
        assert [verb for verb, _ in counted.calls if verb != "exists"] == ["list", "list", "get", "get"]
    assert decode(memoryview(record)) == decode(memoryview(Decided(*decode(memoryview(record))).encode()))
