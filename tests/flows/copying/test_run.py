"""Copies bring what is missing, no more, and say what was lost; whatever happens meanwhile."""

from __future__ import annotations

import os

import pytest

from respaldo.api.reencrypting import reencrypt
from respaldo.api.repairing import diagnose
from respaldo.api.rewriting import rewrite
from respaldo.catalog.protection import list_pins
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import forget, load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Interrupted, KeyRotated, StorageFailed, UsageError
from respaldo.core.ids import Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.copying import moving
from respaldo.flows.copying.options import CopyOptions
from respaldo.flows.copying.run import run_copy
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import run_prune
from respaldo.flows.repair.options import RepairOptions
from respaldo.flows.repair.run import Repair
from respaldo.flows.rewrite.options import RewriteOptions
from respaldo.store.rotating import plan_rotation, rotate
from tests.flows.copying.lab import Lab
from tests.protocol.scene import change_tree, contents


@pytest.fixture(params=[True, False], ids=["alike", "anew"])
def lab(request, tmp_path):
    """Has two repositories that name content alike, or do not."""
    return Lab(tmp_path, alike=request.param)


def is_sound(lab: Lab) -> bool:
    with lab.open_target() as repo:
        result = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
    assert not result.damages
    return True


def test_copies_hold_what_the_originals_do(lab):
    """Content, holes, words and times are the same; ids are not, and parents are copies."""
    first = lab.snapshot()
    change_tree(lab.tree, 2)
    second = lab.snapshot()
    result = lab.copy()
    assert result.complete
    assert [item.source.id for item in result.copied] == [first, second]
    assert result.alike == (result.copied[0].blocks_kept > 0)
    lab.check()
    assert is_sound(lab)
    with lab.open_target() as repo:
        one, two = load(repo).snapshots
        assert {one.id, two.id}.isdisjoint({first, second})
        assert two.manifest.parent == one.id


def test_second_copy_copies_nothing_and_reads_no_pack(lab):
    """What the target has is known by whose copy it is: nothing of the source's packs is read again."""
    lab.snapshot()
    lab.copy()
    lab.forget_everything()
    lab.source.reads = 0
    again = lab.copy()
    assert (again.copied, len(again.present)) == ((), 1)
    assert lab.source.reads == 0


def test_what_was_rewritten_is_no_copy(lab):
    """A snapshot that was rewritten from a copy is brought to where the original is, which lacks it."""
    first = lab.snapshot()
    lab.copy()
    with lab.open_source() as source, lab.open_target() as target:
        (done,) = rewrite(
            target,
            load(target),
            ["latest"],
            Context(now_ns=target.clock.now_ns()),
            RewriteOptions(exclude=("file1",)),
            forget=False,
            progress=Silent(),
            cancel=Cancel(),
        ).items
        back = run_copy(target, source, load(target).snapshots, CopyOptions(), progress=Silent(), cancel=Cancel())
        assert [item.source.id for item in back.copied] == [done.snapshot]
        assert len(back.present) == 1
        one, two = load(source).snapshots
        assert one.id == first
        assert contents(source, two.id) == contents(target, done.snapshot)
        assert len(contents(source, two.id)) < len(contents(source, first))


def test_next_snapshot_costs_what_it_changed(lab):
    """After a change of one file, what is new in the target is about that file, with and without a cache."""
    lab.snapshot()
    whole = lab.copy().copied[0]
    for forgotten in (False, True):
        (lab.tree / f"fresh{forgotten}").write_bytes(b"fresh" * 50)
        lab.snapshot()
        if forgotten:
            lab.forget_everything()
        part = lab.copy().copied[0]
        assert part.read_bytes < whole.read_bytes / 4
        assert 0 < part.new_bytes < whole.new_bytes / 2
    lab.check()


def test_dry_run_says_exactly_what_is_new(lab):
    """Bytes and chunks of a dry run are those of the run; it changes nothing."""
    lab.snapshot()
    change_tree(lab.tree, 3)
    lab.snapshot()
    before = set(lab.b.names("packs"))
    planned = lab.copy(dry_run=True)
    assert set(lab.b.names("packs")) == before
    assert lab.b.names("pending") == []
    done = lab.copy()
    assert sum(item.new_bytes for item in planned.copied) >= sum(item.new_bytes for item in done.copied)
    assert planned.copied[0].new_bytes == done.copied[0].new_bytes
    assert planned.copied[0].chunks_new == done.copied[0].chunks_new


