"""Damage to everything but packs: each kind of object, by each kind of harm, with what is said about it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from respaldo.catalog.decided import cached
from respaldo.catalog.rolls import row_of
from respaldo.catalog.snapshots import decide, load, outcome_name, pending_name, put_pending
from respaldo.core.errors import Corruption, Interrupted, NotARepository
from respaldo.core.ids import Kind, SegmentName, SnapshotId, catalogue_object, pack_object, parse_hash_leaf
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.keyless import run_keyless
from respaldo.flows.check.run import run_verify
from respaldo.format.catalogue import Roll, Row
from respaldo.format.content import HOLE, ROW
from respaldo.format.header import close_object
from respaldo.format.segment import Listed, Segment
from respaldo.format.snapshot import Condemnation, Manifest, Marker, Verdict
from respaldo.format.tree import META, Branch, Leaf
from respaldo.store import slots
from tests.flows.check.scenes import EVERYTHING, STRUCTURE, flipped, verify
from tests.store.repositories import OTHER, SESSION, initialise, opened, replica, store

CLOSING = "its closing hash does not fit its bytes"
NAME = "its bytes do not have its name"
UNDECIDED = "its snapshot is undecided, and not shown, until it is decided anew"


def only(result):
    """The one damage, as (name, reason), with its snapshots."""
    [damage] = result.damages
    return damage.name, damage.reason, damage.snapshots


def harm(content, kind):
    return {"flip": flipped(content, len(content) // 2), "cut": content[:-1], "empty": b""}[kind]


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_header_or_config_keeps_it_from_opening_and_is_named(scene, tmp_path, kind):
    """Without header or configuration nothing opens; the error names the object."""
    for name in ["header", *scene.names("config")]:
        backend = scene.backend()
        backend.damage(name, harm(scene.objects[name], kind))
        with pytest.raises((Corruption, NotARepository)) as caught:
            verify(backend, tmp_path)
        assert caught.value.name == name if isinstance(caught.value, Corruption) else kind == "empty"


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_older_config_is_reported(scene, tmp_path, kind):
    """A configuration that does not count any more is still checked."""
    backend = scene.backend()
    [name] = scene.names("config")
    older = "config/" + "0" * 16
    backend.damage(older, harm(scene.objects[name], kind))
    assert only(verify(backend, tmp_path, STRUCTURE)) == (older, CLOSING, ())


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_slot_is_reported_while_another_opens(scene, tmp_path, kind):
    """One damaged slot is damage, and nobody's loss while another one opens."""
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        name = slots.add(
            backend, repo.ring, repo.vault, secret=OTHER, kdf=slots.Kdf(passes=1, memory_kib=65536), label="", now_ns=0,
            random=lambda length: b"\xff" * length,
        )  # fmt: skip
    backend.damage(name, harm(backend.get(name), kind))
    assert only(verify(backend, tmp_path / "cache", STRUCTURE)) == (name, CLOSING, ())


def test_swapped_slots_are_reported(scene, tmp_path):
    """A slot's bytes under another slot's name do not open there."""
    backend = scene.backend()
    [first] = scene.names("keys")
    backend.damage("keys/ffffffffffffffff", scene.objects[first])
    name, reason, _ = only(verify(backend, tmp_path, STRUCTURE))
    assert (name, reason) == ("keys/ffffffffffffffff", "its seal was not made for this key, place and length")


@pytest.mark.parametrize("options", [STRUCTURE, EVERYTHING])
@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_segment_loses_nothing(scene, tmp_path, kind, options):
    """What a damaged segment repeated is found in the packs; those stand in no segment then."""
    for name in scene.names("segments"):
        backend = scene.backend()
        backend.damage(name, harm(scene.objects[name], kind))
        result = verify(backend, tmp_path / name[-8:], options)
        assert only(result) == (name, NAME, ())
        assert result.damages[0].needed is False
        assert result.notes
        assert all(note.text == "no segment lists it" for note in result.notes)


def test_removed_segment_is_a_note(scene, tmp_path):
    """Segments may go: their packs are noted, nothing is damaged."""
    backend = scene.backend()
    for name in scene.names("segments"):
        backend.delete(name)
    result = verify(backend, tmp_path)
    assert (result.damages, len(result.notes)) == ((), 4)


