"""Retention: which snapshots a policy keeps, and by which of its rules.

Pure: snapshots, policy, time and zone come in, decisions go out; no storage, no clock. Every group is decided on its
own. In a group:

- The newest snapshot is never forgotten, and where it is incomplete, neither is the newest that is complete.
- A bucket rule (last, hourly … yearly) with N keeps the newest snapshot of each of the N newest buckets that hold one,
  so at most N. Buckets are those of the calendar in the zone: an hour is told from the one that bears its name when
  clocks go back, a day has 23 to 25 hours, weeks begin on Monday (ISO 8601).
- A window rule (within, within-hourly …) does the same for all buckets of the snapshots that are no older, against the
  newest of the group and not against the present, than its span: a machine that was off for a year loses nothing.
- Nothing goes early: forgetting after every snapshot keeps what forgetting once at the end would keep. A snapshot that
  stands for a bucket goes only when a newer one stands for the same bucket, or N newer buckets hold one (or, of a
  window, when the newest of the group is further away than its span). What a finer rule lets go is thus never missing
  when a coarser one asks for it.
- Snapshots whose times are in doubt (`respaldo.catalog.arrival`) are kept and do not count, unless the caller accepts
  their times. Of clients that are not trusted, the others count in the order of the log, by the times that come of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from respaldo.catalog.arrival import Arrival, Doubt, counted_times, find_doubts
from respaldo.catalog.kinds import bucket_of
from respaldo.core.errors import Refused, UsageError
from respaldo.core.ids import SnapshotId

PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
COUNTS = ("last", *PERIODS)
"""Rules that keep a number of buckets; "last" has one for each snapshot."""
WINDOWS = ("", *PERIODS)
"""Rules that keep what lies in a span; "" keeps all of it."""
KINDS = ("snapshot", "full", "incremental")

Group = tuple[tuple[str, tuple[str, ...]], ...]
"""What the snapshots of a group have in common: pairs such as ("host", ("granja",)), ("paths", ("/home",))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Says what to keep. ``grace_ns``: so long, what it forgets stays in the trash.

    ``keep``: how many of each of `COUNTS`. ``within_ns``: the span of each of `WINDOWS`. ``tags``: any of them keeps.
    ``kinds_ns``: the span of a kind. ``sources``: the paths whose policy it is, where somebody said so. Raises
    `UsageError` for rules and numbers that do not exist.
    """

    keep: Mapping[str, int] = field(default_factory=dict)
    within_ns: Mapping[str, int] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    kinds_ns: Mapping[str, int] = field(default_factory=dict)
    grace_ns: int = 0
    sources: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        strange = [*(self.keep.keys() - set(COUNTS)), *(self.within_ns.keys() - set(WINDOWS))]
        if strange:
            raise UsageError(f"no such rule: {strange[0]}")
        if kinds := sorted(self.kinds_ns.keys() - set(KINDS)):
            raise UsageError(f"there is no kind {kinds[0]!r} to keep", hint=f"there are: {', '.join(KINDS)}")
        if min((*self.keep.values(), *self.within_ns.values(), *self.kinds_ns.values(), self.grace_ns)) < 0:
            raise UsageError("a policy cannot keep less than nothing")

    @property
    def has_rules(self) -> bool:
        """Whether it keeps anything at all."""
        return any((*self.keep.values(), *self.within_ns.values(), *self.kinds_ns.values(), self.tags))


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Is what retention knows of a snapshot. ``kind`` is the one that `respaldo.catalog.kinds.kind_of` gives."""

    arrival: Arrival
    group: Group = ()
    kind: str = ""
    tags: tuple[str, ...] = ()
    pinned: bool = False
    complete: bool = True
    """Whether everything was read."""

    @property
    def id(self) -> SnapshotId:
        """The snapshot's id."""
        return self.arrival.id

    @property
    def time_ns(self) -> int:
        """The snapshot's time."""
        return self.arrival.time_ns

    @property
    def order(self) -> tuple[int, int, bytes]:
        """What snapshots are sorted by, here and in listings."""
        return (self.arrival.time_ns, self.arrival.started_ns, self.arrival.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Is a rule that keeps a snapshot, and the bucket, tag or kind that the snapshot stands for."""

    rule: str
    of: str = ""

    def __str__(self) -> str:
        return f"{self.rule} {self.of}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Says whether a snapshot is kept (it has reasons then), and whether its time is in doubt."""

    id: SnapshotId
    group: Group
    reasons: tuple[Reason, ...]
    doubt: Doubt | None = None

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def decide(
    candidates: Iterable[Candidate],
    policy: Policy,
    *,
    zone: tzinfo,
    now_ns: int,
    accept_times: bool = False,
    only: Group | None = None,
) -> tuple[Decision, ...]:
    """Returns a decision for every snapshot (with ``only``, of that group), group by group, by time.

    ``accept_times``: doubts are reported and nothing more. Raises `UsageError` for a policy without rules, `Refused`
    where its rules would keep nothing of a group.
    """
    if not policy.has_rules:
        raise UsageError(
            "the policy would keep nothing", hint="give it a rule, such as --keep-last 3 or --keep-daily 7"
        )
    groups: defaultdict[Group, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[candidate.group].append(candidate)
    arrivals = [item.arrival for items in groups.values() for item in items]
    doubts = find_doubts(arrivals, now_ns)
    times = {} if accept_times else counted_times(arrivals, doubts)
    decisions: list[Decision] = []
    for group in sorted(groups) if only is None else [only] if only in groups else []:
        members = sorted((_at(item, times) for item in groups[group]), key=lambda item: item.order)
        counted = [item for item in members if accept_times or item.id not in doubts]
        reasons = _reasons(counted[::-1], policy, zone)
        for item in members:
            if item.pinned:
                reasons[item.id].insert(0, Reason(rule="pinned"))
            if not accept_times and item.id in doubts:
                reasons[item.id].append(Reason(rule="doubt", of=doubts[item.id]))
        if not any(reasons.values()):
            raise Refused(
                f"the policy would keep none of the {len(members)} snapshots of {describe(group)}",
                hint="add a rule that always keeps something, such as --keep-last 1",
            )
        if counted and not reasons[counted[-1].id]:
            reasons[counted[-1].id].append(Reason(rule="newest"))
        complete = next((item for item in reversed(counted) if item.complete), None)
        if complete is not None and not reasons[complete.id]:
            reasons[complete.id].append(Reason(rule="complete"))
        decisions += [
            Decision(id=item.id, group=group, reasons=tuple(reasons[item.id]), doubt=doubts.get(item.id))
            for item in members
        ]
    return tuple(decisions)


def _at(item: Candidate, times: Mapping[SnapshotId, int]) -> Candidate:
    """Returns a snapshot at the time that it counts by, of several at one time in the order of the log."""
    time_ns, told = times.get(item.id), item.arrival.told
    if time_ns is None or told is None:
        return item
    return replace(item, arrival=replace(item.arrival, time_ns=time_ns, started_ns=told.place))


def keep_all(candidates: Iterable[Candidate]) -> tuple[Decision, ...]:
    """Returns what is decided of snapshots where there is no policy."""
    return tuple(
        Decision(id=item.id, group=item.group, reasons=(Reason(rule="no", of="policy"),))
        for item in sorted(candidates, key=lambda item: (item.group, item.order))
    )


def describe(group: Group) -> str:
    """Returns a group in words."""
    return ", ".join(" ".join(values) for _, values in group if values) or "the repository"


def newest_of_each(candidates: Iterable[Candidate], period: str, zone: tzinfo) -> dict[SnapshotId, str]:
    """Returns the snapshots that stand for a bucket in their group, and the bucket: what a view shows."""
    found: dict[tuple[Group, str], Candidate] = {}
    for item in sorted(candidates, key=lambda item: item.order):
        found[item.group, bucket_of(period, item.time_ns, zone)] = item
    return {item.id: bucket for (_, bucket), item in found.items()}


def _reasons(newest_first: Sequence[Candidate], policy: Policy, zone: tzinfo) -> defaultdict[SnapshotId, list[Reason]]:
    """Returns by which rules each of the snapshots of a group that count is kept."""
    reasons: defaultdict[SnapshotId, list[Reason]] = defaultdict(list)
    if not newest_first:
        return reasons
    for number, item in enumerate(newest_first[: policy.keep.get("last", 0)], 1):
        reasons[item.id].append(Reason(rule="last", of=str(number)))
    newest_ns = newest_first[0].time_ns
    if span_ns := policy.within_ns.get("", 0):
        for item in newest_first:
            if newest_ns - item.time_ns <= span_ns:
                reasons[item.id].append(Reason(rule="within"))
    for period in PERIODS:
        count, span_ns = policy.keep.get(period, 0), policy.within_ns.get(period, 0)
        if not count and not span_ns:
            continue
        seen: set[str] = set()
        for item in newest_first:
            bucket = bucket_of(period, item.time_ns, zone)
            if bucket in seen:
                continue
            seen.add(bucket)
            if len(seen) <= count:
                reasons[item.id].append(Reason(rule=period, of=bucket))
            if span_ns and newest_ns - item.time_ns <= span_ns:
                reasons[item.id].append(Reason(rule=f"within-{period}", of=bucket))
    for item in newest_first:
        reasons[item.id] += [Reason(rule="tag", of=tag) for tag in policy.tags if tag in item.tags]
        span_ns = policy.kinds_ns.get(item.kind, 0)
        if span_ns and newest_ns - item.time_ns <= span_ns:
            reasons[item.id].append(Reason(rule="kind", of=item.kind))
    return reasons
