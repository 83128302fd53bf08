"""Copying between two open repositories, while others are at work in both."""

from __future__ import annotations

from dataclasses import replace

from respaldo.api.copying import extra_in
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.core.ids import SnapshotId
from tests.catalog.test_snapshots import MANIFEST, snapshot

HERE = b"h" * 16


class Listed:
    """Lists snapshots, and lets others act before it does."""

    def __init__(self, repository=b"o" * 16):
        self.id = repository.hex()
        self.items = []
        self.meanwhile = lambda: None

    def add(self, number, origin=None):
        manifest = replace(MANIFEST, origin=origin)
        item = Snapshot(id=SnapshotId(snapshot(number)), encoded=manifest.encode(), time_ns=1, started_ns=1)
        self.items.append(item)

    def snapshots(self):
        self.meanwhile()
        return Catalogue(snapshots=tuple(self.items), undecided=(), damaged=())


def test_what_another_run_has_just_copied_is_not_extra():
    """It was made in the source, and copied, while this run looked: the target is listed before the source is."""
    source, target = Listed(HERE), Listed()
    source.add(1)
    target.add(11, (HERE, snapshot(1)))
    target.add(12, (HERE, snapshot(2)))

    def another():
        source.add(3)
        target.add(13, (HERE, snapshot(3)))

    target.meanwhile = another
    assert [item.id for item in extra_in(source, target)] == [snapshot(12)]
