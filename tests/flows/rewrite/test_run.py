"""What a rewritten snapshot says, what stays, what goes, and what becomes of damage."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from respaldo.api.retention import candidates, pin
from respaldo.catalog.arrival import find_doubts
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import decide, load, put_pending
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Refused, StorageFailed, UsageError
from respaldo.core.ids import RANDOM_ID_BYTES, ChunkId, Kind, SnapshotId, pack_object
from respaldo.core.model import Mark
from respaldo.flows.gc.mark import Mark as Marking
from respaldo.format.pack import parse_footer
from respaldo.format.snapshot import TEXT_BYTES_MAX, Verdict
from tests.protocol.collector import Collector  # noqa: F401 - the package's fixtures
from tests.protocol.ground import prune
from tests.protocol.scene import Kept, below, contents, fresh_cache, on_disk, open_repository, write_tree


def test_words_are_changed_and_all_else_stays(world):
    """Host, user, kind, label, reason, tags and time are what was asked for; what is in it, and the rest, as it was."""
    write_tree(world.source, 1)
    old = world.item(world.snapshot(tags=("a", "b"), label="old", reason="because", kind="daily"))
    new = world.rewritten(
        old.id, host="h", user="u", kind="k", label="", reason="r", add_tags=("c", "b"), remove_tags=("a",), time_ns=7
    )
    assert new.manifest.tags == ("b", "c")
    assert (new.manifest.host, new.manifest.user, new.manifest.kind) == ("h", "u", "k")
    assert (new.manifest.label, new.manifest.reason, new.manifest.time_ns) == ("", "r", 7)
    assert new.manifest.rewrites == old.id
    assert replace(
        new.manifest,
        host=old.manifest.host, user=old.manifest.user, kind="daily", label="old", reason="because",
        tags=("a", "b"), time_ns=old.manifest.time_ns, rewrites=b"", session=old.manifest.session,
    ) == old.manifest  # fmt: skip


def test_the_old_one_stays_until_it_is_forgotten(world):
    """Without being asked to, nothing is forgotten; both are whole, and the new one is the latest."""
    write_tree(world.source, 1)
    old = world.snapshot(label="name")
    new = world.rewritten(old, exclude=("file1",))
    catalogue = load(world.repo)
    assert {item.id for item in catalogue.snapshots} == {old, new.id}
    assert below(contents(world.repo, old), world.source) == on_disk(world.source)
    left = {path: data for path, data in on_disk(world.source).items() if not path.endswith(b"/file1")}
    assert below(contents(world.repo, new.id), world.source) == left
    assert catalogue.find("latest").id == catalogue.find("name").id == new.id


def test_the_latest_of_many_rewritings_is_the_latest(world):
    """However the ids fall: what was rewritten from another of the same time comes after it."""
    write_tree(world.source, 1)
    chain = [world.snapshot()]
    for number in range(6):
        chain.append(world.rewritten(chain[-1], reason=str(number)).id)
    with open_repository(Kept(world.backend), fresh_cache(world.folder / "other")) as repo:
        assert [item.id for item in load(repo).snapshots] == chain


def test_forgetting_comes_after_and_frees_the_space(world):
    """What was left out is in no pack after a collection, and the storage is smaller."""
    write_tree(world.source, 1)
    secret = random.Random(5).randbytes(200_000)
    (world.source / "a" / "secret").write_bytes(secret)
    old = world.snapshot()
    chunks = _chunks_of(world, old, b"secret")
    assert len(chunks) > 5
    before = sum(length for _, length in world.repo.backend.list("packs"))
    result = world.rewrite(old, exclude=("secret",), forget=True)
    assert result.forgotten == (old,)
    assert {item.id for item in load(world.repo).snapshots} == {result.items[0].snapshot}
    prune(world.repo)
    with open_repository(Kept(world.backend), fresh_cache(world.folder / "other")) as repo:
        repo.synchronise()
        assert not any(repo.source.has(chunk) for chunk in chunks)
        for pack in repo.index.packs():
            footer = parse_footer(repo.index.footer(pack.number), pack_object(pack.name))
            assert not chunks & {footer.chunk_id(row) for row in range(len(footer.lengths))}
        found = contents(repo, load(repo).snapshots[0].id)
    assert secret not in found.values()
    assert found == {path: data for path, data in on_disk(world.source).items() if data != secret}
    assert sum(length for _, length in world.repo.backend.list("packs")) < before


def _chunks_of(world, snapshot, name) -> set[bytes]:
    trees = TreeReader(world.repo.source)
    stack, found = [world.item(snapshot).manifest.root], set()
    while stack:
        for entry in trees.entries(stack.pop()):
            if entry.is_dir:
                stack += entry.content
            elif entry.name == name:
                found |= {chunk for level, chunk in trees.nodes(entry.content) if not level}
    return found


def test_nothing_is_made_where_nothing_changes(world):
    """A pattern that matches nothing, and words that are there already, make no snapshot and forget none."""
    write_tree(world.source, 1)
    old = world.snapshot(tags=("a",))
    result = world.rewrite(old, exclude=("nothing",), add_tags=("a",), remove_tags=("b",), forget=True)
    assert not result.items[0].changed
    assert result.forgotten == ()
    assert [item.id for item in load(world.repo).snapshots] == [old]


def test_a_dry_run_writes_nothing_and_says_what_would_be(world):
    """Its root and figures are those of the run."""
    write_tree(world.source, 1)
    old = world.snapshot()
    before = world.backend.snapshot()
    (dry,) = world.rewrite(old, exclude=("file*",), dry_run=True).items
    assert world.backend.snapshot() == before
    (done,) = world.rewrite(old, exclude=("file*",)).items
    assert dry.snapshot is None
    assert dry.manifest.root == done.manifest.root
    assert dry.manifest.figures == done.manifest.figures
    assert dry.less("files") == 6


def test_a_pinned_one_is_not_forgotten(world):
    """It is refused before anything is done; without forgetting it is rewritten, and keeps its pin alone."""
    write_tree(world.source, 1)
    old = world.snapshot()
    pin(world.repo, load(world.repo), [old.hex()], Context(now_ns=0))
    with pytest.raises(Refused, match="pinned"):
        world.rewrite(old, reason="new", forget=True)
    assert [item.id for item in load(world.repo).snapshots] == [old]
    assert len(world.rewrite(old, reason="new").items) == 1
    assert len(load(world.repo).snapshots) == 2


def test_one_that_is_pinned_meanwhile_stays(world, monkeypatch):
    """Whoever pins it while it is rewritten keeps it."""
    write_tree(world.source, 1)
    old = world.snapshot()
    real = decide

    def pinning(repo, *arguments):
        pin(repo, load(repo), [old.hex()], Context(now_ns=0))
        return real(repo, *arguments)

    monkeypatch.setattr("respaldo.catalog.session.decide", pinning)
    result = world.rewrite(old, reason="new", forget=True)
    assert result.pinned == (old,)
    assert len(load(world.repo).snapshots) == 2


def test_what_no_manifest_can_hold_is_refused_before_anything_is_done(world):
    """Of several snapshots none is rewritten then."""
    write_tree(world.source, 1)
    first, second = world.snapshot(tags=("x" * 60_000,)), world.snapshot()
    before = {name for name in world.backend.snapshot() if not name.startswith("sessions/")}
    for wrong in ({"reason": "x" * (TEXT_BYTES_MAX + 1)}, {"time_ns": 1 << 70}):
        with pytest.raises(UsageError):
            world.rewrite(second, first, **wrong)
    assert set(world.backend.snapshot()) == before


def test_failures_of_what_is_left_out_are_left_out(world):
    """An unreadable file that is excluded makes the new snapshot complete."""
    write_tree(world.source, 1)
    old = world.item(world.snapshot())
    top = bytes(world.source)
    failed = ((top + b"/a/gone.o", "gone"), (top + b"/a", "why"), (top + b"/b/file1", "no"))
    manifest = replace(old.manifest, failed=failed, figures=replace(old.manifest.figures, errors=3))
    worse = SnapshotId(world.repo.random(RANDOM_ID_BYTES))
    decide(world.repo, worse, Verdict.COMMIT, put_pending(world.repo, worse, manifest))
    new = world.rewritten(worse, exclude=("*.o", "file1/", "a/"))
    assert new.manifest.failed == (failed[2],)  # "file1/" is no directory
    assert new.manifest.figures.errors == 1


def test_times_of_rewritten_ones_are_not_in_doubt(world):
    """They come long after the snapshots that they stand for, and policies count them all the same."""
    write_tree(world.source, 1)
    old = world.item(world.snapshot())
    month_ns = 30 * 86_400 * 10**9
    then = old.manifest.time_ns - month_ns
    past = replace(old.manifest, time_ns=then, started_ns=then, ended_ns=then)
    aged = SnapshotId(world.repo.random(RANDOM_ID_BYTES))
    decide(world.repo, aged, Verdict.COMMIT, put_pending(world.repo, aged, past))
    world.repo.backend.arrivals = lambda _folder: {  # the aged one came in time
        f"pending/{item.id.hex()}": then if item.id == aged else old.manifest.ended_ns
        for item in load(world.repo).snapshots
    }
    new = world.rewritten(aged, reason="new")
    found = list(candidates(load(world.repo).snapshots, repo=world.repo))
    doubts = find_doubts((item.arrival for item in found), world.repo.clock.now_ns())
    assert new.id in {item.id for item in found}
    assert not doubts


# --- damage ------------------------------------------------------------------------------------------------------


def _lose(world, wanted: set[bytes]) -> None:
    """Takes the packs away that hold some chunks, having put what else is in them elsewhere."""
    from respaldo.store.chunks import ChunkSink

    repo = world.repo
    numbers = {number for chunk in wanted for number, _ in repo.index.copies(ChunkId(chunk))}
    saved = []
    for number in numbers:
        footer = parse_footer(repo.index.footer(number), "pack")
        for block, first in zip(footer.blocks, footer.first_rows, strict=False):
            for row in range(first, first + block.chunks):
                kind, chunk_id = Kind(block.kind), footer.chunk_id(row)
                saved += [(kind, repo.source.get(kind, chunk_id))] if chunk_id not in wanted else []
    repo.index.usable -= numbers
    names = [pack_object(repo.index.pack(number).name) for number in numbers]
    sink = ChunkSink.into(repo, b"s" * 16)
    for kind, raw in saved:
        sink.put(kind, raw)
    sink.flush()
    repo.put_segments(b"s" * 16, sink.unlisted)
    sink.close()
    for name in names:
        repo.backend.delete(name)
    repo.synchronise(lenient=True)


def _directory(world, snapshot, *names: bytes):
    """Returns the entry of a directory below the source."""
    trees = TreeReader(world.repo.source)
    tree = world.item(snapshot).manifest.root
    entry = None
    for name in (*bytes(world.source).strip(b"/").split(b"/"), *names):
        entry = trees.find(tree, name)
        assert entry is not None, name
        tree = next(iter(entry.content), None)
    return entry


def test_a_lost_directory_is_marked_and_named(world):
    """All else is rewritten; the directory keeps its tree's id, so that it is whole again when that is stored again."""
    write_tree(world.source, 1)
    old = world.snapshot()
    tree = bytes(_directory(world, old, b"b").content.ids)
    _lose(world, {tree})
    result = world.rewrite(old, exclude=("file0",))
    (done,) = result.items
    assert done.lost == (bytes(world.source) + b"/b",)
    assert result.lost == 1
    entry = _directory(world, done.snapshot, b"b")
    assert entry.mark is Mark.LOST
    assert entry.content.ids == tree
    assert tree in world.item(done.snapshot).manifest.lost
    (left,) = _directory(world, done.snapshot, b"a").content
    names = [item.name for item in TreeReader(world.repo.source).entries(left)]
    assert b"file0" not in names
    assert names


