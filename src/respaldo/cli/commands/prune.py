"""`respaldo prune`: forgets by a policy, where one is given, then frees the space that no snapshot needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from respaldo.cli import policy as policies
from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SHARE, SIZE

if TYPE_CHECKING:
    from respaldo.api import PackPlan, PrunePlan, PruneResult


@page(
    "prune",
    examples=(
        ("Free what no snapshot needs any more:", "respaldo prune"),
        ("Forget what a policy does not keep, and free its space:", "respaldo prune --policy standard"),
        (
            "By rules of one's own; look first:",
            "respaldo prune --keep-last 3 --keep-daily 14 --keep-monthly 12 --dry-run",
        ),
        ("Copy no more than 10 GiB to get packs together, the cheapest first:", "respaldo prune --max-repack 10GiB"),
        ("Only delete what is dead as a whole; copy nothing but small packs:", "respaldo prune --repack-below 0%"),
        ("On a full disk, where nothing else works any more:", "respaldo prune --max-repack 0"),
    ),
    notes=(
        "dry_run, snapshots, undecided, expire, packs, pack_bytes, live_bytes, dead and repack and left (packs, bytes, "
        "live_bytes), copied_bytes, freed_bytes. Without --dry-run also expired, deleted_packs, deleted_bytes, "
        "new_packs, new_bytes, copied_blocks, copied_chunks, swept (folder: objects), full, ballast, duration_s, "
        "damages (name, reason); freed_bytes is then what packs take less than before. emptied: ids that left the "
        f"trash for good. With a policy also retention, whose keys are: {policies.NOTES}"
    ),
)
@policies.keep_options
@click.option("--dry-run", "-n", is_flag=True, help="Print what would be deleted and copied; change nothing.")
@click.option(
    "--repack-below",
    type=SHARE,
    default="50%",
    show_default=True,
    metavar="SHARE",
    help="Copy what is still needed out of packs of which less than this share is, and delete them.",
)
@click.option(
    "--max-repack",
    type=SIZE,
    metavar="SIZE",
    help="Copy at most so much; what frees most for what is copied comes first. Without it, as much as there is.",
)
def command(
    settings: Settings,
    *,
    dry_run: bool,
    repack_below: float,
    max_repack: int | None,
    **given: Any,  # noqa: ANN401 - click's values
) -> int:
    """Free the space that no snapshot needs. Without a policy, no snapshot is forgotten.

    With a policy (--policy, --keep-…), snapshots that it does not keep are forgotten first, as by "forget"; with
    --grace they go into the trash, and their space is freed when the time is over. What has been in the trash for its
    time goes for good.

    Snapshots and restores may go on meanwhile, here and elsewhere, and so may another prune: nothing is locked, and
    nothing is deleted that a snapshot needs, one that is just being made included. What a snapshot in progress has
    stored stays. Interrupted, it loses nothing, and the next one finishes. Where a snapshot needs something that is
    not there, nothing is deleted.

    Works on a full disk: a megabyte is kept in reserve for it, and what needs no copy is freed first.
    """
    from respaldo import api  # start-up time

    options = api.PruneOptions(repack_below=repack_below, max_repack_bytes=max_repack)
    policy = policies.policy_of(given)
    with (
        settings.open(writes=not dry_run) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        run = policies.run_policy(repository, policy, given, dry_run=dry_run, cancel=cancel) if policy else None
        emptied = repository.empty_trash(dry_run=dry_run)
        if dry_run:
            gone = () if run is None or run.plan.policy.grace_ns else (item.id for item in run.gone)
            plan = repository.plan_prune(options, progress=progress, cancel=cancel, without={*gone, *emptied})
        else:
            result = repository.prune(options, progress=progress, cancel=cancel)
            duration_ns = progress.elapsed_ns()
    more: dict[str, object] = {"emptied": [item.hex() for item in emptied]}
    lines = []
    if run is not None:
        more["retention"] = policies.fields(run)
        lines.append(policies.text(run) + "\n")
    if dry_run:
        lines += (*_pack_lines(plan), _plan_text(plan)) if settings.verbose else (_plan_text(plan),)
        settings.report(_plan_fields(plan) | {"dry_run": True} | more, "\n".join(lines))
        return 0
    settings.report(_fields(result, duration_ns) | more, "\n".join((*lines, _text(result, duration_ns))))
    for error in result.damages:
        show.err(f"error: {show.shown(str(error))}; its pack stays. See: respaldo verify --read-data")
    if result.full:
        show.err("error: the repository's disk is too full to copy what is needed out of packs; run prune again later")
    if not result.ballast:
        show.err("warning: there was no room to keep a megabyte in reserve for the next prune on a full disk")
    return result.exit_status


def _sum(packs: Iterable[PackPlan]) -> dict[str, int]:
    found = list(packs)
    return {
        "packs": len(found),
        "bytes": sum(pack.length_bytes for pack in found),
        "live_bytes": sum(pack.live_bytes for pack in found),
    }


def _plan_fields(plan: PrunePlan) -> dict[str, object]:
    return {
        "dry_run": False,
        "snapshots": plan.snapshots,
        "undecided": plan.undecided,
        "expire": [snapshot.hex() for snapshot in plan.expire],
        "packs": plan.packs,
        "pack_bytes": plan.pack_bytes,
        "live_bytes": plan.live_bytes,
        "dead": _sum(plan.dead),
        "repack": _sum(plan.repack),
        "left": _sum(plan.left),
        "copied_bytes": plan.copied_bytes,
        "freed_bytes": plan.freed_bytes,
    }


def _pack_lines(plan: PrunePlan) -> list[str]:
    words = [("delete", pack) for pack in plan.dead] + [("repack", pack) for pack in plan.repack]
    return [
        f"{word} {pack.name.hex()[:16]}  {show.size(pack.length_bytes)}, {show.size(pack.live_bytes)} needed"
        for word, pack in words
    ]


def _plan_text(plan: PrunePlan) -> str:
    dead, repack, left = _sum(plan.dead), _sum(plan.repack), _sum(plan.left)
    rows = [
        ("snapshots", show.count(plan.snapshots) + (f", {plan.undecided} undecided" if plan.undecided else "")),
        (
            "packs",
            f"{show.count(plan.packs)}, {show.size(plan.pack_bytes)}, of which {show.size(plan.live_bytes)} are needed",
        ),
        ("would delete", f"{show.count(dead['packs'], 'pack')}, {show.size(dead['bytes'])}"),
        ("would repack", f"{show.count(repack['packs'], 'pack')}, {show.size(repack['bytes'])}"),
        ("would copy", show.size(plan.copied_bytes)),
        ("would free", f"about {show.size(plan.freed_bytes)}"),
    ]
    if plan.expire:
        rows.insert(1, ("would expire", f"{show.count(len(plan.expire), 'unfinished snapshot')}"))
    if left["packs"]:
        rows.append(("left by limit", f"{show.count(left['packs'], 'pack')}, {show.size(left['bytes'])}"))
    return show.figures(rows)


def _fields(result: PruneResult, duration_ns: int) -> dict[str, object]:
    return _plan_fields(result.plan) | {
        "expired": result.expired,
        "deleted_packs": result.deleted_packs,
        "deleted_bytes": result.deleted_bytes,
        "new_packs": result.new_packs,
        "new_bytes": result.new_bytes,
        "copied_blocks": result.copied_blocks,
        "copied_chunks": result.copied_chunks,
        "freed_bytes": result.freed_bytes,
        "swept": dict(result.swept),
        "full": result.full,
        "ballast": result.ballast,
        "duration_s": duration_ns / 1e9,
        "damages": [{"name": error.name, "reason": error.reason} for error in result.damages],
    }


def _text(result: PruneResult, duration_ns: int) -> str:
    plan = result.plan
    rows = [
        ("snapshots", show.count(plan.snapshots) + (f", {plan.undecided} undecided" if plan.undecided else "")),
        ("deleted", f"{show.count(result.deleted_packs, 'pack')}, {show.size(result.deleted_bytes)}"),
        ("copied", f"{show.size(result.new_bytes)} into {show.count(result.new_packs, 'new pack')}"),
        ("freed", show.size(result.freed_bytes)),
        ("time", show.duration(duration_ns)),
    ]
    if result.expired:
        rows.insert(1, ("expired", show.count(result.expired, "unfinished snapshot")))
    left = _sum(plan.left)
    if left["packs"]:
        rows.append(("left by limit", f"{show.count(left['packs'], 'pack')}, {show.size(left['bytes'])}"))
    return show.figures(rows)
