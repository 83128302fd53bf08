"""Each kind of damage: what verify says of it, what repair makes of it, and what is lost in the end."""

from __future__ import annotations

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import list_pins, load_trash
from respaldo.catalog.rolls import row_of
from respaldo.catalog.snapshots import cached, load, outcome_name, pending_name
from respaldo.codec.slots import Kdf, Secret
from respaldo.core.ids import Kind, catalogue_object
from respaldo.flows.repair.options import RepairOptions, Verb
from respaldo.format.catalogue import Roll
from respaldo.format.snapshot import Condemnation, Marker
from respaldo.store import slots
from respaldo.store.ballast import BALLAST, keep_ballast
from tests.flows.repair.ward import (
    EVERYTHING,
    block_of,
    differs,
    flipped,
    footer_of,
    read_all,
    repair,
    repair_in,
    state_of,
    verify,
)
from tests.protocol.scene import Kept, back_up, make_repository, open_repository, write_tree

NAME = "its bytes do not have its name"
BODY = "its blocks do not have the hash in its footer"
CLOSING = "its closing hash does not fit its bytes"
TAG = "its authentication tag does not fit its bytes"


def mended(ward, backend, cache, options=EVERYTHING, *, lost=frozenset()):
    """Repairs, looks whether all is clean and nothing is lost but what may be; returns the result."""
    before = backend.snapshot()
    result = repair(backend, cache, options)
    assert result.left == ()
    after = verify(backend, ward.folder / "clean")
    assert after.damages == ()
    now = state_of(backend, cache)
    assert differs(now, ward.state) == set(lost)
    assert after.lost_count == sum(content == b"(lost)" for content in now.values())
    for name, content in before.items():  # nothing is taken away for good
        kept = {data for other, data in backend.snapshot().items() if other == name or other.startswith("lost+found/")}
        assert content in kept or name.startswith(("trash/", "pins/"))
    again = repair(backend, cache, options)
    assert (again.plan.steps, again.left) == ((), ())
    return result


def touched(ward, result):
    """Returns the (time, path) that a check says damage affects, of files."""
    times = dict(zip(ward.snapshots, sorted({time_ns for time_ns, _ in ward.state}), strict=True))
    return {(times[item.snapshot], item.path) for damage in result.damages for item in damage.affected}


# --- packs --------------------------------------------------------------------------------------------------------


def test_bit_in_a_data_block(ward, tmp_path):
    """The files that need the block are lost, all others go on; the mark says so everywhere."""
    name, at = block_of(ward, lambda kind: kind is Kind.DATA)
    backend = ward.backend(**{name: flipped(ward.objects[name], at)})
    found = verify(backend, tmp_path / "verify")
    [damage] = found.damages
    assert damage.name == name
    assert damage.reason.startswith(f"{NAME}; {BODY}; block ")
    assert damage.reason.endswith(TAG)
    lost = touched(ward, found)
    assert lost
    result = mended(ward, backend, tmp_path / "cache", lost=lost)
    assert {step.verb for step in result.done} == {Verb.RESCUE, Verb.MARK}
    assert name not in backend.snapshot()
    assert backend.get("lost+found/" + name.replace("/", ".")) == flipped(ward.objects[name], at)


def test_bit_in_a_tree_block(ward, tmp_path):
    """Directories whose trees are gone are marked in the ones above, or the snapshot's root is."""
    name, at = block_of(ward, lambda kind: kind is Kind.TREE)
    backend = ward.backend(**{name: flipped(ward.objects[name], at)})
    found = verify(backend, tmp_path / "verify")
    [damage] = found.damages
    assert (damage.name, damage.reason.endswith(TAG)) == (name, True)
    assert any(item.below for item in damage.affected)
    repair(backend, tmp_path / "cache")
    assert verify(backend, tmp_path / "fresh").damages == ()
    assert differs(state_of(backend, tmp_path / "fresh"), ward.state)


@pytest.mark.parametrize("at", [-1, -100, -200])
def test_bit_in_footer_or_trailer(ward, tmp_path, at):
    """A segment repeats the footer: nothing is lost, and the pack is written anew."""
    name = ward.names("packs")[0]
    backend = ward.backend(**{name: flipped(ward.objects[name], at)})
    [damage] = verify(backend, tmp_path / "verify").damages
    part = "its trailer: " if at > -89 else "its footer: "
    assert damage.name == name
    assert damage.reason.startswith(f"{NAME}; {part}")
    result = mended(ward, backend, tmp_path / "cache")
    assert [step.verb for step in result.done] == [Verb.RESCUE]
    assert result.rescued == len(footer_of(ward, name).lengths)


