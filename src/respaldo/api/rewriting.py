"""Rewriting on a repository: by the writer's protocol; what is asked for is forgotten once the new ones are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from respaldo.api.retention import find_all
from respaldo.catalog import protection
from respaldo.catalog.selectors import Context
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import Catalogue, Snapshot, announce_forgetting
from respaldo.core.errors import Refused
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.rewrite.options import RewriteOptions, Rewritten
from respaldo.flows.rewrite.run import run_rewrite
from respaldo.format.snapshot import Manifest
from respaldo.store.repo import Repo


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteResult:
    """Is a finished rewriting. ``forgotten``: the old ones that went; ``pinned``: those that were pinned meanwhile."""

    items: tuple[Rewritten, ...]
    forgotten: tuple[SnapshotId, ...] = ()
    pinned: tuple[SnapshotId, ...] = ()

    @property
    def lost(self) -> int:
        """How many directories could not be read."""
        return sum(len(item.lost) for item in self.items)


class _Session(Session):
    """Is a session that returns None where content is gone."""

    def try_commit(self, manifest: Manifest, relied: set[SnapshotId]) -> SnapshotId | None:
        """Commits a snapshot."""
        try:
            return self.commit(manifest, relied)
        except ContentGoneError:
            return None


def rewrite(
    repo: Repo,
    catalogue: Catalogue,
    names: Iterable[str],
    context: Context,
    options: RewriteOptions,
    *,
    forget: bool,
    progress: Progress,
    cancel: Cancel,
) -> RewriteResult:
    """Makes new snapshots from old ones; then, if asked, forgets those that have a new one.

    Raises `Refused`, and does nothing, where one is to be forgotten that is pinned.
    """
    old = [item.snapshot for item in find_all(catalogue, names, context, strict=forget)]
    if forget:
        _need_no_pins(repo, old)
    done = run_rewrite(
        repo,
        lambda: _Session(repo, progress),
        [item.id for item in old],
        options,
        progress=progress,
        cancel=cancel,
    )
    going = [item.old for item in done if item.snapshot is not None] if forget else []
    pins = protection.list_pins(repo) if going else frozenset()
    announce_forgetting(repo, [item for item in going if item not in pins])
    gone = [item for item in going if item not in pins and protection.take_away(repo, item)]
    pinned = tuple(item for item in going if item not in gone)
    return RewriteResult(items=tuple(done), forgotten=tuple(gone), pinned=pinned)


def _need_no_pins(repo: Repo, items: Sequence[Snapshot]) -> None:
    pins = protection.list_pins(repo)
    for item in items:
        if item.id in pins:
            raise Refused(
                f"snapshot {item.hex[:8]} is pinned: it could be rewritten, but not forgotten",
                hint=f"leave --forget out, or take the pin away first: respaldo unpin {item.hex[:8]}",
            )