def test_swapped_segments_are_reported(scene, tmp_path):
    """Two segments that changed places do not have their names."""
    first, second, *_ = scene.names("segments")
    backend = scene.backend()
    backend.damage(first, scene.objects[second])
    backend.damage(second, scene.objects[first])
    result = verify(backend, tmp_path)
    assert [(damage.name, damage.reason) for damage in result.damages] == [(first, NAME), (second, NAME)]


def _plant_catalogue(repo, *rows):
    name, data = repo.vault.seal_catalogue(Roll(rows=rows).encode())
    repo.backend.put(catalogue_object(name), [data])
    return catalogue_object(name)


def _rows(repo):
    load(repo)
    return [row_of(snapshot, entry) for snapshot, entry in sorted(cached(repo.index)) if entry.committed]


def test_sound_catalogue_is_sound(scene, tmp_path):
    """What repeats manifests and outcomes rightly, or speaks of what was forgotten, is no damage."""
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        rows = _rows(repo)
        assert len(rows) == 2
        forgotten = Row(snapshot=SnapshotId(b"\xff" * 16), pending_hash=bytes(32), manifest=b"")
        _plant_catalogue(repo, *rows, forgotten)
    assert verify(backend, tmp_path / "cache").damages == ()


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_catalogue_is_named(scene, tmp_path, kind):
    """With the key and without; nothing is lost by it."""
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        name = _plant_catalogue(repo, *_rows(repo))
    backend.damage(name, harm(backend.get(name), kind))
    result = verify(backend, tmp_path / "cache")
    assert (only(result), result.damages[0].needed) == ((name, NAME, ()), False)
    keyless = run_keyless(backend, progress=Silent(), cancel=Cancel())
    assert [(damage.name, damage.reason) for damage in keyless.damages] == [(name, NAME)]


@pytest.mark.parametrize("change", [{"pending_hash": bytes(32)}, {"manifest": b"\xc0"}])
def test_catalogue_that_contradicts_a_manifest_is_reported(scene, tmp_path, change):
    """The manifest and its outcome are right, whatever a catalogue says; also to a client that believed it."""
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        first, second = _rows(repo)
        name = _plant_catalogue(repo, replace(first, **change), second)
    for cache in ("writer", "fresh"):
        reason = f"it does not repeat {pending_name(first.snapshot)}"
        assert only(verify(backend, tmp_path / cache)) == (name, reason, ())


def test_catalogue_that_takes_an_aborted_snapshot_for_committed_is_reported(scene, tmp_path):
    """An abort is one for good."""
    backend = scene.backend()
    aborted = SnapshotId(b"\xee" * 16)
    with opened(backend, tmp_path / "writer") as repo:
        manifest = load(repo).snapshots[0].manifest
        pending_hash = put_pending(repo, aborted, manifest)
        decide(repo, aborted, Verdict.ABORT, pending_hash)
        name = _plant_catalogue(
            repo, *_rows(repo), Row(snapshot=aborted, pending_hash=pending_hash, manifest=manifest.encode())
        )
    assert only(verify(backend, tmp_path / "cache")) == (
        name,
        f"it repeats {pending_name(aborted)}, which was aborted",
        (),
    )


def _plant_segment(repo, *packs):
    name, data = repo.vault.seal_segment(Segment(session=SESSION, packs=packs).encode())
    repo.backend.put("segments/" + name.hex(), [data])
    return "segments/" + name.hex()


def test_segment_that_lies_about_a_pack_is_reported(scene, tmp_path):
    """A segment that says other things of a pack than the pack itself is the one that is damaged."""
    backend = scene.backend()
    with opened(backend, tmp_path / "writer") as repo:
        real = repo.read_segment(SegmentName(parse_hash_leaf(scene.names("segments")[0][9:]))).packs[0]
        other = next(
            item
            for name in scene.names("segments")
            for item in repo.read_segment(SegmentName(parse_hash_leaf(name[9:]))).packs
            if item.pack != real.pack
        )
        length = _plant_segment(repo, Listed(pack=real.pack, length_bytes=real.length_bytes + 1, footer=real.footer))
        footer = _plant_segment(repo, Listed(pack=real.pack, length_bytes=real.length_bytes, footer=other.footer))
    pack = pack_object(real.pack)
    for cache in (tmp_path / "writer", tmp_path / "fresh1", tmp_path / "fresh2"):
        result = verify(backend, cache)
        assert {(damage.name, damage.reason) for damage in result.damages} == {
            (length, f"it gives {pack} another length than the pack has"),
            (footer, f"it does not repeat the footer of {pack}"),
        }


