"""Mending in storage, and parity switched on: what comes of it, and every call of it as a process's last."""

from __future__ import annotations

import hashlib

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import ReadOnly
from respaldo.catalog.snapshots import load
from respaldo.core.errors import Interrupted, NotARepository, UsageError
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.check.keyless import run_keyless
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import run_prune
from respaldo.flows.parity.mend import run_mend
from respaldo.flows.parity.options import parse_share, show_share
from respaldo.flows.parity.run import parity_status, switch_off, switch_on
from respaldo.format.parity import SECTOR_BYTES
from respaldo.store.parity import COVERED, sidecar_name
from respaldo.store.sidecars import survey
from tests.flows.check.scenes import STRUCTURE, Scene, build, unreadable, verify
from tests.store.repositories import opened, pieces, replica, store
from tests.store.test_parity import strike


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> Scene:
    """A sound repository without parity."""
    return build(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def protected(scene, tmp_path_factory) -> dict[str, bytes]:
    """The objects of the same repository with parity."""
    backend = scene.backend()
    with opened(backend, tmp_path_factory.mktemp("cache")) as repo:
        switch_on(repo, 50, progress=Silent(), cancel=Cancel())
    return backend.snapshot()


def objects_of(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Leaves out parity and what was set aside."""
    return {name: data for name, data in objects.items() if not name.startswith(("parity/", "lost+found/"))}


def mend(backend, *, dry_run: bool = False):
    return run_mend(backend, dry_run=dry_run, progress=Silent(), cancel=Cancel())


def strike_everything(objects: dict[str, bytes]) -> MemoryBackend:
    """Damages a sector or two of every object that has parity."""
    backend = replica(objects)
    for number, (name, data) in enumerate(sorted(objects.items())):
        if sidecar_name(name) is not None:
            sectors = -(-len(data) // SECTOR_BYTES)
            strike(backend, name, [(number % sectors * SECTOR_BYTES, SECTOR_BYTES)], seed=number)
    return backend


def test_parity_covers_every_kind_of_object(scene, protected):
    """Header, slots, configuration, packs, segments, manifests and outcomes have sidecars."""
    backend = replica(protected)
    found = survey(backend, 50)
    assert not found.missing and not found.orphans
    folders = {name.partition("/")[0] for name in found.objects}
    assert folders == {"header", "keys", "config", "packs", "segments", "pending", "outcome"}
    assert folders <= {"header", *COVERED}


@pytest.mark.parametrize("how", ["sectors", "cut off", "longer"])
def test_mend_puts_everything_right(protected, how):
    """A damaged object of every kind is as it was put, its damaged copy is kept, and another look finds nothing."""
    backend = strike_everything(protected)
    if how != "sectors":
        for name, data in protected.items():
            if sidecar_name(name):
                backend.damage(name, data[:-1] if how == "cut off" else data + b"x")
    before = backend.snapshot()
    dry = mend(ReadOnly(backend), dry_run=True)
    assert backend.snapshot() == before and dry.exit_status == 4
    done = mend(backend)
    assert {item.name for item in done.damaged} == {name for name in protected if sidecar_name(name) is not None}
    assert [item.name for item in dry.damaged] == [item.name for item in done.damaged]
    assert done.exit_status == 0
    assert {**backend.snapshot(), **protected} == backend.snapshot()
    for item in done.damaged:
        if item.name.startswith("keys/"):
            assert not item.aside
        else:
            assert backend.get(item.aside) == before[item.name]
    assert not mend(backend).damaged
    assert run_keyless(backend, progress=Silent(), cancel=Cancel()).exit_status == 0


def test_mend_leaves_what_it_cannot_mend(protected):
    """An object that lost more than its share stays as it is, byte by byte, and so does its sidecar."""
    backend = replica(protected)
    pack = max((name for name in protected if name.startswith("packs/")), key=lambda name: len(protected[name]))
    strike(backend, pack, [(0, len(protected[pack]) // 5)])
    before = backend.snapshot()
    done = mend(backend)
    assert [item.name for item in done.left] == [pack]
    assert done.exit_status == 4
    assert backend.snapshot() == before


def test_mend_makes_damaged_sidecars_again(protected):
    """A sidecar that decayed is made again from its object; one of which nothing is left is not, and is named."""
    backend = replica(protected)
    struck = [name for name in protected if name.startswith("parity/")]
    gone = next(name for name in struck if name.startswith("parity/packs."))
    for name in struck:
        strike(backend, name, [(0, len(protected[name]) if name == gone else 100)])
    done = mend(backend)
    assert [item.name for item in done.left] == [gone]
    assert {**protected, gone: backend.get(gone)} == backend.snapshot()


def test_mend_brings_a_missing_header_back_and_nothing_else(protected):
    """Without its header a repository is none; its copy is enough. What else is missing may have been deleted."""
    backend = replica(protected)
    manifest = next(name for name in protected if name.startswith("pending/"))
    for name in ("header", manifest):
        backend.delete(name)
    done = mend(backend)
    assert [item.name for item in done.damaged] == ["header"]
    assert backend.get("header") == protected["header"]
    assert backend.exists(manifest) is None
    with pytest.raises(NotARepository):
        mend(MemoryBackend())


def test_mend_killed_at_any_call_loses_nothing(protected):
    """At every moment each object is there, damaged or whole, and never anything else; the next run finishes."""
    small = {name: data for name, data in protected.items() if not name.startswith(("packs/", "parity/packs"))}
    start = strike_everything(small).snapshot()
    watched = Faults(replica(start))
    mend(watched)
    for at in range(1, watched.count(CHANGES) + 1):
        for after in (False, True):
            backend = replica(start)
            with pytest.raises(Crash):
                mend(Faults(backend, [Fault(at=at, after=after, verbs=CHANGES)]))
            for name, data in objects_of(start).items():
                assert backend.get(name) in {data, small[name]}
            assert mend(backend).exit_status == 0
            assert objects_of(backend.snapshot()) == objects_of(small)


def test_mend_stops_where_it_is_asked_to(protected):
    """An interruption ends it between two objects."""
    cancel = Cancel()
    cancel.request("SIGINT")
    with pytest.raises(Interrupted):
        run_mend(replica(protected), dry_run=False, progress=Silent(), cancel=cancel)


# --- on and off ------------------------------------------------------------------------------------------------------


def test_switching_on_killed_at_any_call_goes_on(scene, tmp_path):
    """Wherever it is cut off, nothing is worse than before, and doing it again makes what is missing."""
    small = {name: data for name, data in scene.objects.items() if not name.startswith(("packs/", "segments/"))}

    def switch(backend) -> None:
        with opened(replica(small), tmp_path / "cache") as repo:
            repo.backend = backend
            switch_on(repo, 50, progress=Silent(), cancel=Cancel())

    watched = Faults(replica(small))
    switch(watched)
    whole = survey(watched.inner, 50)
    assert not whole.missing
    for at in range(1, watched.count() + 1):
        backend = replica(small)
        with pytest.raises(Crash):
            switch(Faults(backend, [Fault(at=at, after=True)]))
        assert {**backend.snapshot(), **small} == backend.snapshot()
        switch(backend)
        assert not survey(backend, 50).missing


def test_another_share_makes_sidecars_anew(protected, tmp_path):
    """After a change of the share every coded sidecar is of the new one, and the repository is none the worse."""
    backend = replica(protected)
    with opened(backend, tmp_path) as repo:
        done = switch_on(repo, 100, progress=Silent(), cancel=Cancel())
        assert done.made > 0 and not done.unsound
        assert parity_status(repo).missing == 0
        assert parity_status(repo).share == 100
    assert not survey(backend, 100).missing
    assert survey(backend, 50).missing


def test_no_parity_is_made_of_what_is_damaged(scene, tmp_path):
    """A damaged object is named, and gets no sidecar that would keep its damage."""
    backend = scene.backend()
    pack = scene.names("packs")[0]
    with opened(backend, tmp_path) as repo:
        strike(backend, pack, [(0, 1)])
        done = switch_on(repo, 50, progress=Silent(), cancel=Cancel())
        assert done.unsound == (pack,) and done.exit_status == 4
        assert backend.exists(sidecar_name(pack)) is None


def test_off_leaves_no_parity(protected, scene, tmp_path):
    """Switched off, all sidecars are gone, what is put next gets none, and every object is as it was."""
    backend = replica(protected)
    with opened(backend, tmp_path) as repo:
        assert switch_off(repo).removed > 10
        assert backend.list("parity") == []
    with opened(backend, tmp_path) as repo:
        assert repo.config.parity == 0
        store(repo, pieces(5, seed=3))
        assert backend.list("parity") == []
        with pytest.raises(UsageError):
            parse_share("0%")


def test_prune_sweeps_orphans_and_makes_up_for_what_is_missing(protected, scene, tmp_path):
    """Sidecars of packs that are gone go with them; what a client without the library put gets its parity."""
    backend = replica(protected)
    idle = f"packs/{scene.idle.hex()}"
    outcome = scene.names("outcome")[0]
    backend.delete(sidecar_name(outcome))
    backend.damage("parity/pending." + "7" * 32, b"left by a run that was cut off")
    with opened(backend, tmp_path) as repo:
        result = run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
        assert result.parity == 1
        assert dict(result.swept)["parity"] == 1
    assert backend.exists(idle) is backend.exists(sidecar_name(idle)) is None
    found = survey(backend, 50)
    assert not found.missing and not found.orphans


def test_snapshot_killed_at_any_change_loses_nothing(protected, tmp_path):
    """Wherever a snapshot with parity ends, the one before is whole, nothing is damaged, and the next one is made."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(bytes(range(256)) * 100)
    small = {name: data for name, data in protected.items() if name.startswith(("header", "keys", "config"))}

    def back_up(backend, cache) -> None:
        with opened(backend, tmp_path / cache) as repo:
            run_backup(repo, [bytes(tmp_path / "source")], BackupOptions(), progress=Silent(), cancel=Cancel())

    watched = Faults(replica(small))
    back_up(watched, "watched")
    assert sum(name.startswith("parity/") for verb, name in watched.calls if verb == "put") >= 4
    for at in range(1, watched.count(CHANGES) + 1):
        for after in (False, True):
            backend = replica(small)
            cache = f"{at}-{after}"
            with pytest.raises(Crash):
                back_up(Faults(backend, [Fault(at=at, after=after, verbs=CHANGES)]), cache)
            assert verify(backend, tmp_path / "fresh" / cache).exit_status == 0
            back_up(backend, cache)
            result = verify(backend, tmp_path / "fresh" / cache)
            assert result.exit_status == 0 and result.snapshots >= 1


# --- reading ---------------------------------------------------------------------------------------------------------


def test_everything_reads_in_spite_of_damage_everywhere(protected, scene, tmp_path):
    """With a damaged sector in every object, a new client opens, lists and reads all, and storage stays as it is."""
    backend = strike_everything(protected)
    before = backend.snapshot()
    with opened(ReadOnly(backend), tmp_path) as repo:
        assert len(load(repo).snapshots) == 2
        assert unreadable(repo) == set()
        assert not repo.damaged
        mended = set(repo.backend.mended)
    assert {"header", *scene.names("keys"), *scene.names("config"), *scene.names("outcome")} <= mended
    assert backend.snapshot() == before


@pytest.mark.parametrize("known", [True, False], ids=["an old client", "a new client"])
def test_a_pack_that_was_cut_off_is_read_whole(protected, scene, tmp_path, known):
    """A truncated pack is mended also where its length was known, and where its footer lies in what is missing."""
    backend = replica(protected)
    if known:
        opened(replica(protected), tmp_path).close()
    for name in scene.names("packs"):
        backend.damage(name, protected[name][:-5000])
    for name in scene.names("segments"):
        backend.delete(name)
    with opened(ReadOnly(backend), tmp_path) as repo:
        assert unreadable(repo) == set()


def test_verify_says_what_parity_mends(protected, scene, tmp_path):
    """Damage is damage, exit status 4, but nothing is lost and no path is affected."""
    backend = strike_everything(protected)
    result = verify(backend, tmp_path)
    assert result.exit_status == 4
    struck = {name for name in protected if sidecar_name(name) is not None}
    assert {damage.name for damage in result.damages} == struck
    for damage in result.damages:
        assert damage.mendable and not damage.affected_count
        assert damage.consequence == "nothing is lost: parity mends it"
    keyless = run_keyless(backend, progress=Silent(), cancel=Cancel())
    assert {damage.name for damage in keyless.damages} == struck
    assert all(damage.mendable for damage in keyless.damages)


def test_verify_without_parity_says_so_of_nothing(scene, tmp_path):
    """Where there is no parity, damage is what it was."""
    backend = scene.backend()
    strike(backend, scene.names("packs")[0], [(0, 100)])
    result = verify(backend, tmp_path)
    assert result.exit_status == 4
    assert not any(damage.mendable for damage in result.damages)
    assert not any(note.name == "parity" for note in result.notes)


def test_verify_notes_what_has_no_parity(protected, scene, tmp_path):
    """Objects without a sidecar are no damage; a damaged sidecar is."""
    backend = replica(protected)
    for name in scene.names("outcome"):
        backend.delete(sidecar_name(name))
    result = verify(backend, tmp_path, STRUCTURE)
    assert result.exit_status == 0
    assert [note.text.split(";")[0] for note in result.notes if note.name == "parity"] == [
        f"{len(scene.names('outcome'))} of {len(survey(backend, 50).objects)} objects have none yet"
    ]
    strike(backend, "parity/header", [(0, 10)])
    [damage] = verify(backend, tmp_path).damages
    assert damage.name == "parity/header" and damage.mendable


def test_reading_a_hostile_sidecar_costs_nothing_but_the_damage(protected, scene, tmp_path):
    """A sidecar exchanged for another object's leaves damage what it is, and names it."""
    backend = replica(protected)
    one, other = scene.names("packs")[:2]
    backend.damage(sidecar_name(one), protected[sidecar_name(other)])
    strike(backend, one, [(0, 100)])
    result = verify(backend, tmp_path)
    assert one in {damage.name for damage in result.damages if not damage.mendable}
    assert hashlib.sha256(backend.get(other)).hexdigest() == other.partition("/")[2]


@pytest.mark.parametrize(("text", "share"), [("5%", 50), ("0.1%", 1), ("2.5%", 25), ("50%", 500), ("50.0%", 500)])
def test_share_is_read_and_shown(text, share):
    """Shares are thousandths inside, and per cent for people."""
    assert parse_share(text) == share
    assert parse_share(show_share(share)) == share


@pytest.mark.parametrize("text", ["", "5", "0%", "0.0%", "50.1%", "100%", "-5%", "5 %%", "1/20", "5.55%", "\u0665%"])
def test_share_that_makes_no_sense_is_refused(text):
    """What is no share says what one looks like."""
    with pytest.raises(UsageError):
        parse_share(text)
