"""What is gone from the repository, or from the local cache, is noticed, and stored again."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from respaldo.catalog import session as session_module
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import RANDOM_ID_BYTES, pack_object
from respaldo.format.snapshot import Condemnation
from tests.flows.backup.world import World, assert_equal, walk_model


@pytest.fixture
def tree(world: World) -> World:
    """A world with a tree in two packs at least, backed up once."""
    source = world.source
    for place in ("a", "a/b", "c"):
        (source / place).mkdir()
        for number in range(5):
            (source / place / f"{number}").write_bytes(os.urandom(3000))
    (source / "long").write_bytes(os.urandom(10 << 20))
    world.check()
    return world


def packs(world: World) -> list[str]:
    return [name for name, _ in world.backend.list("packs")]


def forget_snapshots(world: World) -> None:
    for folder in ("pending", "outcome"):
        for name, _ in list(world.backend.list(folder)):
            world.backend.delete(name)


def condemn(world: World, names: list[str]) -> None:
    """Condemns packs as a collector would."""
    listed = [pack.name for pack in world.repo.index.packs() if pack_object(pack.name) in names]
    assert len(listed) == len(names)
    record = Condemnation(collector=bytes(RANDOM_ID_BYTES), time_ns=0, packs=tuple(listed))
    name = f"condemned/{os.urandom(RANDOM_ID_BYTES).hex()}"
    world.backend.put(name, [world.repo.vault.seal_record("condemnation", name, record.encode())])


def test_forgotten_parent_is_not_relied_on(tree: World, reads):
    """Where the snapshot that remembered it is gone, every chunk is looked up; what is there is not read."""
    forget_snapshots(tree)
    tree.check()
    assert reads.take() == []


def test_forgotten_and_collected_parent_is_read_again(tree: World):
    """Where the snapshot and its packs are gone, everything is stored again."""
    forget_snapshots(tree)
    for name in packs(tree):
        tree.backend.delete(name)
    assert tree.check().figures.read_bytes == tree.check().figures.length_bytes


def test_parent_that_is_forgotten_while_it_is_relied_on(tree: World, monkeypatch):
    """A snapshot that goes away under a run, with its packs, makes the run begin again and read."""
    real = session_module.put_pending
    done = []

    def put_pending(*given):
        if not done:
            done.append(True)
            forget_snapshots(tree)
            for name in packs(tree):
                tree.backend.delete(name)
        return real(*given)

    monkeypatch.setattr(session_module, "put_pending", put_pending)
    (tree.source / "c" / "0").write_bytes(b"new")
    result = tree.check()
    assert len(tree.snapshots) == 2  # one of them an abort
    assert result.figures.files_unchanged == 0


def test_content_that_goes_away_again_and_again_fails(tree: World, monkeypatch):
    """A run does not begin again for ever, and leaves no snapshot."""
    real = session_module.put_pending

    def put_pending(*given):
        for name in packs(tree):
            tree.backend.delete(name)
        return real(*given)

    monkeypatch.setattr(session_module, "put_pending", put_pending)
    (tree.source / "c" / "0").write_bytes(b"new")
    with pytest.raises(StorageFailed):
        tree.backup()


@pytest.mark.parametrize("damage", ["gone", "short"])
@pytest.mark.parametrize("which", range(3))
def test_pack_that_is_lost_is_made_up_for(tree: World, damage, which):
    """Content whose pack is gone or cut off is read and stored again though no file changed."""
    (tree.source / "c" / "new").write_bytes(os.urandom(100_000))
    tree.check()
    (tree.source / "a" / "new").write_bytes(os.urandom(100_000))
    tree.check()
    name = packs(tree)[which]
    content = tree.backend.get(name)
    tree.backend.delete(name)
    if damage == "short":
        tree.backend.put(name, [content[: len(content) // 2]])
    tree.repo.synchronise()  # another command was there first
    tree.reopen()
    tree.check(lost=True)
    assert tree.check().figures.read_bytes == 0


def test_pack_that_a_collector_took_is_no_loss(tree: World, reads):
    """After a collection what is remembered is trusted as before: nothing but comparisons."""
    (tree.source / "c" / "new").write_bytes(os.urandom(100_000))
    tree.check()
    (tree.path / "other").write_bytes(os.urandom(100_000))
    tree.backup(tree.path / "other")
    victim = packs(tree)[-1]
    condemn(tree, [victim])
    tree.repo.synchronise()
    tree.backend.delete(victim)
    reads.take()
    tree.check()
    assert reads.take() == []
    assert not any("gone" in text for _, text, _ in tree.notes.notes)


def test_condemned_pack_is_not_relied_on(tree: World):
    """What lies in a condemned pack only is copied to another before a snapshot is committed."""
    (tree.source / "copy").write_bytes((tree.source / "long").read_bytes())
    condemn(tree, packs(tree))
    forget_snapshots(tree)
    result = tree.check()
    condemned = packs(tree)[:1]
    for name in condemned:
        tree.backend.delete(name)
    tree.repo.synchronise()
    assert_equal(tree.model(result), walk_model(tree.source))


def test_pack_that_is_condemned_while_it_is_relied_on(tree: World, monkeypatch):
    """What was found in a pack that is condemned before the outcome is copied out of it in time."""
    before = packs(tree)
    real = session_module.put_pending

    def put_pending(*given):
        condemn(tree, before)
        return real(*given)

    monkeypatch.setattr(session_module, "put_pending", put_pending)
    tree.reopen(forget=True)
    result = tree.check()
    for name in before:
        tree.backend.delete(name)
    tree.repo.synchronise()
    assert_equal(tree.model(result), walk_model(tree.source))


def memo_rows(world: World):
    path = world.repo.cache_dir / "memo"
    return lmdb.open(str(path), max_dbs=16)


@pytest.mark.parametrize("changes", [False, True])
@pytest.mark.parametrize("at", [0, 20, 36, 60, 100, 160, -1])
def test_row_of_the_memo_that_rotted_is_not_believed(tree: World, at, changes):
    """A bit that flips in the local cache costs reading, never a wrong snapshot, changes or none."""
    with memo_rows(tree) as env:
        rows = env.open_db(b"rows", create=False)
        with env.begin(write=True) as txn:
            for key, value in list(txn.cursor(db=rows)):
                changed = bytearray(value)
                changed[at % len(changed)] ^= 1
                txn.put(key, bytes(changed), db=rows)
    for top, _, _ in list(os.walk(tree.source)) if changes else ():
        (Path(top) / "one more").write_bytes(b"than before")
    tree.check()


def test_memo_that_is_cut_off_is_not_believed(tree: World):
    """A row that ends early costs reading, never an error."""
    with memo_rows(tree) as env:
        rows = env.open_db(b"rows", create=False)
        with env.begin(write=True) as txn:
            for number, (key, value) in enumerate(list(txn.cursor(db=rows))):
                txn.put(key, value[: number * 7], db=rows)
    tree.check()