def test_wrong_local_index_is_put_right(scene, tmp_path):
    """An index that does not hold what the segments say is no damage of the repository."""
    backend = scene.backend()
    with opened(backend, tmp_path) as repo:
        first, second = list(repo.index.packs())[:2]
        wrong = repo.index.footer(second.number)
        key = first.number.to_bytes(4, "big")
        repo.index._end_read()
        repo.index._environment.write(lambda txn: txn.put(key, wrong, db=repo.index._dbs["footers"]))
        result = run_verify(repo, EVERYTHING, progress=Silent(), cancel=Cancel())
    assert result.damages == ()
    assert [str(note) for note in result.notes] == ["index: the local index was wrong about 1 packs, and was put right"]


# --- manifests and outcomes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_manifest_loses_its_snapshot(scene, tmp_path, kind):
    """A manifest that does not open takes its snapshot with it, and no other."""
    name = pending_name(scene.first)
    backend = scene.backend()
    backend.damage(name, harm(scene.objects[name], kind))
    result = verify(backend, tmp_path)
    assert only(result) == (name, CLOSING, (scene.first,))
    assert [(item.path, item.below) for item in result.damages[0].affected] == [(b"/", True)]
    assert result.snapshots == 1


@pytest.mark.parametrize("kind", ["flip", "cut", "empty"])
def test_damaged_outcome_makes_its_snapshot_undecided(scene, tmp_path, kind):
    """An outcome that does not open, torn or forged, hides its snapshot and says so."""
    name = outcome_name(scene.second)
    backend = scene.backend()
    backend.damage(name, harm(scene.objects[name], kind))
    assert only(verify(backend, tmp_path)) == (name, f"{CLOSING}; {UNDECIDED}", (scene.second,))


def test_swapped_manifests_and_outcomes_are_reported(scene, tmp_path):
    """Manifests and outcomes are sealed under their names."""
    seal = "its seal was not made for this key, place and length"
    for object_name, reason in ((pending_name, seal), (outcome_name, f"{seal}; {UNDECIDED}")):
        first, second = object_name(scene.first), object_name(scene.second)
        backend = scene.backend()
        backend.damage(first, scene.objects[second])
        backend.damage(second, scene.objects[first])
        result = verify(backend, tmp_path / reason[-4:])
        assert {(damage.name, damage.reason) for damage in result.damages} == {(first, reason), (second, reason)}
        assert result.snapshots == 0


def test_forged_outcome_for_another_manifest_is_reported(scene, tmp_path):
    """An outcome that names other bytes than its manifest's decides nothing about them."""
    backend = scene.backend()
    backend.delete(outcome_name(scene.first))
    with opened(backend, tmp_path / "writer") as repo:
        decide(repo, scene.first, Verdict.COMMIT, hashlib.sha256(b"another").digest())
    expected = (pending_name(scene.first), "its outcome names another manifest", (scene.first,))
    assert only(verify(backend, tmp_path / "cache")) == expected


def test_undecided_aborted_and_orphaned_are_no_damage(scene, tmp_path):
    """A missing outcome or manifest is a state of the protocol: noted, or not worth a word."""
    backend = scene.backend()
    backend.delete(outcome_name(scene.first))
    backend.delete(pending_name(scene.second))
    with opened(backend, tmp_path / "writer") as repo:
        decide(repo, SnapshotId(b"a" * 16), Verdict.ABORT, bytes(32))
    result = verify(backend, tmp_path / "cache")
    assert (result.damages, result.snapshots, result.exit_status) == ((), 0, 0)
    assert [str(note) for note in result.notes] == [
        f"{pending_name(scene.first)}: it is undecided: its snapshot was not finished",
        f"{outcome_name(scene.second)}: its manifest is gone: forgetting it was interrupted, or it was lost",
    ]


def test_damaged_condemnation_and_marker_are_reported_and_do_not_stop_the_check(scene, tmp_path):
    """Records that no reader needs are checked too, afresh although the client has them in its cache."""
    backend = scene.backend()
    condemned, marker = "condemned/" + "c" * 32, "sessions/" + "d" * 32 + ".1"
    with opened(backend, tmp_path) as repo:
        for kind, name, record in (
            ("condemnation", condemned, Condemnation(collector=SESSION, time_ns=0, packs=())),
            ("marker", marker, Marker(session=SESSION, time_ns=0)),
        ):
            backend.put(name, [repo.vault.seal_record(kind, name, record.encode())])
        repo.synchronise()
    assert verify(backend, tmp_path).damages == ()
    for name in (condemned, marker):
        backend.damage(name, flipped(backend.get(name), 100))
    for cache in (tmp_path, tmp_path / "fresh"):
        result = verify(backend, cache)
        assert [(damage.name, damage.reason) for damage in result.damages] == [(condemned, CLOSING), (marker, CLOSING)]
        assert result.snapshots == 2