def test_interrupted_copy_goes_on_where_it_was(lab):
    """A copy that is stopped leaves no snapshot; the next one reads what was not brought yet, and no more."""
    lab.snapshot()

    class Stopping(Silent):
        def advance(self, *, files: int = 0, length_bytes: int = 0) -> None:
            self.seen = getattr(self, "seen", 0) + length_bytes
            if self.seen > 12_000:
                cancel.request("SIGINT")

    cancel = Cancel()
    with pytest.raises(Interrupted):
        lab.copy(cancel=cancel, progress=Stopping())
    assert lab.b.names("outcome") == []
    rest = lab.copy().copied[0]
    with lab.open_source() as repo:
        length = load(repo).snapshots[0].manifest.figures.length_bytes
    assert 0 < rest.new_bytes < length
    lab.check()
    assert is_sound(lab)


def test_copy_of_a_copy_is_known_for_what_it_is(tmp_path):
    """What went from a to b is not copied from b to a again."""
    lab = Lab(tmp_path, alike=True)
    lab.snapshot()
    lab.copy()
    with lab.open_source() as one, lab.open_target() as other:
        back = run_copy(other, one, load(other).snapshots, CopyOptions(), progress=Silent(), cancel=Cancel())
    assert (len(back.present), back.copied) == (1, ())


def test_a_repository_is_not_copied_into_itself(tmp_path):
    """The same repository, at the same place or as a copy of its files, is refused."""
    lab = Lab(tmp_path, alike=True)
    with (
        lab.open_source() as one,
        lab.open_source(apart=True) as other,
        pytest.raises(UsageError, match="same repository"),
    ):
        run_copy(one, other, (), CopyOptions(), progress=Silent(), cancel=Cancel())


def test_pinned_snapshots_stay_pinned(lab):
    """A copy of what is pinned is pinned in the target."""
    first = lab.snapshot()
    change_tree(lab.tree, 4)
    lab.snapshot()
    result = lab.copy(pinned=frozenset({first}))
    with lab.open_target() as repo:
        assert list_pins(repo) == {result.copied[0].copy}


def damage_file(lab: Lab, name: str) -> None:
    """Flips bytes of the block that a file's first chunk lies in."""
    with lab.open_source() as repo:
        trees = TreeReader(repo.source)
        tree = load(repo).snapshots[-1].manifest.root
        for part in (*str(lab.tree).strip("/").split("/"), name):
            entry = trees.find(tree, part.encode())
            tree = next(iter(entry.content))
        place = repo.source.locate(Kind.DATA, tree)
        pack, footer, _ = repo.source.sealed_block(place.pack, place.block)
        name = f"packs/{pack.hex()}"
        data = bytearray(lab.a.get_whole(name, 1 << 30))
        at = footer.offsets[place.block]
        data[at + 60 : at + 64] = b"\0\0\0\0"
        lab.a.damage(name, bytes(data))


def test_damage_in_the_source_is_marked_named_and_told(lab):
    """A file whose content is damaged is marked in the copy, everything else is there, and the target is sound."""
    (lab.tree / "victim").write_bytes(b"v" * 900)
    lab.snapshot()
    damage_file(lab, "victim")
    result = lab.copy()
    assert not result.complete
    (copied,) = result.copied
    victim = str(lab.tree / "victim").encode()
    assert victim in copied.lost
    assert copied.errors == len(copied.lost)
    assert is_sound(lab)
    with lab.open_target() as repo:
        (item,) = load(repo).snapshots
        assert (victim, "its content is lost in the repository it was copied from") in item.manifest.failed
        trees = TreeReader(repo.source)
        tree = item.manifest.root
        for part in str(lab.tree).strip("/").split("/"):
            tree = next(iter(trees.find(tree, part.encode()).content))
        marks = {entry.name: entry.mark for entry in trees.entries(tree)}
        assert marks[b"victim"] is (Mark.LOST if result.alike else Mark.UNREADABLE)
        assert marks[b"empty"] is Mark.NONE


