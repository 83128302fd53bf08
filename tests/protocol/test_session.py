"""A writer meets a collector, a forgetter and an expirer, scene by scene: each way through W4.

In each of these the collector condemns whatever packs there are: each scene says when.
"""

from __future__ import annotations

import pytest

from respaldo.backend.faults import Fault, Faults, lasting_failure
from respaldo.catalog import session
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import decide, list_pending, load, put_pending
from respaldo.core.errors import StorageError, StorageFailed
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Silent
from respaldo.flows.backup import run
from respaldo.format.snapshot import Verdict
from tests.protocol.collector import Collector, expire, forget
from tests.protocol.scene import Kept, committed, copy_cache, memory_with, open_repository
from tests.protocol.scheduler import Shared

pytestmark = pytest.mark.usefixtures("_inline")


def test_nothing_relied_on_is_condemned(play):
    """Where no collector is about, one look is enough."""
    play.run(("writer", None))
    assert (play.attempts, play.mends) == (1, 1)


def test_condemned_before_the_start_is_not_relied_on(play):
    """What is condemned when a run begins is stored again where it is read, and taken over where its snapshot stays."""
    play.run(("collector", "delete packs"), ("writer", None), ("collector", None))
    assert (play.attempts, play.mends) == (1, 1)


def test_condemned_and_still_there_is_copied(play):
    """A pack that was relied on and is condemned by W4 is copied from, and looked at again."""
    play.run(("writer", "put pending"), ("collector", "delete packs"), ("writer", None), ("collector", None))
    assert (play.attempts, play.mends) == (1, 2)


def test_gone_with_a_copy_elsewhere_is_fine(play):
    """A pack that was relied on and is gone by W4 costs nothing where a collector copied what was in it."""
    play.run(("writer", "put packs"), ("collector", None), ("writer", None))
    assert (play.attempts, play.mends) == (1, 2)


def test_gone_without_a_copy_is_read_again(play):
    """Where a chunk is gone for good, the snapshot is aborted and a new attempt reads the source again."""
    play.run(("writer", "put packs"), ("forgetter", None), ("collector", None), ("writer", None))
    assert play.attempts == 2
    aborted = [name for name in play.storage.snapshot() if name.startswith("pending/")]
    assert len(aborted) == 3  # of the other source, the one that was aborted, the one that was made


def test_own_packs_that_are_condemned_are_copied(play):
    """A pack that this very run stored may be condemned too: nothing referred to it yet."""
    play.run(
        ("writer", "put pending"),
        ("collector", "delete packs"),
        ("writer", "put outcome"),
        ("collector", None),
        ("writer", None),
    )
    assert (play.attempts, play.mends) == (1, 2)


def test_own_packs_that_are_gone_are_read_again(play):
    """Where a run's own packs are deleted before its manifest is there, it begins again."""
    play.run(("writer", "put pending"), ("collector", None), ("writer", None))
    assert play.attempts == 2


def test_packs_stored_again_may_be_condemned_again(play):
    """What was copied after the manifest was put may be condemned in its turn, by a collector that began before."""
    play.run(
        ("writer", "put pending"),
        ("collector 1", "delete packs"),
        ("collector 2", "list on pending #2"),
        ("writer", "list condemned #2"),
        ("collector 2", "delete packs"),
        ("writer", None),
        ("collector 1", None),
        ("collector 2", None),
    )
    assert play.attempts == 1
    assert play.mends >= 2


@pytest.mark.parametrize("collects", [False, True])
def test_parent_forgotten_before_the_look_is_not_trusted(play, collects):
    """Where the snapshot that subtrees came from is forgotten by W4, every chunk is looked up."""
    scenes = [("collector", None)] if collects else []
    play.run(("writer", "put pending"), ("forgetter", None), *scenes, ("writer", None))
    assert play.attempts == (2 if collects else 1)


def test_parent_forgotten_while_a_tree_is_stored_again_is_not_trusted(play):
    """While a writer stores its root again, a collector cannot see what is below it, nor the parent that is forgotten.

    The first collector began before the manifest and takes the writer's own pack,
    the second what the parent left.
    """
    play.run(
        ("writer", "put pending"),
        ("collector 1", "delete packs"),
        ("writer", "put packs"),
        ("collector 1", None),
        ("forgetter", None),
        ("collector 2", None),
        ("writer", None),
    )
    assert play.attempts == 2


def test_parent_forgotten_after_the_look_is_no_matter(play):
    """Where the parent was there after the manifest, a collector that misses it sees the new snapshot instead."""
    play.run(
        ("writer", "list condemned #2"),
        ("forgetter", None),
        ("collector", "delete packs"),
        ("writer", None),
        ("collector", None),
    )
    assert play.attempts == 1


