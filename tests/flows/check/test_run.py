"""How a check runs: what it tells, how it stops, how much it holds, and what others may do meanwhile."""

from __future__ import annotations

import threading

import pytest

from respaldo.backend.faults import Faults
from respaldo.catalog.snapshots import load
from respaldo.codec.slots import SLOTS_READ_MAX
from respaldo.core.errors import Interrupted
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.check import packs
from respaldo.flows.check.run import MEMORY, run_verify
from respaldo.flows.check.verified import Verified
from tests.flows.check.scenes import EVERYTHING, STRUCTURE, flipped, verify
from tests.store.repositories import opened, replica


class Watch(Silent):
    """Writes down what it is told, and by which threads."""

    def __init__(self):
        self.totals, self.done, self.notes, self.threads = [], [], [], set()

    def total(self, *, files, length_bytes):
        self.threads.add(threading.get_ident())
        self.totals.append((files, length_bytes))

    def advance(self, *, files=0, length_bytes=0):
        self.threads.add(threading.get_ident())
        self.done.append((files, length_bytes))

    def note(self, level, text, path=b""):
        self.threads.add(threading.get_ident())
        self.notes.append((level, text))


def test_progress_comes_from_one_thread_and_adds_up(scene, tmp_path):
    """What is done comes to what was announced; each damage is a warning."""
    backend = scene.backend()
    name = scene.names("packs")[0]
    backend.damage(name, flipped(scene.objects[name], 100))
    watch = Watch()
    with opened(backend, tmp_path) as repo:
        result = run_verify(repo, EVERYTHING, progress=watch, cancel=Cancel())
    assert watch.totals == [(result.packs, result.pack_bytes)]
    assert tuple(map(sum, zip(*watch.done, strict=True))) == watch.totals[0]
    assert watch.threads == {threading.get_ident()}
    assert [text for level, text in watch.notes if level < 0] == [str(damage) for damage in result.damages]


def test_interrupted_check_remembers_what_it_verified(scene, tmp_path):
    """A check that is stopped between two packs goes on there next time."""
    cancel = Cancel()

    class Stops(Watch):
        def advance(self, *, files=0, length_bytes=0):
            cancel.request("SIGINT")

    with opened(scene.backend(), tmp_path) as repo:
        with pytest.raises(Interrupted):
            run_verify(repo, EVERYTHING, progress=Stops(), cancel=cancel)
        with Verified(repo.cache_dir / MEMORY) as memory:
            assert 1 <= len(memory.times()) < 4


@pytest.mark.parametrize("piece_bytes", [1000, 70_000, 4 << 20])
def test_packs_are_read_once_in_bounded_pieces(scene, tmp_path, monkeypatch, piece_bytes):
    """Reading a pack asks for every byte once, never for more than a piece or a footer at a time."""
    monkeypatch.setattr(packs, "PIECE_BYTES", piece_bytes)
    asked = []

    class Asked(Faults):
        def get(self, name, offset=0, length=None):
            if name.startswith("packs/") and threading.current_thread().name.startswith("verify"):
                asked.append((name, offset, length))
            return super().get(name, offset, length)

    with opened(Asked(scene.backend()), tmp_path) as repo:
        assert run_verify(repo, EVERYTHING, progress=Silent(), cancel=Cancel()).damages == ()
    for name in scene.names("packs"):
        ranges = sorted((offset, length) for wanted, offset, length in asked if wanted == name and length)
        ends = [offset + length for offset, length in ranges]
        assert [offset for offset, _ in ranges] == [0, *ends[:-1]]
        assert ends[-1] == len(scene.objects[name])
    assert max(length for _, _, length in asked) <= max(piece_bytes, 150_000)


def test_too_many_slots_do_not_stop_the_check(scene, tmp_path):
    """More slots than there can be are damage like any other."""
    backend = scene.backend()
    [slot] = scene.names("keys")
    with opened(backend, tmp_path) as repo:
        for number in range(SLOTS_READ_MAX):
            backend.damage(f"keys/{number:016x}", scene.objects[slot])
        result = run_verify(repo, STRUCTURE, progress=Silent(), cancel=Cancel())
    assert [damage.name for damage in result.damages] == ["keys"]
    assert result.snapshots == 2


def test_header_that_was_replaced_under_an_open_repository_is_reported(scene, tmp_path):
    """The header is read again, and compared with the one that the keys belong to."""
    from respaldo.format.header import Header

    backend = scene.backend()
    with opened(backend, tmp_path) as repo:
        backend.damage("header", Header(repository=b"x" * 16, created_ns=0).encode())
        result = run_verify(repo, STRUCTURE, progress=Silent(), cancel=Cancel())
    assert [(damage.name, damage.reason) for damage in result.damages] == [
        ("header", "it is not the header that the repository was opened with")
    ]


def test_backups_made_meanwhile_are_no_damage(scene, tmp_path):
    """Checks and backups run at once, without locks and without a false alarm."""
    backend = scene.backend()
    source = tmp_path / "source"
    source.mkdir()
    errors = []

    def back_up():
        try:
            other = replica({})
            other._objects, other._lock = backend._objects, backend._lock
            with opened(other, tmp_path / "writer") as repo:
                for number in range(15):
                    (source / str(number)).write_bytes(bytes([number]) * 50_000)
                    run_backup(repo, [bytes(source)], BackupOptions(), progress=Silent(), cancel=Cancel())
        except BaseException as error:
            errors.append(error)
            raise

    writer = threading.Thread(target=back_up)
    writer.start()
    checks = 0
    while writer.is_alive() or not checks:
        assert verify(backend, tmp_path / "checker").damages == ()
        checks += 1
    writer.join()
    assert errors == []
    result = verify(backend, tmp_path / "checker")
    assert (result.damages, result.snapshots) == ((), 17)
    with opened(backend, tmp_path / "reader") as repo:
        assert len(load(repo).snapshots) == 17
