"""Policies on the command line: the options that say what to keep, and a plan as people and programs read it.

Shared by `forget` and `prune`: `keep_options` adds the options, `policy_of` makes a policy of them (none where none was
given), `run_policy` plans and, unless it is a dry run, applies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from respaldo.cli import show
from respaldo.cli.named import named
from respaldo.cli.values import SPAN, ZONE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Planned, Policy, Repository, RetentionPlan, Shares, Snapshot
    from respaldo.core.ids import SnapshotId
    from respaldo.core.seams import Cancel

F = TypeVar("F", bound=Callable[..., Any])

_PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")
_WORDS = {"hourly": "hour", "daily": "day", "weekly": "week", "monthly": "month", "yearly": "year"}
NOTES = (
    "policy: keep, within_s, tags, kinds_s, grace_s. groups: a list of host, paths, tags (those that --group-by names) "
    "and snapshots: a list of id, time, kept, rules (a list of rule and of), pinned, doubt (null, or why its time is "
    "not believed), frees_bytes (what goes with it and no other; null where it was not computed). kept: how many. "
    "forgotten: ids. frees_bytes: what goes with all of these together, or null. dry_run."
)
"""The keys of `fields`."""


def keep_options(function: F) -> F:
    """Adds the options that say what a policy keeps."""
    for option in reversed(_options()):
        function = option(function)
    return function


def _options() -> list[Callable[[F], F]]:
    count = click.IntRange(min=0, max=1_000_000)
    options = [
        click.option(
            "--policy",
            "policy_name",
            default="",
            metavar="NAME",
            help="Keep by a named policy: standard (7 daily, 4 weekly, 12 monthly, 5 yearly), aggressive (the last, "
            "3 daily, 2 weekly, 3 monthly), archive (30 daily, 26 weekly, 60 monthly, 100 yearly), one of "
            "~/.config/respaldo/policies.toml (or RESPALDO_POLICIES), or FILE or FILE:NAME, a TOML file. The options "
            "below replace rules of it.",
        ),
        click.option("--keep-last", type=count, metavar="N", help="Keep the newest N."),
    ]
    options += [
        click.option(
            f"--keep-{period}",
            type=count,
            metavar="N",
            help=f"Keep the newest of each of the newest N {_WORDS[period]}s that have one.",
        )
        for period in _PERIODS
    ]
    options.append(
        click.option(
            "--keep-within", type=SPAN, metavar="SPAN", help="Keep all within 30d (36h, 12w, 6m, 5y) of the newest."
        )
    )
    options += [
        click.option(
            f"--keep-within-{period}",
            type=SPAN,
            metavar="SPAN",
            help=f"Keep the newest of each {_WORDS[period]} within it.",
        )
        for period in _PERIODS
    ]
    return [
        *options,
        click.option("--keep-tag", multiple=True, metavar="TAG", help="Keep all that have the tag (repeatable)."),
        click.option(
            "--keep-kind",
            default="",
            metavar="KIND=SPAN,…",
            help="Keep those of a kind for a span: incremental=7d,full=30d,snapshot=12w. By rule, the first of a week "
            "is a snapshot, the first of any other day full, all others incremental.",
        ),
        click.option(
            "--group-by",
            default="host,paths",
            show_default=True,
            metavar="FIELDS",
            help="Decide for each host and set of paths on its own; of host, paths, tags, or empty for all together.",
        ),
        click.option(
            "--grace",
            type=SPAN,
            metavar="SPAN",
            help="Leave what is forgotten in the trash for so long (7d); see undo.",
        ),
        click.option(
            "--accept-times",
            is_flag=True,
            help="Believe times that contradict the clock, the storage or other snapshots. Else such snapshots are "
            "kept, and do not count.",
        ),
        click.option(
            "--time-zone",
            type=ZONE,
            default="local",
            metavar="ZONE",
            help="Whose hours, days and weeks: local (the default), UTC, Europe/Madrid.",
        ),
    ]


def policy_of(given: Mapping[str, Any]) -> Policy | None:
    """Returns the policy that options describe, None where they name no rule."""
    from respaldo.api import Policy  # start-up time

    base = named(given["policy_name"]) if given["policy_name"] else Policy()
    keep = {rule: given[f"keep_{rule}"] for rule in ("last", *_PERIODS)}
    within = {"": given["keep_within"], **{period: given[f"keep_within_{period}"] for period in _PERIODS}}
    said = any(value is not None for value in (*keep.values(), *within.values()))
    if not (said or given["policy_name"] or given["keep_tag"] or given["keep_kind"]):
        return None
    return Policy(
        keep={**base.keep, **{rule: count for rule, count in keep.items() if count is not None}},
        within_ns={**base.within_ns, **{period: span for period, span in within.items() if span is not None}},
        tags=given["keep_tag"] or base.tags,
        kinds_ns=_kinds(given["keep_kind"]) or base.kinds_ns,
        grace_ns=base.grace_ns if given["grace"] is None else given["grace"],
    )


def _kinds(text: str) -> dict[str, int]:
    from respaldo.api import SPAN_FORM, parse_span  # start-up time

    found: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        kind, equals, span = part.partition("=")
        span_ns = parse_span(span)
        if not kind or not equals or span_ns is None:
            raise UsageError(f"--keep-kind {part!r} is not KIND=SPAN", hint=f"{SPAN_FORM}, as incremental=7d,full=30d")
        found[kind] = span_ns
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRun:
    """Is what a policy decided, and what was forgotten by it (in a dry run, what would be)."""

    plan: RetentionPlan
    gone: tuple[Snapshot, ...]
    dry_run: bool


def run_policy(
    repository: Repository,
    policy: Policy | None,
    given: Mapping[str, Any],
    *,
    dry_run: bool,
    cancel: Cancel,
) -> PolicyRun:
    """Plans, and unless it is a dry run forgets; warns of times that are in doubt and of what is damaged."""
    plan = make_plan(repository, policy, given)
    if dry_run:
        return PolicyRun(plan=plan, gone=plan.forgotten, dry_run=True)
    return apply(repository, plan, cancel=cancel)


def apply(repository: Repository, plan: RetentionPlan, *, cancel: Cancel) -> PolicyRun:
    """Forgets what a plan lets go."""
    return PolicyRun(plan=plan, gone=repository.apply_retention(plan, cancel=cancel), dry_run=False)


def make_plan(
    repository: Repository, policy: Policy | None, given: Mapping[str, Any], *, only_like: SnapshotId | None = None
) -> RetentionPlan:
    """Plans; warns of times that are in doubt and of what is damaged."""
    plan = repository.plan_retention(
        policy,
        zone=given["time_zone"],
        group_by=tuple(filter(None, given["group_by"].split(","))),
        accept_times=given["accept_times"],
        only_like=only_like,
    )
    for item in plan.doubtful:
        what = "" if given["accept_times"] else "; it is kept and does not count (--accept-times believes it)"
        show.err(f"warning: snapshot {item.snapshot.hex[:8]}: {item.decision.doubt.text}{what}")  # type: ignore[union-attr]
    for error in plan.damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return plan


def text(run: PolicyRun, shares: Shares | None = None) -> str:
    """Returns a plan as tables, one a group; ``shares``: what snapshots hold, where that was measured."""
    from respaldo.api import describe  # start-up time

    pieces = []
    for group, items in run.plan.groups.items():
        headings = ["ID", "TIME", "", "BECAUSE", *(["FREES"] if shares is not None else [])]
        rows = [
            [
                item.snapshot.hex[:8],
                show.local_time(item.snapshot.manifest.time_ns),
                "keep" if item.decision.kept else "forget",
                show.shown(", ".join(map(str, item.decision.reasons))),
                *([show.size(shares.alone.get(item.snapshot.id, 0))] if shares is not None else []),
            ]
            for item in items
        ]
        pieces.append(
            f"{show.shown(describe(group))}\n{show.table(headings, rows, right=[4] if shares is not None else [])}\n"
        )
    return "\n".join((*pieces, summary(run, shares)))


def summary(run: PolicyRun, shares: Shares | None = None) -> str:
    """Returns a plan in one line."""
    went = show.count(len(run.gone), "snapshot")
    kept = len(run.plan.items) - len(run.gone)
    verb = "would forget" if run.dry_run else "forgot"
    together = f"; together that frees {show.size(shares.together)}" if shares is not None and run.gone else ""
    return f"{verb} {went}, {'would keep' if run.dry_run else 'kept'} {kept:,}{together}{_grace(run)}"


def _grace(run: PolicyRun) -> str:
    if not run.gone or not run.plan.policy.grace_ns:
        return ""
    hours = run.plan.policy.grace_ns // (3600 * 10**9)
    span = show.count(hours // 24, "day") if hours % 24 == 0 else show.count(hours, "hour")
    return f"; in the trash for {span}: respaldo undo brings back"


def fields(run: PolicyRun, shares: Shares | None = None) -> dict[str, object]:
    """Returns a plan for programs."""
    policy = run.plan.policy
    return {
        "policy": {
            "keep": {rule: count for rule, count in policy.keep.items() if count},
            "within_s": {period or "all": span // 10**9 for period, span in policy.within_ns.items() if span},
            "tags": list(policy.tags),
            "kinds_s": {kind: span // 10**9 for kind, span in policy.kinds_ns.items()},
            "grace_s": policy.grace_ns // 10**9,
        },
        "groups": [
            {
                **{name: values[0] if name == "host" else list(values) for name, values in group},
                "snapshots": [_item(item, shares) for item in items],
            }
            for group, items in run.plan.groups.items()
        ],
        "kept": len(run.plan.items) - len(run.gone),
        "forgotten": [item.hex for item in run.gone],
        "frees_bytes": None if shares is None else shares.together,
        "dry_run": run.dry_run,
    }


def _item(item: Planned, shares: Shares | None) -> dict[str, object]:
    decision = item.decision
    return {
        "id": item.snapshot.hex,
        "time": show.iso_time(item.snapshot.manifest.time_ns),
        "kept": decision.kept,
        "rules": [{"rule": reason.rule, "of": reason.of} for reason in decision.reasons],
        "pinned": any(reason.rule == "pinned" for reason in decision.reasons),
        "doubt": decision.doubt.value if decision.doubt else None,
        "frees_bytes": None if shares is None else shares.alone.get(item.snapshot.id, 0),
    }