def test_abort_of_somebody_else_means_another_attempt(play):
    """Whoever thinks a writer dead may abort its snapshot; the writer finds out at W5 and begins again."""
    play.run(("writer", "put outcome"), ("expirer", None), ("collector", None), ("writer", None))
    assert play.attempts == 2


def test_abort_that_comes_after_the_commit_is_none(play):
    """Whoever wants to abort what was committed meanwhile learns that it was."""
    play.run(("writer", "put outcome"), ("expirer", "put outcome"), ("writer", None), ("expirer", None))
    assert play.attempts == 1
    assert play.made is not None


def test_aborted_for_ever_gives_up(play, monkeypatch):
    """A run that is aborted three times over says so, and can be run again."""
    monkeypatch.setattr(session, "decide", lambda *_arguments: Verdict.ABORT)
    with pytest.raises(StorageFailed, match="again and again") as caught:
        play.run(("writer", None))
    assert caught.value.retryable
    assert play.attempts == 3


def look_once(monkeypatch) -> None:
    """Lets writers look for the snapshot that subtrees came from, and no more: what the collector does must suffice."""
    monkeypatch.setattr(Session, "_looks_at_all", lambda this, relied: bool(relied - list_pending(this._repo)))


@pytest.mark.parametrize("listings", [1, 2])
def test_listing_of_roots_taken_once_could_miss_both(play, monkeypatch, listings):
    """What G5's second listing is for: one could miss the new snapshot and the old one that it took subtrees from.

    The collector has begun when the old one's packs were there and nothing referred to them. The new manifest falls
    into the half of its listing that it has read by then, the old one is deleted in the half that it has not.
    """
    old: list[SnapshotId] = []

    def twice() -> None:
        play.writer()
        old.append(play.made)
        play.writer(play.theatre.folder / "play0")

    def forget_old() -> None:
        play.told.forgotten.update(old)
        forget(Shared(play.storage, play.script), old[0])

    monkeypatch.setattr("tests.protocol.scheduler._half_of", lambda name: int(old != [] and old[0].hex() in name))
    if listings == 1:
        look_once(monkeypatch)
        monkeypatch.setattr(Collector, "roots", Collector.list_roots_once)
    play.actions = {"writer": twice, "forgetter": forget_old}
    scenes = (
        ("writer", "put pending"),
        ("collector", "put condemned"),
        ("writer", "put sessions"),
        ("collector", "list on pending"),
        ("writer", "list condemned #2"),
        ("forgetter", None),
        ("collector", "delete packs"),
        ("writer", None),
        ("collector", None),
    )
    if listings == 1:
        with pytest.raises(AssertionError, match="not whole"):
            play.run(*scenes)
    else:
        play.run(*scenes)


@pytest.mark.parametrize("again", [False, True])
def test_root_that_is_forgotten_while_it_is_read_means_listing_again(play, monkeypatch, again):
    """A collector that drops a root because its manifest went away must look for who took subtrees over from it."""
    old: list[SnapshotId] = []

    def twice() -> None:
        play.writer()
        old.append(play.made)
        play.writer(play.theatre.folder / "play0")

    def forget_old() -> None:
        play.told.forgotten.update(old)
        forget(Shared(play.storage, play.script), old[0])

    if not again:
        look_once(monkeypatch)
        monkeypatch.setattr(
            Collector, "vanished", property(lambda _self: False, lambda _self, _value: None), raising=False
        )
    play.actions = {"writer": twice, "last forgetter": forget_old}
    scenes = (
        ("forgetter", None),
        ("writer", "put pending"),
        ("collector", "put condemned"),
        ("writer", "put sessions"),
        ("collector", "get pending #3"),  # two manifests were read, and the old one's root is known
        ("writer", "list condemned #2"),
        ("last forgetter", None),
        ("collector", "delete packs"),
        ("writer", None),
        ("collector", None),
    )
    if again:
        play.run(*scenes)
    else:
        with pytest.raises(AssertionError, match="not whole"):
            play.run(*scenes)


# --- what the session leaves ---------------------------------------------------------------------------------------


def test_manifest_without_outcome_stays_undecided_until_somebody_aborts_it(theatre, monkeypatch):
    """A run that fails between manifest and outcome leaves an undecided snapshot, no marker, and nobody in the way."""
    storage = memory_with(theatre.objects)
    faults = Faults(storage, [Fault(at=1, error=lasting_failure, verbs=frozenset({"put"}), times=1 << 30)])
    cache = copy_cache(theatre.folder / "cache0", theatre.folder / "play0")
    with open_repository(Kept(storage), cache) as repo:
        put = session.put_pending

        def then_fail(*arguments):
            done = put(*arguments)
            repo.backend = faults
            return done

        monkeypatch.setattr(session, "put_pending", then_fail)
        with pytest.raises(StorageError):
            theatre.snapshot(repo, theatre.sources[0])
        monkeypatch.setattr(session, "put_pending", put)
        assert not storage.list("sessions")
        repo.backend = storage
        (undecided,) = load(repo).undecided
        assert undecided in list_pending(repo)
        assert expire(repo, undecided) is Verdict.ABORT
        assert not load(repo).undecided
        assert decide(repo, undecided, Verdict.COMMIT, bytes(32)) is Verdict.ABORT
        theatre.snapshot(repo, theatre.sources[0])


