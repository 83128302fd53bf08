"""What a client reads that was given a right: what it wrote and what the owner moved, as far as the right goes."""

from __future__ import annotations

import os

import pytest

from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Corruption, Refused
from respaldo.format.enrolment import LIST, RESTORE
from respaldo.store.granted import GrantedRepo
from tests.store.owners import Place, content


def granted(place):
    return GrantedRepo(
        place.area,
        place.header,
        place.credential,
        cache_dir=place.path / "reader",
        clock=place.clock,
        random=os.urandom,
    )


def listed(repo, root):
    """Returns names and sizes of the files of a snapshot."""
    trees, found, stack = TreeReader(repo.source), {}, [root]
    while stack:
        for entry in trees.entries(stack.pop()):
            if entry.is_dir:
                stack.extend(entry.content)
            else:
                found[os.fsdecode(entry.name)] = entry.size
    return found


@pytest.fixture(params=[(LIST,), (RESTORE,), (LIST, RESTORE)], ids="+".join)
def place(tmp_path, request):
    found = Place(tmp_path, rights=request.param)
    found.write(a=b"a" * 5000, b=os.urandom(50_000))
    return found


def check(place, snapshots):
    """Checks that just these are there, whole, and read as far as the right goes."""
    with granted(place) as repo:
        catalogue = load(repo)
        repo.synchronise()
        assert not repo.damaged
        assert not catalogue.damaged
        assert [item.id for item in catalogue.snapshots] == [item.snapshot for item in snapshots]
        root = catalogue.snapshots[-1].manifest.root
        expected = {path.name: path.read_bytes() for path in place.source.iterdir()}
        assert listed(repo, root) == {name: len(data) for name, data in expected.items()}
        if RESTORE in place.credential.rights:
            assert content(repo, root) == expected
        else:
            with pytest.raises(Corruption):
                content(repo, root)


def test_client_reads_its_past_as_far_as_its_rights_go(place):
    """Runs that came later, too."""
    first = place.backup()
    check(place, [first])
    place.write(c=b"c")
    check(place, [first, place.backup()])


def test_client_reads_what_the_owner_moved(place):
    """A collector that copies its chunks elsewhere does not take them out of its sight."""
    first = place.backup()
    (place.source / "b").unlink()
    place.write(c=b"c")
    second = place.backup()
    with place.opened() as repo:
        repo.backend.discard([f"pending/{first.snapshot.hex()}", f"outcome/{first.snapshot.hex()}"])
    pruned = place.prune(repack_below=0.95)
    assert pruned.deleted_packs
    authors = [name for name in place.area.snapshot() if name.startswith("runs/")]
    assert len(authors) == 3
    check(place, [second])
    place.write(d=b"d")
    third = place.backup()
    assert third.manifest.figures.chunk_bytes_new < 5000
    check(place, [second, third])


def test_reader_does_not_write(place):
    """Nothing of it is sealed."""
    place.backup()
    with granted(place) as repo, pytest.raises(Refused, match="cannot write"):
        repo.vault.seal_record("marker", "sessions/x.0", b"x")


def test_runs_of_no_right_are_not_read(tmp_path):
    """A credential of the same client that claims a right gets nothing that its runs do not give."""
    from dataclasses import replace

    place = Place(tmp_path)
    place.write(a=b"a")
    place.backup()
    place.credential = replace(place.credential, rights=(LIST, RESTORE))
    with granted(place) as repo:
        assert not load(repo).snapshots
        repo.synchronise()
        assert not repo.index.packs()
