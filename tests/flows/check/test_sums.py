"""SHA-256 of files, computed while packs are read: of which files, in what order of chunks, and what it costs."""

from __future__ import annotations

import hashlib
import random
import threading
from dataclasses import replace

import pytest

from respaldo.backend.faults import Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.catalog.sums import FOLDER, LAYOUT, SumsKept
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import pack_object
from respaldo.core.model import Content
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.check import run, sums
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.verification import content_key
from respaldo.store.local import Environment
from respaldo.store.repo import Repo
from tests.flows.check.scenes import EVERYTHING, flipped
from tests.store.repositories import initialise, opened, replica

SUMS = VerifyOptions(read_data=True, checksums=True)
ALL = VerifyOptions(read_data=True, all_checksums=True)


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A repository of files that grew, were edited in the middle, have holes, share chunks; and their SHA-256."""
    path = tmp_path_factory.mktemp("edited")
    top = path / "source"
    top.mkdir()
    source = random.Random(5)
    body = source.randbytes(900_000)
    (top / "grown").write_bytes(body)
    (top / "edited").write_bytes(source.randbytes(700_000))
    (top / "listed").write_bytes(source.randbytes(4_000_000))
    (top / "zeros").write_bytes(bytes(3_000_000))
    (top / "small").write_bytes(b"small")
    (top / "empty").touch()
    with (top / "holes").open("wb") as file:
        file.write(b"begin" * 10_000)
        file.seek(2_500_000)
        file.write(b"end" * 1000)
        file.truncate(2_900_000)
    backend = MemoryBackend()
    initialise(backend)
    digests = {hashlib.sha256(item.read_bytes()).digest() for item in top.iterdir() if item.name != "empty"}
    with opened(backend, path / "cache") as repo:
        for number in range(2):
            options = BackupOptions(recorded_as=b"/source")
            run_backup(repo, [bytes(top)], options, progress=Silent(), cancel=Cancel())
            if not number:
                (top / "grown").write_bytes(body + source.randbytes(200_000))
                whole = (top / "edited").read_bytes()
                (top / "edited").write_bytes(whole[:300_000] + b"in the middle" + whole[300_000:])
                (top / "turned").write_bytes(body[450_000:] + body[:450_000])
                digests |= {
                    hashlib.sha256(item.read_bytes()).digest() for item in top.iterdir() if item.name != "empty"
                }
    return backend.snapshot(), digests


def listed(repo: Repo, known: SumsKept) -> list[bytes | None]:
    """What is known of each distinct content of each snapshot."""
    reader = TreeReader(repo.source)
    contents = {}
    stack = [item.manifest.root for item in load(repo).snapshots]
    while stack:
        for entry in reader.entries(stack.pop()):
            if entry.is_dir:
                stack += list(entry.content)
            elif entry.size:
                contents[entry.content.level, entry.content.ids] = entry.content
    return [known.find(content) for content in contents.values()]


def verified(objects, cache, options, wrap=lambda inner: inner):
    """A check's result, and what it learned of each content."""
    with opened(wrap(replica(objects)), cache) as repo:
        with SumsKept(repo) as known:
            result = run_verify(repo, options, progress=Silent(), cancel=Cancel(), known=known)
        with SumsKept(repo) as known:
            return result, listed(repo, known)


def test_every_content_is_computed_once(edited, tmp_path):
    """Grown, edited, listed, turned round, of zeros, with holes: what is kept is what `sha256sum` says."""
    objects, digests = edited
    result, found = verified(objects, tmp_path, SUMS)
    assert set(found) == digests
    assert (result.damages, result.checksums, result.checksums_left) == ((), len(digests), 0)


def test_what_is_known_is_not_computed_again(edited, tmp_path):
    """The second check finds nothing to do."""
    objects, digests = edited
    with opened(replica(objects), tmp_path) as repo:
        for computed in (len(digests), 0):
            with SumsKept(repo) as known:
                result = run_verify(repo, SUMS, progress=Silent(), cancel=Cancel(), known=known)
            assert result.checksums == computed


def test_check_without_them_computes_none(edited, tmp_path):
    """Neither where they were not asked for, nor where only a part is read."""
    for number, options in enumerate((EVERYTHING, VerifyOptions(checksums=True))):
        result, found = verified(edited[0], tmp_path / str(number), options)
        assert (result.checksums, set(found)) == (0, {None})


