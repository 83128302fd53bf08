"""Collections as people and programs read them: a plan, and what came of it. Shared by all commands that collect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from respaldo.cli import show

if TYPE_CHECKING:
    from respaldo.api import PackPlan, PrunePlan, PruneResult

NOTES = (
    "snapshots, undecided, expire, packs, pack_bytes, live_bytes, dead and repack and left (packs, bytes, live_bytes), "
    "copied_bytes, freed_bytes. Once it is done also expired, deleted_packs, deleted_bytes, new_packs, new_bytes, "
    "copied_blocks, copied_chunks, swept (folder: objects), parity (objects that got it late), full, "
    "ballast, duration_s, damages (name, reason); freed_bytes is then what packs take less than before."
)
"""The keys of `plan_fields` and `fields`."""


def warn(result: PruneResult) -> None:
    """Says what went wrong."""
    for error in result.damages:
        show.err(f"error: {show.shown(str(error))}; its pack stays. See: respaldo verify --read-data")
    if result.full:
        show.err("error: the repository's disk is too full to copy what is needed out of packs")
        show.err("hint: free space there, and run the command again: it goes on where it was")
    if not result.ballast:
        show.err("warning: there was no room to keep a megabyte in reserve for the next prune on a full disk")


def _sum(packs: Iterable[PackPlan]) -> dict[str, int]:
    found = list(packs)
    return {
        "packs": len(found),
        "bytes": sum(pack.length_bytes for pack in found),
        "live_bytes": sum(pack.live_bytes for pack in found),
    }


def plan_fields(plan: PrunePlan) -> dict[str, object]:
    """Returns a plan for programs."""
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


def pack_lines(plan: PrunePlan) -> list[str]:
    """Returns a line for each pack that would go."""
    words = [("delete", pack) for pack in plan.dead] + [("repack", pack) for pack in plan.repack]
    return [
        f"{word} {pack.name.hex()[:16]}  {show.size(pack.length_bytes)}, {show.size(pack.live_bytes)} needed"
        for word, pack in words
    ]


def plan_text(plan: PrunePlan) -> str:
    """Returns a plan for people."""
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


def fields(result: PruneResult, duration_ns: int) -> dict[str, object]:
    """Returns what a collection did, for programs."""
    return plan_fields(result.plan) | {
        "expired": result.expired,
        "deleted_packs": result.deleted_packs,
        "deleted_bytes": result.deleted_bytes,
        "new_packs": result.new_packs,
        "new_bytes": result.new_bytes,
        "copied_blocks": result.copied_blocks,
        "copied_chunks": result.copied_chunks,
        "freed_bytes": result.freed_bytes,
        "swept": dict(result.swept),
        "parity": result.parity,
        "full": result.full,
        "ballast": result.ballast,
        "duration_s": duration_ns / 1e9,
        "damages": [{"name": error.name, "reason": error.reason} for error in result.damages],
    }


def text(result: PruneResult, duration_ns: int) -> str:
    """Returns what a collection did, for people."""
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
