"""Retention on a repository: plans and applies policies, forgets, pins, and brings back what is in the trash.

A plan is a value: what `--dry-run` prints is what the run would do. Between plan and deed only pins are looked at
again: whatever else changes meanwhile is new, and a plan takes nothing that it has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from respaldo.catalog import protection
from respaldo.catalog.arrival import Arrival
from respaldo.catalog.kinds import kind_of
from respaldo.catalog.retention import (
    Candidate,
    Decision,
    Group,
    Policy,
    Reason,
    decide,
    keep_all,
    newest_of_each,
)
from respaldo.catalog.selectors import Chosen, Context, choose, need_exact, parse_selector
from respaldo.catalog.snapshots import (
    SAFETY,
    Catalogue,
    Snapshot,
    announce_forgetting,
    identity,
    pending_name,
)
from respaldo.catalog.told import Commits, read_commits
from respaldo.core.errors import Corruption, NoSuchSnapshot, Refused, UsageError
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel
from respaldo.format.protection import Trashed
from respaldo.format.snapshot import Manifest
from respaldo.store.owned import OwnedArea
from respaldo.store.repo import Repo

GROUPINGS = ("host", "paths", "tags")
GROUP_BY = ("host", "paths")
Changed = tuple[tuple[Snapshot, ...], tuple[Snapshot, ...]]
"""The snapshots that were named, and those of them that something changed for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Is a snapshot and what is decided of it."""

    snapshot: Snapshot
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """Says of every snapshot whether a policy keeps it, group by group, by time."""

    policy: Policy
    items: tuple[Planned, ...]
    damaged: tuple[Corruption, ...] = ()
    """What could not be read when it was made: manifests of snapshots that it knows nothing of, and leaves alone."""

    @property
    def groups(self) -> dict[Group, list[Planned]]:
        """The snapshots by what they have in common."""
        found: dict[Group, list[Planned]] = {}
        for item in self.items:
            found.setdefault(item.decision.group, []).append(item)
        return found

    @property
    def forgotten(self) -> tuple[Snapshot, ...]:
        """What goes, the oldest first."""
        found = (item.snapshot for item in self.items if not item.decision.kept)
        return tuple(sorted(found, key=lambda item: item.order))

    @property
    def doubtful(self) -> tuple[Planned, ...]:
        """The snapshots whose times are in doubt."""
        return tuple(item for item in self.items if item.decision.doubt is not None)

    def taking_only(self, wanted: Collection[SnapshotId]) -> RetentionPlan:
        """Returns a plan that spares all but some of what goes by this one."""
        return replace(
            self,
            items=tuple(
                item
                if item.decision.kept or item.snapshot.id in wanted
                else replace(item, decision=replace(item.decision, reasons=(Reason(rule="spared"),)))
                for item in self.items
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InTrash:
    """Is a snapshot in the trash."""

    snapshot: Snapshot
    record: Trashed


def candidates(
    items: Iterable[Snapshot],
    *,
    group_by: Collection[str] = GROUP_BY,
    pins: Collection[SnapshotId] = (),
    repo: Repo | None = None,
) -> Iterator[Candidate]:
    """Yields what retention wants to know of snapshots; of ``repo`` it asks when they were stored."""
    strange = set(group_by) - set(GROUPINGS)
    if strange:
        raise UsageError(
            f"snapshots cannot be grouped by {min(strange)!r}", hint="by host, paths, tags, or several of them"
        )
    stored = repo.backend.arrivals("pending") if repo is not None else {}
    commits = read_commits(repo) if isinstance(repo, OwnedArea) else None
    for item in items:
        manifest = item.manifest
        shared = {
            "host": (manifest.host,),
            "paths": tuple(sorted(source.decode("utf-8", "surrogateescape") for source in manifest.sources)),
            "tags": tuple(sorted(manifest.tags)),
        }
        yield Candidate(
            arrival=Arrival(
                id=item.id,
                time_ns=manifest.time_ns,
                started_ns=manifest.started_ns,
                ended_ns=manifest.ended_ns,
                parent=manifest.parent,
                # One that stands for another came long after that one had: its arrival says nothing.
                stored_ns=None
                if _stands_for_another(manifest, repo) and not _is_of_client(item, commits)
                else stored.get(pending_name(item.id)),
                by_log=_is_of_client(item, commits),
                told=commits.told.get(item.id) if commits is not None else None,
            ),
            group=tuple(
                # What restores put away is no day's or week's snapshot: it must not push one of those out.
                (name, shared[name])
                for name in GROUPINGS
                if name in group_by or (name == "tags" and SAFETY in manifest.tags)
            ),
            kind=kind_of(manifest.kind, manifest.parent),
            tags=manifest.tags,
            pinned=item.id in pins,
            complete=not manifest.figures.errors,
        )


def _is_of_client(item: Snapshot, commits: Commits | None) -> bool:
    """Whether a snapshot is of a client that is not trusted: in an area, all that its owner has not made."""
    return commits is not None and item.id not in commits.by_owner


def _stands_for_another(manifest: Manifest, repo: Repo | None) -> bool:
    carried_over = repo is not None and manifest.origin is not None and manifest.origin[0] == repo.header.repository
    return bool(manifest.rewrites or manifest.repairs or carried_over)


def view(items: Sequence[Snapshot], period: str, zone: tzinfo) -> list[tuple[Snapshot, str]]:
    """Returns the snapshots that stand for an hour, day, week, month or year of their host and paths, and which."""
    found = newest_of_each(candidates(items), period, zone)
    return [(item, found[item.id]) for item in items if item.id in found]


def plan_retention(
    repo: Repo,
    catalogue: Catalogue,
    policy: Policy | None,
    *,
    zone: tzinfo,
    group_by: Collection[str] = GROUP_BY,
    accept_times: bool = False,
    only_like: SnapshotId | None = None,
) -> RetentionPlan:
    """Decides what a policy keeps of what is shown, without one everything.

    ``only_like``: of the group of that snapshot alone. Raises `UsageError`, `Refused` as `decide` does.
    """
    pins = protection.list_pins(repo)
    same = _same(repo, catalogue.snapshots)
    first = {item.id: like[0].id for like in same for item in like}
    pins |= {first[item] for item in pins if item in first}
    found = list(candidates((like[0] for like in same), group_by=group_by, pins=pins, repo=repo))
    if policy is None:
        decisions = keep_all(found)
    else:
        decisions = decide(
            found,
            policy,
            zone=zone,
            now_ns=repo.clock.now_ns(),
            accept_times=accept_times,
            only=next((item.group for item in found if item.id == first.get(only_like)), ()) if only_like else None,
        )
    likes = {like[0].id: like for like in same}
    items = tuple(
        Planned(snapshot=item, decision=replace(decision, id=item.id))
        for decision in decisions
        for item in likes[decision.id]
    )
    return RetentionPlan(policy=policy or Policy(), items=items, damaged=catalogue.damaged)


def _same(repo: Repo, items: Iterable[Snapshot]) -> list[list[Snapshot]]:
    """Returns snapshots, together those that are one.

    While snapshots are carried over to another master key, or where that was cut off, they are there twice: each counts
    once, and goes or stays as one. In the area of a client, whose word that is, none is.
    """
    found: dict[object, list[Snapshot]] = {}
    for item in items:
        key = item.id if isinstance(repo, OwnedArea) else identity(repo, item.id, item.manifest)
        found.setdefault(key, []).append(item)
    return list(found.values())


def apply_retention(repo: Repo, plan: RetentionPlan, *, cancel: Cancel) -> tuple[Snapshot, ...]:
    """Forgets what a plan says, the oldest first, or puts it into the trash; returns what went.

    What was pinned since the plan was made stays, also where it is pinned while others go.
    """
    pins = protection.list_pins(repo)
    going = tuple(item for item in plan.forgotten if item.id not in pins)
    return _take(repo, going, plan.policy.grace_ns, cancel=cancel)


def _take(repo: Repo, going: Iterable[Snapshot], grace_ns: int, *, cancel: Cancel) -> tuple[Snapshot, ...]:
    gone: list[Snapshot] = []
    going = list(going)
    if not grace_ns:
        cancel.check()
        announce_forgetting(repo, [item.id for item in going])
    for item in going:
        cancel.check()
        went = protection.put_in_trash(repo, item.id, grace_ns) if grace_ns else protection.take_away(repo, item.id)
        if went:  # else it was pinned since they were looked through, which may be long ago
            gone.append(item)
    return tuple(gone)


def find_all(
    catalogue: Catalogue, names: Iterable[str], context: Context, *, trash: bool = False, strict: bool = False
) -> tuple[Chosen, ...]:
    """Returns the snapshots that names mean, each once; with ``trash`` also, by id or label, what is in the trash.

    ``strict``: for what cannot be undone. A time then means a snapshot only where it is the one that lies in the day,
    minute or second that was named; else `Refused` says which one it would have been.
    """
    found: dict[SnapshotId, Chosen] = {}
    apart = Catalogue(snapshots=catalogue.trash, undecided=(), damaged=())
    for name in names:
        try:
            item = choose(catalogue, name, context)
        except NoSuchSnapshot as error:
            if not trash or error.several or parse_selector(name, context) is not None:
                raise
            item = Chosen(name=name, snapshot=apart.find(name))
        if strict:
            need_exact(catalogue, item, context)
        found.setdefault(item.snapshot.id, item)
    return tuple(found.values())


def forget_named(
    repo: Repo,
    catalogue: Catalogue,
    names: Iterable[str],
    context: Context,
    *,
    grace_ns: int,
    dry_run: bool,
    cancel: Cancel,
) -> tuple[Snapshot, ...]:
    """Forgets snapshots, all or, where one of them is pinned, none; what is in the trash already goes for good."""
    items = tuple(item.snapshot for item in find_all(catalogue, names, context, trash=True, strict=True))
    pins = protection.list_pins(repo)
    for item in items:
        if item.id in pins:
            raise _pinned(item, "is pinned")
    if dry_run:
        return items
    apart = {item.id for item in catalogue.trash}
    for_good = [item for item in items if item.id in apart]
    gone = {item.id for item in _take(repo, for_good, 0, cancel=cancel)}
    gone |= {item.id for item in _take(repo, [item for item in items if item.id not in apart], grace_ns, cancel=cancel)}
    for item in items:
        if item.id not in gone:
            raise _pinned(item, "has just been pinned by another run: it stays")
    return items


def _pinned(item: Snapshot, how: str) -> Refused:
    return Refused(f"snapshot {item.hex[:8]} {how}", hint=f"take the pin away first: respaldo unpin {item.hex[:8]}")


def pin(repo: Repo, catalogue: Catalogue, names: Iterable[str], context: Context, reason: str = "") -> Changed:
    """Pins snapshots; returns them, and those that were not pinned before."""
    items = tuple(item.snapshot for item in find_all(catalogue, names, context))
    return items, tuple(item for item in items if protection.pin(repo, item.id, reason))


def unpin(repo: Repo, catalogue: Catalogue, names: Iterable[str], context: Context) -> Changed:
    """Takes pins away; returns the snapshots, and those that had one."""
    items = tuple(item.snapshot for item in find_all(catalogue, names, context, trash=True, strict=True))
    return items, tuple(item for item in items if protection.unpin(repo, item.id))


def trash(repo: Repo, catalogue: Catalogue) -> tuple[InTrash, ...]:
    """Lists what is in the trash."""
    records = protection.load_trash(repo).records
    return tuple(InTrash(snapshot=item, record=records[item.id]) for item in catalogue.trash if item.id in records)


def undo(repo: Repo, catalogue: Catalogue, names: Iterable[str], context: Context) -> tuple[Snapshot, ...]:
    """Brings snapshots back out of the trash; returns them."""
    apart = Catalogue(snapshots=catalogue.trash, undecided=(), damaged=())
    try:
        items = tuple(item.snapshot for item in find_all(apart, names, context))
    except NoSuchSnapshot as error:
        error.hint = "list what can be brought back with: respaldo snapshots --trash; without --grace, none can be"
        raise
    for item in items:
        protection.take_back(repo, item.id)
    return items
