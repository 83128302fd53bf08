"""What `snapshot --prune` does once the snapshot is made: forgets by the policy of its source, and frees space.

Decides about the snapshots of the same host and paths alone. Whatever goes wrong here, the snapshot stands, is
reported, and the exit status says that the rest failed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from respaldo.cli import show
from respaldo.cli.named import named, policy_of_sources
from respaldo.cli.values import ZONE
from respaldo.core.errors import RespaldoError, UsageError

if TYPE_CHECKING:
    from respaldo.api import Policy, Repository
    from respaldo.cli.progress import Notes
    from respaldo.core.ids import SnapshotId
    from respaldo.core.seams import Cancel


@dataclass(frozen=True, slots=True, kw_only=True)
class Afterwards:
    """Is what came of it: for programs, for people, and the error that ended it."""

    fields: dict[str, object] = field(default_factory=dict)
    text: str = ""
    status: int = 0
    error: RespaldoError | None = None


def source_policy(given: dict[str, Any], sources: list[bytes]) -> Policy | None:
    """Returns the policy to run afterwards, None where none was asked for; raises `UsageError`, before all else."""
    if not given["prune"]:
        if given["policy_name"]:
            raise UsageError("--policy goes with --prune")
        return None
    if given["dry_run"]:
        raise UsageError(
            "--prune goes with a snapshot that is made", hint="what would go says: respaldo prune --policy NAME -n"
        )
    return named(given["policy_name"]) if given["policy_name"] else policy_of_sources(sources)


def prune_afterwards(
    repository: Repository, policy: Policy, snapshot: SnapshotId, *, progress: Notes, cancel: Cancel
) -> Afterwards:
    """Forgets and collects."""
    from respaldo.api import PruneOptions  # start-up time
    from respaldo.cli import collection  # start-up time
    from respaldo.cli import policy as policies  # start-up time
    from respaldo.cli.clearing import Clearing  # start-up time

    given = {
        "time_zone": ZONE.convert("local", None, None),
        "group_by": "host,paths",
        "accept_times": False,
    }
    clearing = Clearing()
    started_ns = progress.elapsed_ns()
    try:
        result = clearing.carry_out(
            repository, policy, PruneOptions(), given, only_like=snapshot, progress=progress, cancel=cancel
        )
    except RespaldoError as error:
        fields = clearing.fields | {"error": show.shown(str(error))}
        text = policies.summary(clearing.run) if clearing.run else ""
        return Afterwards(fields=fields, text=text, status=error.exit_status, error=error)
    duration_ns = progress.elapsed_ns() - started_ns
    collection.warn(result)
    run = clearing.run
    return Afterwards(
        fields=collection.fields(result, duration_ns) | clearing.fields,
        text="\n".join((*([policies.summary(run)] if run else []), collection.text(result, duration_ns))),
        status=result.exit_status or (4 if run and run.plan.damaged else 0),
    )
