"""Catalogues: read into the cache by a client that lacks many manifests, written and merged by whoever made snapshots.

Invariant: what is written is what this client read and checked itself, from manifest and outcome or from its cache of
them; it is durable before anybody relies on it. What is read never makes a snapshot: listings do. Never deletes
anything: says what a collector may delete. Implements docs/format.md, "Catalogue" and "Merging".
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Mapping
from functools import partial

from respaldo.catalog.decided import Decided, cached, commit_of, keep
from respaldo.core.errors import Corruption, ObjectExists, RespaldoError
from respaldo.core.ids import RANDOM_ID_BYTES, CatalogueName, SnapshotId, catalogue_object, parse_leaves
from respaldo.format.catalogue import CATALOGUE_BYTES_MAX, Roll, Row, parse_roll
from respaldo.store.merged import Standing, Unread, list_hashes
from respaldo.store.repo import Repo
from respaldo.store.several import read_several
from respaldo.store.tiers import Extent, plan

FOLDER = "catalogue"


def read_roll(repo: Repo, name: CatalogueName) -> Roll:
    """Reads a catalogue; raises `Corruption`. For any thread."""
    what = catalogue_object(name)
    data = repo.backend.get_whole(what, CATALOGUE_BYTES_MAX)
    if hashlib.sha256(data).digest() != name:
        raise Corruption(what, "its bytes do not have its name")
    return parse_roll(repo.vault.open_catalogue(data, what), what)


def list_rolls(repo: Repo) -> dict[CatalogueName, int]:
    """Lists catalogues: their sizes in bytes."""
    return {CatalogueName(name): size for name, size in list_hashes(repo.backend, FOLDER).items()}


def apply_rolls(
    repo: Repo, entries: Mapping[SnapshotId, Decided], decided: Collection[SnapshotId]
) -> tuple[dict[SnapshotId, Decided], list[RespaldoError]]:
    """Reads the catalogues that are new, and caches what they say of decided snapshots that ``entries`` lack.

    ``decided``: snapshots whose manifest and outcome were both listed before this call. Of those in ``entries`` it
    notes that a catalogue repeats them, where it does so rightly. Returns what was cached, and what is damaged.
    """
    standing = Standing(repo.index, FOLDER)
    known = standing.load()
    reading = _Reading(repo, entries, decided, known)
    stood = {name for name, extent in known.items() if extent is not None}
    if stood - reading.there.keys() - reading.superseded:
        # One is gone, and nothing in sight supersedes it: what it repeated may be repeated nowhere any more.
        known = {}
        unrolled = {snapshot: item._replace(rolled=False) for snapshot, item in entries.items()}
        reading = _Reading(repo, unrolled, decided, known)
        reading.found = {**{key: item for key, item in unrolled.items() if item != entries[key]}, **reading.found}
    keep(repo.index, reading.found)  # before the catalogues count as read
    gone = stood - reading.there.keys()
    if reading.extents or reading.passed_over or gone:
        standing.note(reading.extents, reading.passed_over, gone)
    return reading.found, reading.damaged


class _Reading:
    """Is one pass over the catalogues that are not known: what they say, and which of them stand."""

    def __init__(
        self,
        repo: Repo,
        entries: Mapping[SnapshotId, Decided],
        decided: Collection[SnapshotId],
        known: Collection[bytes],
    ) -> None:
        self.found: dict[SnapshotId, Decided] = {}
        self.damaged: list[RespaldoError] = []
        self.extents: dict[CatalogueName, Extent] = {}
        names = set(map(CatalogueName, known))
        unread = Unread(partial(list_rolls, repo), partial(read_roll, repo), names, self.damaged)
        for name, roll in unread:
            self.extents[name] = _extent(roll.rows)
            for row in roll.rows:
                self._take(name, row, entries, decided)
        self.there = unread.there
        self.superseded = unread.superseded
        self.passed_over = unread.passed_over()
        for name in self.passed_over:
            self.extents.pop(name, None)

    def _take(
        self, name: CatalogueName, row: Row, entries: Mapping[SnapshotId, Decided], decided: Collection[SnapshotId]
    ) -> None:
        have = self.found.get(row.snapshot) or entries.get(row.snapshot)
        if have is None:
            if row.snapshot in decided:
                try:
                    what = catalogue_object(name)
                    self.found[row.snapshot] = commit_of(row.manifest, row.pending_hash, what, rolled=True)
                except Corruption as error:
                    self.damaged.append(error)
        elif have.committed and not have.rolled and row == row_of(row.snapshot, have):
            self.found[row.snapshot] = have._replace(rolled=True)


def row_of(snapshot: SnapshotId, entry: Decided) -> Row:
    """Returns the row that repeats a committed snapshot."""
    return Row(snapshot=snapshot, pending_hash=entry.pending_hash, manifest=entry.manifest)


def roll(repo: Repo, snapshots: Collection[SnapshotId]) -> CatalogueName | None:
    """Puts one catalogue for many snapshots and catalogues where there are many; returns its name.

    ``snapshots``: those that are committed, listed, and in the cache.
    """
    entries = {snapshot: entry for snapshot, entry in cached(repo.index) if snapshot in snapshots and entry.committed}
    found, _ = apply_rolls(repo, entries, ())
    entries.update(found)
    standing = Standing(repo.index, FOLDER)
    there = list_rolls(repo)
    loose = {snapshot: entry for snapshot, entry in entries.items() if not entry.rolled}
    objects = standing.extents(there)
    objects.update({snapshot: Extent(1, len(entry.manifest)) for snapshot, entry in loose.items()})
    chosen = set(plan(objects))
    if not chosen:
        return None
    members = {snapshot for snapshot in loose if snapshot in chosen}
    supersedes: set[CatalogueName] = set()
    old = [CatalogueName(name) for name in sorted(chosen - members)]
    for name, merged in read_several(partial(read_roll, repo), old):
        if isinstance(merged, RespaldoError):  # another's collector, or damage, for others to report
            standing.note({}, gone=[name])
            return None
        supersedes |= {name, *(there.keys() & set(merged.supersedes))}
        members.update(row.snapshot for row in merged.rows if row.snapshot in entries)
    rows = tuple(row_of(snapshot, entries[snapshot]) for snapshot in sorted(members))
    made = Roll(rows=rows, supersedes=tuple(sorted(supersedes)))
    longest = max((there[name] for name in supersedes), default=0)
    name, data = repo.vault.seal_catalogue(made.encode(), longer_than=longest)
    with contextlib.suppress(ObjectExists):
        repo.backend.put(catalogue_object(name), [data])
    keep(repo.index, {snapshot: entries[snapshot]._replace(rolled=True) for snapshot in members})
    standing.note({name: _extent(rows)}, passed_over=supersedes)
    return name


def superseded_rolls(repo: Repo) -> frozenset[CatalogueName]:
    """Returns the catalogues that may be deleted: all that one which was just read supersedes, or that say nothing.

    Lists manifests last, so that one that is not listed has been deleted.
    """
    unread = Unread(partial(list_rolls, repo), partial(read_roll, repo), (), [])
    held = {name: [row.snapshot for row in merged.rows] for name, merged in unread}
    leaves = parse_leaves(repo.backend.names("pending"), RANDOM_ID_BYTES)
    pending = {SnapshotId(leaf) for leaf in leaves if leaf is not None}
    empty = {name for name, snapshots in held.items() if pending.isdisjoint(snapshots) and name in unread.there}
    return frozenset(unread.passed_over() | empty)


def _extent(rows: Collection[Row]) -> Extent:
    return Extent(len(rows), sum(len(row.manifest) for row in rows))
