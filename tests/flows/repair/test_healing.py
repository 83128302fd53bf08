"""Self-healing: what was found damaged is stored again by the next snapshot that meets it, and old ones are whole."""

from __future__ import annotations

import os
import shutil

import pytest

from respaldo.api.blocks import Blocks
from respaldo.api.naming import Found, root_entry
from respaldo.catalog.snapshots import forget, load
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import Kind, pack_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.run import run_backup
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import run_prune
from respaldo.flows.restore.begin import Restore
from respaldo.flows.restore.options import RestoreOptions
from respaldo.flows.restore.run import run_restore
from respaldo.format.pack import parse_footer
from respaldo.store.repo import Repo
from tests.flows.repair.ward import (
    LOST,
    Ward,
    differs,
    entries,
    flipped,
    read_all,
    repair,
    state_of,
    verify,
)
from tests.protocol.scene import OPTIONS, Kept, open_repository


class Told(Silent):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, _level: int, text: str, _path: bytes = b"") -> None:
        self.notes.append(text)

    @property
    def looked_up(self) -> bool:
        """Whether everything was looked up because of damage."""
        return any("known to be damaged" in note for note in self.notes)


def snapshot(ward: Ward, backend, cache, source=None):
    """Backs up what is on the disk; returns the result, and what was told."""
    told = Told()
    with open_repository(Kept(backend), cache) as repo:
        paths = [os.fsencode(source or ward.source)]
        return run_backup(repo, paths, OPTIONS, progress=told, cancel=Cancel()), told


def restore(repo: Repo, target):
    """Restores the last snapshot."""
    repo.synchronise()
    item = load(repo).snapshots[-1]
    found = Found(snapshot=item, path=b"/", entry=root_entry(item))
    return run_restore(
        Restore(
            blocks=Blocks(repo), trees=TreeReader(repo.source), manifest=item.manifest, entry=found.entry, path=b"/",
            target=os.fsencode(target), options=RestoreOptions(),
        )
    )  # fmt: skip


@pytest.fixture
def current(ward, tmp_path):
    """A repository whose last snapshot is of what is on the disk, and the cache of the client that made it."""
    backend, cache = ward.backend(), ward.copy_of_cache(tmp_path.name)
    result, _ = snapshot(ward, backend, cache)
    assert result.healed == 0
    return backend, cache


def damage(ward, backend, kind):
    """Flips a bit of a block that the last snapshot needs for what is on the disk; returns the pack."""
    with open_repository(Kept(backend), ward.folder / "look") as repo:
        repo.synchronise()
        needed = set()
        for path, entry in entries(repo, load(repo).snapshots[-1]):
            if path.startswith(os.fsencode(ward.source) + b"/"):
                needed.update(entry.content if entry.is_dir or not entry.content.level else ())
        for pack in repo.index.packs():
            footer = parse_footer(repo.index.footer(pack.number), "pack")
            for number, block in enumerate(footer.blocks):
                first = footer.first_rows[number]
                held = {footer.chunk_id(row) for row in range(first, first + block.chunks)}
                if block.kind == kind and held & needed:
                    name = pack_object(pack.name)
                    at = footer.offsets[number] + block.sealed_length // 2
                    backend.damage(name, flipped(backend.get(name), at))
                    return name
    raise AssertionError("there is no such block")


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.TREE])
@pytest.mark.parametrize("finder", ["verify", "restore"])
def test_next_snapshot_heals_what_was_found(ward, current, tmp_path, kind, finder):
    """Unchanged files are read again where their chunks are damaged, and nothing else is."""
    backend, cache = current
    damage(ward, backend, kind)
    before = verify(backend, tmp_path / "before")
    if finder == "verify":
        verify(backend, cache)
    else:
        with open_repository(Kept(backend), cache) as repo:
            result = restore(repo, tmp_path / "target")
        if kind is Kind.TREE or result.damaged == 0:
            verify(backend, cache)  # a restore does not say which tree it could not read
    healed, told = snapshot(ward, backend, cache)
    assert told.looked_up
    assert healed.healed > 0
    assert healed.figures.files_unchanged > 0
    after = verify(backend, tmp_path / "after")
    lost = [{(item.snapshot, item.path) for item in found.damages[0].affected} for found in (before, after)]
    assert lost[1] < lost[0]
    again, told = snapshot(ward, backend, cache)
    assert (again.healed, told.looked_up, again.figures.read_bytes) == (0, False, 0)