# --- what a key holder could have written -----------------------------------------------------------------------------


def _committed(repo, root):
    """Commits a snapshot with a root."""
    from respaldo.catalog.snapshots import put_pending

    manifest = Manifest(
        session=SESSION, root=root, sources=(b"/s",), time_ns=1, started_ns=1, ended_ns=1, host="h", user="u", uid=0
    )
    snapshot = SnapshotId(root[:16])
    decide(repo, snapshot, Verdict.COMMIT, put_pending(repo, snapshot, manifest))
    return snapshot


def _file(size, mode=0o100644):
    return META.pack(mode, 0, 0, 0, size, 0, 0)


def _root(repo, leaf):
    return store(repo, [(Kind.TREE, leaf.encode())])[0][0]


@pytest.fixture
def empty(tmp_path):
    """An empty repository, open."""
    backend = replica({})
    initialise(backend)
    with opened(backend, tmp_path / "empty") as repo:
        yield repo


def run(repo, options=STRUCTURE):
    return run_verify(repo, options, progress=Silent(), cancel=Cancel())


def test_size_that_is_not_the_contents_is_reported(empty):
    """A file whose size is not the sum of its chunks is found by their lengths, without reading them."""
    [chunk], _ = store(empty, [(Kind.DATA, b"x" * 10)])
    root = _root(empty, Leaf(names=b"a\0b\0", meta=_file(10) + _file(11), content=chunk * 2))
    snapshot = _committed(empty, root)
    [damage] = run(empty).damages
    assert (damage.name, damage.reason) == (f"tree {root.hex()[:16]}", "a file in it has another size than its content")
    assert [(item.snapshot, item.path) for item in damage.affected] == [(snapshot, b"/b")]


def test_reference_to_a_chunk_in_no_pack_is_reported(empty):
    """What is in no pack that anybody has heard of is blamed on the packs as such."""
    root = _root(empty, Leaf(names=b"a\0", meta=_file(10), content=b"?" * 32))
    snapshot = _committed(empty, root)
    [damage] = run(empty).damages
    assert (damage.name, damage.reason) == ("packs", "chunks that snapshots need are in none that can be read")
    assert [(item.snapshot, item.path) for item in damage.affected] == [(snapshot, b"/a")]


def test_tree_that_does_not_parse_takes_what_is_below(empty):
    """A tree whose bytes have its id and are no tree takes its directory."""
    [bad], _ = store(empty, [(Kind.TREE, b"no tree")])
    root = _root(empty, Leaf(names=b"a\0d\0", meta=_file(0) + _file(0, 0o040755), content=bad))
    _committed(empty, root)
    [damage] = run(empty).damages
    assert damage.name == f"tree {bad.hex()[:16]}"
    assert [(item.path, item.below) for item in damage.affected] == [(b"/d", True)]


def test_runs_that_do_not_fit_are_reported(empty):
    """Runs in the wrong order, of other lengths, or that are no runs, make their directory unreadable."""
    leaves = [Leaf(names=name + b"\0", meta=_file(0)) for name in (b"a", b"b")]
    ids, _ = store(empty, [(Kind.TREE, leaf.encode()) for leaf in leaves])
    [good, order, length], _ = store(
        empty,
        [
            (Kind.TREE, Branch(((ids[0], 1), (ids[1], 1))).encode()),
            (Kind.TREE, Branch(((ids[1], 1), (ids[0], 1))).encode()),
            (Kind.TREE, Branch(((ids[0], 2),)).encode()),
        ],
    )
    [nested], _ = store(empty, [(Kind.TREE, Branch(((good, 2),)).encode())])
    _committed(empty, good)
    assert run(empty).damages == ()
    for bad in (order, length, nested):
        _committed(empty, bad)
    damages = run(empty).damages
    assert {damage.name for damage in damages} == {f"tree {bad.hex()[:16]}" for bad in (order, length, nested)}
    assert {damage.reason for damage in damages} == {"its runs do not fit together"}


