"""Areas as their owner has them: what the client wrote is there, and what it may not say is not believed."""

from __future__ import annotations

import os

import pytest

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
            from respaldo.catalog.snapshots import load

            catalogue = load(repo)
            assert [item.id for item in catalogue.snapshots] == [result.snapshot]
            assert not catalogue.damaged
            repo.synchronise()
            assert not repo.damaged
            assert content(repo, catalogue.snapshots[0].manifest.root) == {"a": data}