def test_what_cannot_be_healed_is_looked_for_once(ward, current):
    """Content that is on no disk any more does not make every later run look up everything."""
    backend, cache = current
    damage(ward, backend, Kind.DATA)
    verify(backend, cache)
    runs = [snapshot(ward, backend, cache)[1].looked_up for _ in range(3)]
    assert runs == [True, False, False]


def test_repaired_damage_is_forgotten(ward, current):
    """A pack that was put right, or taken away, is no reason to look up anything."""
    backend, cache = current
    name = damage(ward, backend, Kind.DATA)
    verify(backend, cache)
    backend.damage(name, ward.objects[name])
    assert verify(backend, cache, read_data=False).damages == ()
    result, told = snapshot(ward, backend, cache)
    assert (result.healed, told.looked_up) == (0, False)


def test_structure_check_reads_what_was_found_before(ward, current):
    """Damage in content that is known is reported by a check that reads no content else."""
    backend, cache = current
    name = damage(ward, backend, Kind.DATA)
    verify(backend, cache)
    result = verify(backend, cache, read_data=False)
    assert ([each.name for each in result.damages], result.packs_read) == ([name], 1)


@pytest.mark.parametrize("kind", [Kind.DATA, Kind.TREE])
def test_any_client_makes_repaired_snapshots_whole(ward, current, tmp_path, kind):
    """After a repair, another client's snapshot brings lost files of all older snapshots back, and says so."""
    backend, cache = current
    whole = state_of(backend, tmp_path / "whole")
    damage(ward, backend, kind)
    repair(backend, tmp_path / "repairer")
    lost = differs(state_of(backend, cache), whole)
    assert lost
    result, _ = snapshot(ward, backend, tmp_path / "other client")
    assert result.healed > 0
    now = state_of(backend, cache)
    before = {path: content for path, content in now.items() if path[0] != result.manifest.time_ns}
    still = differs(before, whole)
    assert still < lost
    assert verify(backend, tmp_path / "clean").damages == ()
    if kind is Kind.DATA:  # the last one before it held what is on the disk: all of it is whole
        assert max(time_ns for time_ns, _ in whole) not in {time_ns for time_ns, _ in still}


def test_client_that_made_the_snapshot_heals_it_too(ward, current, tmp_path):
    """Its memory of the last run counts for nothing once that snapshot was put again."""
    backend, cache = current
    damage(ward, backend, Kind.DATA)
    repair(backend, tmp_path / "repairer")
    result, _ = snapshot(ward, backend, cache)
    assert result.healed > 0
    assert LOST not in {content for (time_ns, _), content in state_of(backend, cache).items() if time_ns > 1.75e18}


def test_prune_keeps_what_has_come_back(ward, current, tmp_path):
    """What a lost file needs stays once it is there again, also when the snapshot that stored it is forgotten."""
    backend, cache = current
    damage(ward, backend, Kind.DATA)
    repair(backend, cache)
    with open_repository(Kept(backend), cache) as repo:
        before = run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
        assert before.damages == ()
    result, _ = snapshot(ward, backend, cache)
    with open_repository(Kept(backend), cache) as repo:
        repo.synchronise()
        state = {path: content for path, content in read_all(repo).items() if path[0] != result.manifest.time_ns}
        forget(repo, result.snapshot)
        run_prune(repo, PruneOptions(repack_below=1.0), progress=Silent(), cancel=Cancel())
        repo.synchronise()
        assert read_all(repo) == state
    assert verify(backend, tmp_path / "fresh").damages == ()


def test_repaired_snapshot_restores_but_for_what_is_lost(ward, current, tmp_path):
    """A restore names what is lost, ends with status 3, and spares what is there where that is."""
    backend, cache = current
    damage(ward, backend, Kind.DATA)
    repair(backend, cache)
    with open_repository(Kept(backend), cache) as repo:
        result = restore(repo, tmp_path / "target")
        lost = [path for (time_ns, path), content in read_all(repo).items() if content == LOST and time_ns > 1.75e18]
    assert (result.failed, result.exit_status) == (len(lost), 3)
    assert {path for path, _ in result.failures} == set(lost)
    assert {reason for _, reason in result.failures} == {"its content was lost to damage"}
    shutil.rmtree(tmp_path / "target")