def test_footer_that_nothing_repeats(ward, tmp_path):
    """Without a segment, what a pack held is lost; everything else goes on."""
    name = ward.names("packs")[0]
    backend = ward.backend(**{name: flipped(ward.objects[name], -1)})
    for segment in ward.names("segments"):
        backend.delete(segment)
    names = {damage.name: damage.reason for damage in verify(backend, tmp_path / "verify").damages}
    assert names[name].startswith(f"{TAG}; {NAME}") or names[name].startswith(f"{NAME}")
    result = repair(backend, tmp_path / "cache")
    assert Verb.LIST in {step.verb for step in result.done}
    assert verify(backend, tmp_path / "fresh").damages == ()
    assert not verify(backend, tmp_path / "fresh").notes
    differs(state_of(backend, tmp_path / "fresh"), ward.state)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_truncated_pack(ward, tmp_path, share):
    """The blocks before the cut are rescued by what a segment says of them."""
    name = max(ward.names("packs"), key=lambda each: len(ward.objects[each]))
    content = ward.objects[name]
    length = int(footer_of(ward, name).body_length * share)
    backend = ward.backend(**{name: content[:length]})
    found = verify(backend, tmp_path / "verify")
    reasons = {damage.name: damage.reason for damage in found.damages}
    assert f"it is {length} bytes long, not {len(content)} as a segment says" in reasons[name]
    result = repair(backend, tmp_path / "cache")
    whole = [end for end in footer_of(ward, name).offsets[1:] if end <= length]
    assert bool(result.rescued) is bool(whole)
    assert verify(backend, tmp_path / "fresh").damages == ()
    differs(state_of(backend, tmp_path / "fresh"), ward.state)


def test_missing_pack(ward, tmp_path):
    """What was in a pack that is gone is lost, and marked."""
    name = ward.names("packs")[0]
    backend = ward.backend()
    backend.delete(name)
    found = verify(backend, tmp_path / "verify")
    segment = next(damage.reason for damage in found.damages if damage.name == name)
    assert segment.startswith("it is gone, and segments/")
    repair(backend, tmp_path / "cache")
    assert verify(backend, tmp_path / "fresh").damages == ()
    assert differs(state_of(backend, tmp_path / "fresh"), ward.state)


def test_swapped_packs(ward, tmp_path):
    """Two packs that changed places are told apart by their names, and give back all that they hold."""
    one, other = ward.names("packs")[:2]
    backend = ward.backend(**{one: ward.objects[other], other: ward.objects[one]})
    reasons = {damage.name: damage.reason for damage in verify(backend, tmp_path / "verify").damages}
    assert f"it holds the bytes of {other}" in reasons[one]
    assert f"it holds the bytes of {one}" in reasons[other]
    mended(ward, backend, tmp_path / "cache")


def test_foreign_pack(ward, tmp_path):
    """A pack of another repository opens under no key here, and nobody needs it."""
    stranger = MemoryBackend()
    make_repository(stranger)
    write_tree(tmp_path / "foreign", 5)
    with open_repository(Kept(stranger), tmp_path / "foreign cache") as repo:
        back_up(repo, tmp_path / "foreign")
    name = next(name for name in stranger.snapshot() if name.startswith("packs/"))
    backend = ward.backend(**{name: stranger.get(name)})
    [damage] = verify(backend, tmp_path / "verify").damages
    assert (damage.name, damage.needed) == (name, False)
    assert damage.reason == "its seal was not made for this key, place and length"
    mended(ward, backend, tmp_path / "cache")
    assert name not in backend.snapshot()


def test_foreign_bytes_under_a_packs_name(ward, tmp_path):
    """The pack itself is lost with all that it held."""
    name = ward.names("packs")[0]
    backend = ward.backend(**{name: bytes(len(ward.objects[name]))})
    reasons = {damage.name: damage.reason for damage in verify(backend, tmp_path / "verify").damages}
    assert reasons[name].startswith(NAME)
    assert repair(backend, tmp_path / "cache").rescued == 0
    assert verify(backend, tmp_path / "fresh").damages == ()


def test_pack_that_reads_well_after_all(ward, tmp_path):
    """What was the cable is no damage: nothing is touched."""
    from respaldo.core.seams import Cancel, Silent
    from respaldo.flows.repair.options import Diagnosis
    from respaldo.flows.repair.run import Repair

    backend = ward.backend()
    diagnosis = Diagnosis(faults={ward.names("packs")[0]: NAME})
    with open_repository(Kept(backend), tmp_path) as repo:
        repo.synchronise()
        mending = Repair(repo, diagnosis, EVERYTHING, cancel=Cancel())
        result = mending.execute(mending.plan(), progress=Silent(), cancel=Cancel())
    assert [step.text for step in result.left] == ["it reads well now: nothing is done about it; check the disk"]
    assert backend.snapshot() == ward.objects