def test_lost_root_is_no_snapshot_and_no_end(lab):
    """A snapshot whose root is gone cannot be copied and is named; the others are copied."""
    lab.snapshot()
    change_tree(lab.tree, 5)
    lab.snapshot()
    with lab.open_source() as repo:
        root = load(repo).snapshots[0].manifest.root
        place = repo.source.locate(Kind.TREE, root)
        pack, _, _ = repo.source.sealed_block(place.pack, place.block)
    lab.a.delete(f"packs/{pack.hex()}")
    result = lab.copy()
    assert [item.source.id for item in result.copied] + [item.id for item, _ in result.failed]
    assert result.failed


def test_what_is_forgotten_in_the_source_while_it_is_copied_is_no_failure(lab):
    """What somebody has taken away need not be copied, and its content is not damaged; the others are copied."""
    first = lab.snapshot()
    for path in lab.tree.rglob("*"):
        if path.is_file():
            path.unlink()
    (lab.tree / "new").write_bytes(os.urandom(5000))
    second = lab.snapshot()
    with lab.open_source() as source, lab.open_target() as target:
        wanted = load(source).snapshots
        with lab.open_source(apart=True) as other:
            forget(other, first)
            run_prune(other, PruneOptions(repack_below=1), progress=Silent(), cancel=Cancel())
        result = run_copy(source, target, wanted, CopyOptions(), progress=Silent(), cancel=Cancel())
    assert result.complete
    assert [item.source.id for item in result.copied] == [second]
    lab.check()
    assert is_sound(lab)


def test_what_is_sealed_anew_in_the_source_while_it_is_copied_is_not_called_forgotten(lab):
    """It is there, under another key and id: whoever copies is told to begin again, and not that all is well."""
    lab.snapshot()
    with lab.open_source() as source, lab.open_target() as target:
        wanted = load(source).snapshots
        with lab.open_source(apart=True) as other:
            rotate(other, plan_rotation(other, (), {}))
        with lab.open_source(apart=True) as other:
            reencrypt(other, progress=Silent(), cancel=Cancel())
        with pytest.raises(KeyRotated):
            run_copy(source, target, wanted, CopyOptions(), progress=Silent(), cancel=Cancel())


def test_prune_in_the_target_between_two_copies_loses_nothing(lab):
    """Where the target has forgotten and pruned the first copy, the second brings all that it needs."""
    lab.snapshot()
    first = lab.copy().copied[0].copy
    with lab.open_target() as repo:
        forget(repo, first)
        run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
    change_tree(lab.tree, 6)
    lab.snapshot()
    lab.copy()
    lab.check()
    assert is_sound(lab)


def test_prune_in_the_target_during_a_copy_loses_nothing(lab, monkeypatch):
    """A collector that condemns what the copy relies on, right before its manifest, is met by the last look."""
    lab.snapshot()
    first = lab.copy().copied[0].copy
    change_tree(lab.tree, 7)
    lab.snapshot()
    real = lab.b.put
    done = []

    def put(name, data):
        if name.startswith("pending/") and not done:
            done.append(name)
            lab.caches += 1
            with lab.open_target() as repo:
                forget(repo, first)
            with lab.open_target() as repo:
                run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
            lab.caches -= 1
        return real(name, data)

    monkeypatch.setattr(lab.b, "put", put)
    lab.copy(choose=lambda item: item.manifest.parent != b"")
    assert done
    monkeypatch.undo()
    lab.check()
    assert is_sound(lab)


def test_prune_in_the_source_during_a_copy_loses_nothing(lab, monkeypatch):
    """Packs of the source that go while they are read are found again where the collector has put their chunks."""
    first = lab.snapshot()
    change_tree(lab.tree, 8)
    lab.snapshot()
    real = type(lab.a).get
    done = []

    def get(self, name, offset, length):
        if self is lab.a and name.startswith("packs/") and not done:
            done.append(name)
            with lab.open_source(apart=True) as repo:
                forget(repo, first)
                run_prune(repo, PruneOptions(repack_below=1.0), progress=Silent(), cancel=Cancel())
        return real(self, name, offset, length)

    with lab.open_source() as source, lab.open_target() as target:
        wanted = load(source).snapshots[1:]
        source.source.forget_positions()
        monkeypatch.setattr(type(lab.a), "get", get)
        result = run_copy(source, target, wanted, CopyOptions(), progress=Silent(), cancel=Cancel())
        monkeypatch.undo()
    assert done
    assert result.complete
    lab.check()
    assert is_sound(lab)


