"""Areas as their owner has them: what the client wrote is there, and what it may not say is not believed."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from respaldo.catalog.snapshots import announce_forgetting, load
from respaldo.catalog.snapshots import forget as take
from respaldo.core.errors import Corruption
from respaldo.format.header import close_object
from respaldo.store import sweep
from respaldo.store.owned import NOTICES_MAX
from tests.store.owners import Place, content


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_owner_reads_what_the_client_wrote(place):
    """With and without what was read before."""
    data = os.urandom(50_000)
    place.write(a=data)
    result = place.backup()
    for fresh in (False, True):
        with place.opened(fresh=fresh) as repo:
            catalogue = load(repo)
            assert [item.id for item in catalogue.snapshots] == [result.snapshot]
            assert not catalogue.damaged
            repo.synchronise()
            assert not repo.damaged
            assert content(repo, catalogue.snapshots[0].manifest.root) == {"a": data}


# --- collecting, and the client that goes on ---


def forget(repo, snapshot):
    announce_forgetting(repo, [snapshot])
    take(repo, snapshot)


def half_forgotten(place):
    """Stores two files that share a pack with one that the next snapshot lacks; forgets the first snapshot."""
    big, other = os.urandom(300_000), os.urandom(300_000)
    place.write(a=big, b=other)
    first = place.backup()
    (place.source / "b").unlink()
    place.write(c=b"new")
    second = place.backup()
    with place.opened() as repo:
        forget(repo, first.snapshot)
    return big, second


def test_collector_tells_before_it_condemns(place):
    """What was repacked, the client finds again without uploading it; what is gone, it stores anew."""
    big, second = half_forgotten(place)
    before = set(place.area.snapshot())
    pruned = place.prune(repack_below=0.9)
    assert pruned.deleted_packs
    notices = [name for name in place.area.snapshot() if name.startswith("notices/")]
    assert len(notices) == 1
    names = list(place.area.snapshot())
    assert set(names) - before
    place.write(d=b"more")
    third = place.backup()
    assert third.manifest.figures.chunk_bytes_new < 5000
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, third.manifest.root)["a"] == big
        assert content(repo, second.manifest.root)["a"] == big


def test_condemnation_comes_after_its_notice(place):
    """In the order of puts."""
    half_forgotten(place)
    order = []
    put = place.area.put

    def noting(name, pieces):
        order.append(name)
        put(name, pieces)

    place.area.put = noting
    place.prune(repack_below=0.9)
    condemned = [name for name in order if name.startswith("condemned/")]
    assert condemned
    for name in condemned:
        assert order.index(name.replace("condemned/", "notices/")) < order.index(name)


def test_client_that_misses_a_notice_loses_nothing(place):
    """It stores everything anew, and relies on nothing."""
    big, _ = half_forgotten(place)
    with place.opened() as repo:
        repo.synchronise()
        packs = [pack.name for pack in repo.index.packs()]
        sweep.Sentence.pass_on(repo, b"c" * 16, packs)
    for name in [name for name in place.area.snapshot() if name.startswith("notices/")]:
        place.area.delete(name)
    place.write(d=b"more")
    third = place.backup()
    assert third.manifest.figures.chunk_bytes_new > len(big)
    place.prune()
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, third.manifest.root)["a"] == big


def test_notices_become_one(place):
    """However often a collector ran, few are left; and a client that has seen none finds what was moved."""
    big, _ = half_forgotten(place)
    place.prune(repack_below=0.9)
    for number in range(NOTICES_MAX + 1):
        place.write(d=os.urandom(2000))
        result = place.backup()
        with place.opened() as repo:
            forget(repo, result.snapshot)
        place.prune()
        assert sum(name.startswith("notices/") for name in place.area.snapshot()) <= NOTICES_MAX + 1, number
    place.write(d=b"last")
    again = place.backup()
    assert again.manifest.figures.chunk_bytes_new < 5000
    elsewhere = place.backup(machine="reinstalled")
    assert elsewhere.manifest.figures.chunk_bytes_new < 10_000
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, elsewhere.manifest.root)["a"] == big


def test_many_runs_are_gathered(place):
    """Snapshots that no client can roll up, and packs that stand in no segment, are rolled and listed by the owner."""
    for number in range(17):
        place.write(a=b"%d" % number)
        place.backup()
    place.prune()
    names = list(place.area.snapshot())
    assert sum(name.startswith("catalogue/") for name in names) == 1
    with place.opened(fresh=True) as repo:
        listing = repo.synchronise()
        assert repo.segments.packs_listed() == listing.packs.keys()
    assert len(place.listed(fresh=True).snapshots) == 17


@pytest.mark.parametrize("harm", ["torn", "whole"])
def test_configuration_is_changed_as_it_is_read(place, harm):
    """Past what whoever can write to storage has put there: the owner's newest one counts, and gets a successor."""
    garbage = b"\xc1" * 200
    place.area.put("config/0000000000000005", [close_object(garbage) if harm == "whole" else garbage])
    with place.opened() as repo:
        repo.configure(lambda config: replace(config, level=7))
        assert repo.config.level == 7
    with place.opened(fresh=True) as repo:
        assert repo.config.level == 7
    assert "config/0000000000000006" in place.area.snapshot()


def test_configuration_that_nothing_can_come_after_is_named(place):
    """Instead of a change that is put under a name that nobody reads."""
    place.area.put("config/" + "f" * 16, [b"x"])
    with place.opened() as repo, pytest.raises(Corruption, match="f" * 16):
        repo.configure(lambda config: replace(config, level=7))