@pytest.mark.usefixtures("_short_runs")
def test_a_lost_run_keeps_its_place(world):
    """Of a long directory the other runs are rewritten."""
    for number in range(20):
        (world.source / f"file{number:02}").write_text(str(number))
    old = world.snapshot()
    (tree,) = _directory(world, old).content
    runs = TreeReader(world.repo.source).run_ids(tree)
    assert len(runs) > 3
    lost = {entry.name for entry in TreeReader(world.repo.source).entries(runs[1])}
    _lose(world, {bytes(runs[1])})
    (done,) = world.rewrite(old, exclude=("file?[13579]",)).items
    entry = _directory(world, done.snapshot)
    assert entry.mark is Mark.LOST
    assert runs[1] in TreeReader(world.repo.source).run_ids(next(iter(entry.content)))
    names = []
    with pytest.raises(ChunkMissing):
        names.extend(item.name for item in TreeReader(world.repo.source).entries(next(iter(entry.content))))
    left = {b"file%02d" % number for number in range(0, 20, 2)} - lost
    found = set()
    trees = TreeReader(world.repo.source)
    for run in trees.run_ids(next(iter(entry.content))):
        if run != runs[1]:
            found |= {item.name for item in trees.entries(run)}
    assert found == left


def test_a_root_that_is_lost_is_marked_so(world):
    """Nothing can be left out of it, which is said."""
    write_tree(world.source, 1)
    old = world.snapshot()
    _lose(world, {bytes(world.item(old).manifest.root)})
    (done,) = world.rewrite(old, exclude=("file0",)).items
    assert done.lost == (b"/",)
    assert world.item(done.snapshot).manifest.root_lost