def test_storage_that_fails_is_no_loss(lab, monkeypatch):
    """A source whose disk goes away ends the copy; nothing is marked as lost for it."""
    lab.snapshot()
    with lab.open_source() as source, lab.open_target() as target:

        def gone(self, name, offset, length):
            raise StorageFailed(name, "the disk is gone")

        wanted = load(source).snapshots
        monkeypatch.setattr(type(lab.source), "get", gone)
        with pytest.raises(StorageFailed):
            run_copy(source, target, wanted, CopyOptions(), progress=Silent(), cancel=Cancel())
    monkeypatch.undo()
    assert lab.b.names("outcome") == []


def test_only_part_of_a_block_is_taken_out_of_it(tmp_path, monkeypatch):
    """A block of which the target has some chunks gives the others alone."""
    lab = Lab(tmp_path, alike=True)
    lab.snapshot()
    lab.copy()
    with lab.open_target() as repo:
        for item in load(repo).snapshots:
            forget(repo, item.id)
        run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
    parts = []
    real = moving.Mover._part
    monkeypatch.setattr(moving.Mover, "_part", lambda self, *rest: (parts.append(rest), real(self, *rest))[1])
    with lab.open_source() as source, lab.open_target() as target:
        from tests.flows.copying.part import store_every_other

        store_every_other(source, target)
    lab.copy()
    assert parts
    lab.check()
    assert is_sound(lab)


def test_contents_agree_with_what_was_on_disk(lab):
    """What a copy holds is what the tree held."""
    lab.snapshot()
    copied = lab.copy().copied[0].copy
    with lab.open_target() as repo:
        found = contents(repo, copied)
    assert found[str(lab.tree / "a" / "file0").encode()] == (lab.tree / "a" / "file0").read_bytes()


def test_a_copy_that_lacks_something_is_made_again_only_where_that_helps(lab):
    """While the source stays damaged no second copy is made, and it is told again; once it is mended, one is."""
    (lab.tree / "victim").write_bytes(b"v" * 900)
    lab.snapshot()
    sound = {name: lab.a.get_whole(name, 1 << 30) for name in lab.a.names("packs")}
    damage_file(lab, "victim")
    first = lab.copy().copied[0]
    again = lab.copy()
    assert not again.complete
    assert again.copied[0].copy == first.copy
    for name, data in sound.items():
        lab.a.damage(name, data)
    mended = lab.copy()
    assert mended.complete
    assert mended.copied[0].copy != first.copy
    assert lab.copy().copied == ()
    with lab.open_target() as repo:
        assert contents(repo, mended.copied[0].copy)[str(lab.tree / "victim").encode()] == b"v" * 900


def test_what_was_lost_comes_back_from_the_copy(tmp_path):
    """A repository that lost something, and was repaired, gets it back from one that it was copied to."""
    lab = Lab(tmp_path, alike=True)
    (lab.tree / "victim").write_bytes(b"v" * 900)
    lab.snapshot()
    lab.copy()
    damage_file(lab, "victim")
    repair(lab)
    victim = str(lab.tree / "victim").encode()
    with lab.open_source() as one, lab.open_target() as other:
        (repaired,) = load(one).snapshots
        assert repaired.manifest.lost
        back = run_copy(other, one, load(other).snapshots, CopyOptions(), progress=Silent(), cancel=Cancel())
        assert len(back.copied) == 1
        for item in load(one).snapshots:
            assert contents(one, item.id)[victim] == b"v" * 900


def repair(lab: Lab) -> None:
    with lab.open_source() as repo:
        options = RepairOptions(read_data=True)
        found = diagnose(repo, options, progress=Silent(), cancel=Cancel())
        work = Repair(repo, found, options, cancel=Cancel())
        work.execute(work.plan(), progress=Silent(), cancel=Cancel())