def test_equal_subtrees_are_read_once_and_named_everywhere(empty):
    """Forty directories that each hold the next one twice stand for a billion paths; the check ends."""
    leaf = Leaf(names=b"f\0", meta=_file(1), content=b"?" * 32)
    tree = _root(empty, leaf)
    for _ in range(40):
        tree = _root(empty, Leaf(names=b"a\0b\0", meta=_file(0, 0o040755) * 2, content=tree * 2))
    _committed(empty, tree)
    from respaldo.flows.check import survey

    limit, survey.DIRECTORIES_NAMED_MAX = survey.DIRECTORIES_NAMED_MAX, 2000
    try:
        result = run(empty)
    finally:
        survey.DIRECTORIES_NAMED_MAX = limit
    assert result.trees == 41
    assert result.damages[0].affected[0].path == b"/a" * 40 + b"/f"
    assert [note.name for note in result.notes] == ["paths"]


def test_lists_that_are_not_whole_are_gone_through_once(empty):
    """Eight levels of nodes that each hold the next one a thousand times, with a lie at the bottom; the check ends."""
    [chunk], _ = store(empty, [(Kind.DATA, b"x")])
    [node], _ = store(empty, [(Kind.LIST, ROW.pack(chunk, 1) * 1024)])
    for _ in range(7):
        [node], _ = store(empty, [(Kind.LIST, ROW.pack(node, 1 << 52) * 1024)])
    leaf = Leaf(names=b"f\0", meta=_file(1 << 62), content=node, levels={0: (8, 1)})
    _committed(empty, _root(empty, leaf))
    [damage] = run(empty).damages
    assert damage.reason == "a row of it has another length than what it refers to"
    assert [item.path for item in damage.affected] == [b"/f"]


@pytest.mark.parametrize("levels", [1, 2, 6])
def test_holes_are_never_adjacent(empty, levels):
    """Neither in a node nor across nodes, of whatever level; the lengths are all right."""
    [chunk], _ = store(empty, [(Kind.DATA, b"x")])
    rows = ROW.pack(HOLE, 1) * 2 if levels == 1 else ROW.pack(HOLE, 1) + ROW.pack(chunk, 1) + ROW.pack(HOLE, 1)
    length = len(rows) // ROW.size
    [node], _ = store(empty, [(Kind.LIST, rows)])
    for _ in range(levels - 1):
        [node], _ = store(empty, [(Kind.LIST, ROW.pack(node, length) * 1024)])
        length *= 1024
    leaf = Leaf(names=b"f\0", meta=_file(length), content=node, levels={0: (levels, 1)})
    _committed(empty, _root(empty, leaf))
    [damage] = run(empty).damages
    assert "two holes are adjacent" in damage.reason
    assert [item.path for item in damage.affected] == [b"/f"]


def test_marked_entries_without_content_are_whole(empty):
    """What was not read, or taken out by a repair, is no damage."""
    leaf = Leaf(
        names=b"a\0d\0",
        meta=_file(10) + _file(0, 0o040755),
        marks={0: int(Mark.MOUNT), 1: int(Mark.UNREADABLE)},
    )
    _committed(empty, _root(empty, leaf))
    assert run(empty, EVERYTHING).damages == ()


def test_snapshot_that_is_forgotten_meanwhile_is_left_out(empty):
    """A snapshot that somebody forgets and prunes under the check is not damaged."""
    root = _root(empty, Leaf(names=b"a\0", meta=_file(10), content=b"?" * 32))
    snapshot = _committed(empty, root)
    listings = []
    real = empty.backend.list

    def forgets(folder):
        if folder == "pending":
            listings.append(folder)
            if len(listings) == 2:
                empty.backend.delete(pending_name(snapshot))
                empty.backend.delete(outcome_name(snapshot))
        return real(folder)

    empty.backend.list = forgets
    result = run(empty)
    assert (result.damages, result.snapshots) == ((), 0)


def test_check_stops_when_it_is_asked_to(scene, tmp_path):
    """A request to stop ends the check between two objects."""
    cancel = Cancel()
    cancel.request("SIGINT")
    with opened(scene.backend(), tmp_path) as repo, pytest.raises(Interrupted):
        run_verify(repo, EVERYTHING, progress=Silent(), cancel=cancel)


def test_object_that_is_rubbish_under_a_closing_hash_is_reported(scene, tmp_path):
    """A closing hash proves nothing against malice: what does not open is damage."""
    backend = scene.backend()
    name = pending_name(scene.first)
    backend.damage(name, close_object(bytes(4064)))
    expected = (name, "its seal was not made for this key, place and length", (scene.first,))
    assert only(verify(backend, tmp_path)) == expected