# --- segments and catalogues --------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["flip", "cut", "gone"])
def test_segment(ward, tmp_path, harm):
    """Packs that no sound segment lists are listed again."""
    name = ward.names("segments")[0]
    backend = ward.backend()
    if harm == "gone":
        backend.delete(name)
    else:
        backend.damage(name, flipped(ward.objects[name], 99) if harm == "flip" else ward.objects[name][:99])
    found = verify(backend, tmp_path / "verify")
    assert [(damage.name, damage.reason) for damage in found.damages] == ([] if harm == "gone" else [(name, NAME)])
    assert [note.text for note in found.notes if "segment" in note.text]
    result = mended(ward, backend, tmp_path / "cache")
    assert {step.verb for step in result.done} == ({Verb.LIST} if harm == "gone" else {Verb.LIST, Verb.ASIDE})
    assert not verify(backend, tmp_path / "fresh").notes


def test_catalogue(ward, tmp_path):
    """What a catalogue repeated stands in manifests: it goes."""
    backend = ward.backend()
    with open_repository(Kept(backend), ward.copy_of_cache()) as repo:
        load(repo)
        name, data = repo.vault.seal_catalogue(
            Roll(rows=tuple(row_of(each, entry) for each, entry in sorted(cached(repo.index)))).encode()
        )
    backend.damage(catalogue_object(name), flipped(data, 7))
    [damage] = verify(backend, tmp_path / "verify").damages
    assert (damage.name, damage.reason) == (catalogue_object(name), NAME)
    mended(ward, backend, tmp_path / "cache")


# --- manifests and outcomes ---------------------------------------------------------------------------------------


def test_manifest_that_a_cache_repeats(ward, tmp_path):
    """A client that has listed snapshots before has the manifest: the snapshot goes on under another id."""
    name = pending_name(ward.snapshots[0])
    backend = ward.backend(**{name: flipped(ward.objects[name], 50)})
    [damage] = verify(backend, tmp_path / "verify").damages
    assert (damage.name, damage.reason) == (name, CLOSING)
    result = mended(ward, backend, ward.copy_of_cache())
    assert [step.verb for step in result.done] == [Verb.RECOVER]
    [(old, new)] = result.renamed
    assert old == ward.snapshots[0]
    with open_repository(Kept(backend), tmp_path / "look") as repo:
        assert list_pins(repo) == {new}
        manifest = load(repo).find(new.hex()).manifest
        assert (manifest.label, manifest.tags, manifest.kind, manifest.repairs) == ("label 0", ("tag",), "daily", old)


def test_manifest_that_a_catalogue_repeats(ward, tmp_path):
    """So does a client that has never seen it, where a catalogue repeats it."""
    name = pending_name(ward.snapshots[1])
    backend = ward.backend()
    with open_repository(Kept(backend), ward.copy_of_cache()) as repo:
        load(repo)
        rows = tuple(row_of(each, entry) for each, entry in sorted(cached(repo.index)))
        roll, data = repo.vault.seal_catalogue(Roll(rows=rows).encode())
        backend.put(catalogue_object(roll), [data])
    backend.damage(name, b"")
    result = mended(ward, backend, tmp_path / "cache")
    [(old, new)] = result.renamed
    with open_repository(Kept(backend), tmp_path / "look") as repo:
        assert load_trash(repo).records.keys() == {new}
    assert old == ward.snapshots[1]


def test_manifest_that_nothing_repeats(ward, tmp_path):
    """The snapshot is lost, and says so; others, and prune, go on."""
    name = pending_name(ward.snapshots[2])
    backend = ward.backend(**{name: b""})
    result = repair(backend, tmp_path / "cache")
    [step] = result.done
    assert (step.verb, step.text) == (
        Verb.ASIDE,
        "it cannot be read, and nothing repeats it: the snapshot is lost",
    )
    assert verify(backend, tmp_path / "fresh").damages == ()
    last = max(time_ns for time_ns, _ in ward.state)
    assert state_of(backend, tmp_path / "fresh") == {
        path: content for path, content in ward.state.items() if path[0] != last
    }
    assert "lost+found/" + name.replace("/", ".") in backend.snapshot()


@pytest.mark.parametrize("known", [True, False])
def test_outcome_is_no_abort(ward, tmp_path, known):
    """A damaged outcome loses nothing; it stays unless it is known to have been a commit."""
    name = outcome_name(ward.snapshots[1])
    backend = ward.backend(**{name: ward.objects[name][:100]})
    [damage] = verify(backend, tmp_path / "verify").damages
    assert damage.name == name
    assert damage.reason == f"{CLOSING}; its snapshot is undecided, and not shown, until it is decided anew"
    result = mended(ward, backend, ward.copy_of_cache() if known else tmp_path / "cache")
    assert [step.verb for step in result.done] == [Verb.RECOVER]
    assert (name in backend.snapshot()) is not known
    assert pending_name(ward.snapshots[1]) not in backend.snapshot()