@pytest.mark.parametrize("whole", [False, True])
def test_what_is_marked_lost_stops_nobody(world, monkeypatch, whole):
    """A snapshot with something lost is rewritten, also where everything is looked up; a collector goes on then."""
    write_tree(world.source, 1)
    old = world.snapshot()
    _lose(world, {bytes(_directory(world, old, b"b").content.ids), *list(_chunks_of(world, old, b"file0"))[:1]})
    marked = _marked(world, old)
    if whole:
        monkeypatch.setattr("respaldo.catalog.session.Session._looks_at_all", lambda *_: True)
    result = world.rewrite(marked, exclude=("file3",), forget=True)
    assert result.items[0].snapshot is not None
    from respaldo.core.seams import Cancel, Silent

    Marking(world.repo, progress=Silent(), cancel=Cancel()).update()


def _marked(world, old) -> SnapshotId:
    """Repairs a snapshot; returns the new one."""
    from tests.flows.repair.ward import repair_in

    repair_in(world.repo)
    (item,) = [item for item in load(world.repo).snapshots if item.manifest.repairs == old]
    return item.id


def test_content_that_is_lost_and_not_marked_fails_where_it_is_looked_for(world, monkeypatch):
    """Where everything must be looked up, damage is found: no snapshot is made, and the old one stays."""
    write_tree(world.source, 1)
    old = world.snapshot()
    _lose(world, set(list(_chunks_of(world, old, b"file0"))[:1]))
    monkeypatch.setattr("respaldo.catalog.session.Session._looks_at_all", lambda *_: True)
    with pytest.raises(StorageFailed, match="damaged") as caught:
        world.rewrite(old, exclude=("file3",), forget=True)
    assert "repair" in caught.value.hint
    assert [item.id for item in load(world.repo).snapshots] == [old]


def test_a_repaired_one_keeps_what_it_says_of_losses(world):
    """The next backup still learns what to store again; and no repair takes the old one for one to retire."""
    write_tree(world.source, 1)
    old = world.snapshot()
    _lose(world, {bytes(_directory(world, old, b"b").content.ids)})
    marked = _marked(world, old)
    new = world.rewritten(marked, reason="new")
    assert new.manifest.lost == world.item(marked).manifest.lost != b""
    assert new.manifest.repairs == b""
    world.repo.backend.delete(f"pending/{marked.hex()}")
    from respaldo.flows.backup.run import _Run

    class Fake:
        _repo = world.repo

    assert _Run._lost(Fake(), load(world.repo))