@pytest.mark.parametrize("options", [SUMS, ALL])
def test_what_would_have_to_be_read_again_is_limited(edited, tmp_path, monkeypatch, options):
    """Only as much as is allowed; what is left, here a file with holes, is counted, and computed on demand."""
    monkeypatch.setattr(run, "_REST_BYTES", 0)
    monkeypatch.setattr(run, "_REST_SHARE", 1 << 40)
    result, found = verified(edited[0], tmp_path, options)
    assert result.checksums_left == found.count(None) == (0 if options is ALL else 1)
    assert result.checksums == len(edited[1]) - result.checksums_left


@pytest.mark.parametrize("limit", ["LONGER_MAX", "RUNS_MAX", "HELD_BYTES"])
def test_limits_of_memory_cost_no_correctness(edited, tmp_path, monkeypatch, limit):
    """What was not planned for is left or read by itself, and what is computed is right."""
    monkeypatch.setattr(sums, limit, 1)
    result, found = verified(edited[0], tmp_path, SUMS)
    assert set(found) - {None} <= edited[1]
    assert bool(result.checksums_left) is (limit == "LONGER_MAX")


def test_files_that_lie_in_one_piece_are_not_read_again(scene, tmp_path):
    """Each block of a pack is asked for by the threads that verify it, and by nobody else but for trees and lists."""
    asked = []

    class Asked(Faults):
        def get(self, name, offset=0, length=None):
            if name.startswith("packs/") and not threading.current_thread().name.startswith("verify"):
                asked.append((name, offset, length))
            return super().get(name, offset, length)

    numbers = []
    for number, options in enumerate((EVERYTHING, SUMS)):
        asked.clear()
        with opened(Asked(scene.backend()), tmp_path / str(number)) as repo, SumsKept(repo) as known:
            repo.synchronise()
            result = run_verify(repo, options, progress=Silent(), cancel=Cancel(), known=known)
        numbers.append(len(asked))
    assert result.checksums == 35
    assert numbers[1] <= numbers[0] + 2, "lists, to see of what a file consists"


def test_damage_costs_the_files_that_have_it(scene, tmp_path):
    """A block that is damaged takes its files' digests, and no others; the check says what it says without them."""
    name = max(
        (name for name in scene.names("packs") if name != pack_object(scene.idle)), key=lambda n: len(scene.objects[n])
    )
    objects = dict(scene.objects)
    objects[name] = flipped(objects[name], 100)
    result, found = verified(objects, tmp_path / "one", SUMS)
    plain, _ = verified(objects, tmp_path / "other", EVERYTHING)
    assert replace(result, checksums=0, checksums_left=0) == plain
    assert len(result.damages) == 1
    affected = len({item.path for item in result.damages[0].affected})
    assert found.count(None) == affected > 0


def test_packs_may_come_in_any_order(edited, tmp_path, monkeypatch):
    """What did not come in a file's order is read afterwards; with threads or without, digests are right."""
    objects, digests = edited
    for seed in range(4):
        mixed = random.Random(seed)

        def shuffled(reader, targets, workers, mixed=mixed):
            every = list(targets)
            mixed.shuffle(every)
            return (reader.inspect(target) for target in every)

        monkeypatch.setattr(run, "inspect_all", shuffled)
        assert set(verified(objects, tmp_path / str(seed), SUMS)[1]) == digests


def test_bit_that_rots_in_the_cache_is_no_digest(edited, tmp_path):
    """It is computed again, and never told or put into the repository."""
    content, digest = Content(ids=b"C" * 32), b"D" * 32
    key = content_key(content)
    with opened(replica(edited[0]), tmp_path) as repo:
        with SumsKept(repo) as known:
            known.add(content, digest)
        kept = Environment(repo.cache_dir / FOLDER, layout=LAYOUT, databases={"rows": False, "records": False})
        with kept.read() as txn:
            row = bytearray(txn.get(key, db=kept.dbs["rows"]))
        row[3] ^= 1
        kept.write(lambda txn: txn.put(key, bytes(row), db=kept.dbs["rows"]))
        kept.close()
        with SumsKept(repo) as known:
            assert known.find(content) is None
            assert known.lacking([key]) == [0]
            known.add(content, digest)
        with SumsKept(repo) as known:
            assert known.find(content) == digest