def test_outcome_of_a_session_at_work_is_left(ward, tmp_path):
    """It may just be being written."""
    name = outcome_name(ward.snapshots[1])
    backend = ward.backend(**{name: b""})
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        session = load(repo).snapshots[0].manifest.session
        for item in load(repo).undecided:
            from respaldo.catalog.snapshots import read_undecided

            session = read_undecided(repo, item)[0].session
        marker = f"sessions/{session.hex()}.0"
        record = Marker(session=session, time_ns=repo.clock.now_ns())
        backend.put(marker, [repo.vault.seal_record("marker", marker, record.encode())])
    result = repair(backend, tmp_path / "cache")
    assert [step.verb for step in result.left] == [Verb.LEAVE]
    assert result.exit_status == 4
    assert pending_name(ward.snapshots[1]) in backend.snapshot()


# --- small records ------------------------------------------------------------------------------------------------


def test_slot_where_another_opens(ward, tmp_path):
    """A damaged slot is set aside; the repository opens as before."""
    backend = ward.backend()
    with open_repository(Kept(backend), tmp_path / "cache") as repo:
        name = slots.add(
            backend, repo.ring, repo.vault, secret=Secret(key=b"o" * 32), kdf=Kdf(passes=1, memory_kib=65536),
            label="", now_ns=0, random=repo.random,
        )  # fmt: skip
    backend.damage(name, flipped(backend.get(name), 40))
    [damage] = verify(backend, tmp_path / "verify").damages
    assert (damage.name, damage.reason) == (name, CLOSING)
    mended(ward, backend, tmp_path / "cache")
    assert name not in backend.snapshot()


def test_marker_record_of_the_trash_and_ballast(ward, tmp_path):
    """What nothing depends on is set aside; the megabyte in reserve is put again."""
    backend = ward.backend()
    [trash] = ward.names("trash")
    backend.damage(trash, b"")
    backend.damage("sessions/" + "0a" * 16 + ".0", b"torn")
    keep_ballast(backend, bytes)
    backend.damage(BALLAST, flipped(backend.get(BALLAST), 5))
    result = mended(ward, backend, tmp_path / "cache")
    assert len(result.done) == 3
    assert backend.exists(BALLAST) == 1 << 20


def test_damaged_pin_stays(ward, tmp_path):
    """A pin that cannot be read pins: it is left, and said to be."""
    [name] = ward.names("pins")
    backend = ward.backend(**{name: b""})
    result = repair(backend, tmp_path / "cache")
    assert [step.name for step in result.left] == [name]
    assert name in backend.snapshot()


def test_damaged_condemnation(ward, tmp_path):
    """It stops everybody who writes: it is condemned again where its packs are known, and set aside only when alone."""
    backend = ward.backend()
    name = "condemned/" + "c" * 32
    packs = tuple(bytes.fromhex(each[6:]) for each in ward.names("packs")[:1])
    with open_repository(Kept(backend), tmp_path / "knows") as repo:
        record = Condemnation(collector=b"c" * 16, time_ns=0, packs=packs)
        backend.put(name, [repo.vault.seal_record("condemnation", name, record.encode())])
        repo.synchronise()
    sound = backend.snapshot()
    backend.damage(name, flipped(backend.get(name), 60))
    for cache, alone in ((tmp_path / "knows", False), (tmp_path / "new", False), (tmp_path / "new", True)):
        state = MemoryBackend()
        for each, content in backend.snapshot().items():
            state.damage(each, content)
        result = repair(state, cache, RepairOptions(read_data=True, alone=alone))
        if cache.name == "new" and not alone:
            assert [step.verb for step in result.left] == [Verb.LEAVE]
            assert state.snapshot().keys() == sound.keys()
            continue
        assert result.left == ()
        assert verify(state, tmp_path / "fresh").damages == ()
        with open_repository(Kept(state), tmp_path / "fresh") as repo:
            assert repo.list_packs().condemned == (set() if alone else set(packs))
            assert read_all(repo) == ward.state


def test_nothing_to_repair(ward, tmp_path):
    """A sound repository is not touched."""
    backend = ward.backend()
    with open_repository(Kept(backend), tmp_path) as repo:
        result = repair_in(repo)
    assert (result.plan.steps, result.exit_status) == ((), 0)
    assert backend.snapshot() == ward.objects
