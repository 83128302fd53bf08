"""What a new snapshot follows, and what it is called: its parent, its kind and its label, among those that are seen.

A source is known by its paths and the host. Reads manifests, as few as it takes, and touches no storage.
"""

from __future__ import annotations

from respaldo.catalog.kinds import is_near, kind_by_rule
from respaldo.catalog.labels import next_label
from respaldo.catalog.snapshots import Catalogue, Snapshot, ordinary
from respaldo.flows.backup.options import BackupOptions


def parent_of(catalogue: Catalogue, host: str, sources: tuple[bytes, ...]) -> Snapshot | None:
    """Returns the latest snapshot of a source; what a restore put away for safety is none."""
    return next((item for item in reversed(ordinary(catalogue.snapshots)) if item.is_of(host, sources)), None)


def kind_and_label(
    catalogue: Catalogue, options: BackupOptions, sources: tuple[bytes, ...], time_ns: int
) -> tuple[str, str]:
    """Returns kind and label of a snapshot of a source: those that were asked for, else by rule."""
    snapshots = catalogue.snapshots
    others_ns = (
        item.time_ns
        for item in reversed(ordinary(snapshots))
        if is_near(time_ns, item.time_ns) and item.is_of(options.host, sources)
    )
    kind = options.kind or kind_by_rule(time_ns, others_ns, options.zone)
    label = options.label or next_label(
        snapshots, host=options.host, sources=sources, bump=options.bump, time_ns=time_ns, zone=options.zone
    )
    return kind, label