def test_markers_are_numbered_renewed_and_taken_away(theatre, monkeypatch):
    """A session has one marker at a time, numbered as the format says, and none when it has ended."""
    storage = memory_with(theatre.objects)
    monkeypatch.setattr(session, "MARKER_NS", 0)
    with open_repository(Kept(storage), theatre.folder / "markers") as repo, Session(repo, Silent()) as writer:
        for number in range(12):
            (writer.begin if number == 0 else writer.save)()
            assert [name for name, _ in storage.list("sessions")] == [f"sessions/{writer.id.hex()}.{number}"]
    assert not storage.list("sessions")


def test_outcome_that_is_torn_is_no_commit_and_no_abort(theatre):
    """A torn outcome is no snapshot to its writer, and no abort to whoever would delete the manifest."""
    storage = memory_with(theatre.objects)
    with open_repository(Kept(storage), theatre.folder / "torn") as repo:
        repo.synchronise()
        manifest = load(repo).snapshots[0].manifest
        snapshot = SnapshotId(bytes(16))
        pending_hash = put_pending(repo, snapshot, manifest)
        storage.damage("outcome/" + snapshot.hex(), b"torn")
        assert decide(repo, snapshot, Verdict.COMMIT, pending_hash) is Verdict.ABORT
        with pytest.raises(Exception, match="outcome"):
            expire(repo, snapshot)
        assert snapshot in load(repo).undecided


def test_expirer_that_never_saw_the_manifest_learns_of_a_commit(theatre):
    """A commit stands against an abort that names no manifest."""
    storage = memory_with(theatre.objects)
    with open_repository(Kept(storage), theatre.folder / "expirer") as repo:
        for snapshot in theatre.first:
            assert expire(repo, snapshot) is Verdict.COMMIT
        assert committed(repo) == theatre.first.keys()


@pytest.mark.parametrize("after", [False, True])
def test_storage_that_fails_in_the_last_look_is_not_content_that_is_gone(play, monkeypatch, after):
    """An error of storage ends a run as that error: it starts no second attempt and hides behind no other message."""
    real = session.Session._store_again

    def store_again(this, kind, chunk_id):
        source = this._repo.source
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(at=1, error=lasting_failure, after=after)
            patch.setattr(source, "_backend", Faults(source._backend, [fault]))
            source.forget_positions()
            real(this, kind, chunk_id)

    monkeypatch.setattr(session.Session, "_store_again", store_again)
    with pytest.raises(StorageFailed, match="injected"):
        play.run(("writer", "put pending"), ("collector", "delete packs"), ("writer", None), ("collector", None))
    assert play.attempts == 1


def test_attempts_do_not_share_what_they_remember(play, monkeypatch):
    """Each attempt has a number of its own in the memo: what an aborted one saw is not in the next one's snapshot."""
    runs: list[int] = []
    real = run.Memo

    def opened(path):
        memo = real(path)
        runs.append(memo.run)
        return memo

    monkeypatch.setattr(run, "Memo", opened)
    play.run(("writer", "put outcome"), ("expirer", None), ("writer", None))
    assert len(set(runs)) == len(runs) == 2


def test_pack_entered_while_storage_is_listed_is_not_forgotten(theatre, monkeypatch):
    """Two runs on one cache: what one enters while the other lists stays entered."""
    storage = memory_with(theatre.objects)
    with open_repository(Kept(storage), theatre.folder / "both") as repo:
        repo.synchronise()
        with Session(repo, Silent()) as writer:
            real = storage.list

            def put_meanwhile(folder):
                found = real(folder)
                if folder == "packs" and not writer.sink.own_packs:
                    writer.sink.put(session.Kind.DATA, b"chunk" * 20)
                    writer.save()
                return found

            monkeypatch.setattr(storage, "list", put_meanwhile)
            repo.synchronise()
            (own,) = writer.sink.own_packs
            assert repo.index.pack(own) is not None


def test_own_pack_that_the_index_lost_is_no_damage(play, monkeypatch):
    """Where another process threw the shared index away, the writer looks at every chunk instead of failing."""
    real = Session._mend

    def mend(this, root, *, whole):
        if play.mends == 1:
            index = this._repo.index
            index.forget_packs([pack for pack in index.packs() if pack.number in this.sink.own_packs])
        return real(this, root, whole=whole)

    monkeypatch.setattr(Session, "_mend", mend)
    play.run(("writer", None))
    assert play.made is not None
