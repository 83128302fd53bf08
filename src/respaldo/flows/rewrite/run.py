"""Rewriting from beginning to end: trees without what is left out, manifest, commit; again where content went away.

Invariant: a new snapshot is committed by the writer's protocol, as one that took subtrees over from the old one, which
must be listed when the new one is looked at (docs/format.md, W4) or everything is looked up. Nothing is forgotten here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from respaldo.catalog.snapshots import Catalogue, list_pending, load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, SnapshotId
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.rewrite.options import RewriteOptions, Rewritten
from respaldo.flows.rewrite.trees import Excluder
from respaldo.format.snapshot import LOST_KEPT, Manifest
from respaldo.fs.match import Rules
from respaldo.store.chunks import ChunkSink
from respaldo.store.drysink import DrySink
from respaldo.store.repo import Repo

_TRIES = 3


class Session(Protocol):
    """Is the writer's half of the protocol (`respaldo.catalog.session`)."""

    sink: ChunkSink

    @property
    def id(self) -> bytes: ...

    def begin(self) -> Catalogue: ...

    def try_commit(self, manifest: Manifest, relied: set[SnapshotId]) -> SnapshotId | None:
        """Commits a snapshot; returns None, and leaves none, where content is gone from packs."""

    def tidy(self, before: Catalogue) -> None: ...


Open = Callable[[], AbstractContextManager[Session]]


class _GoneError(Exception):
    """Says that content went away meanwhile, or that the snapshot did."""


def run_rewrite(
    repo: Repo,
    open_session: Open,
    snapshots: Sequence[SnapshotId],
    options: RewriteOptions,
    *,
    progress: Progress,
    cancel: Cancel,
) -> list[Rewritten]:
    """Rewrites snapshots one after the other; returns what became of each, in their order.

    Raises `UsageError` before anything is done where a manifest could not hold what it should say. What was committed
    before an error or `Interrupted` stays, and is right. Raises `KeyRotated` where a snapshot seems to be forgotten
    because the key was rotated meanwhile.
    """
    left = list(snapshots)
    done: list[Rewritten] = []
    for _ in range(_TRIES):
        with open_session() as session:
            run = _Run(repo, session, options, progress, cancel)
            run.check(left)
            try:
                while left:
                    done.append(run.one(left[0]))
                    del left[0]
            except _GoneError:
                continue
            run.tidy()
            return done
    raise StorageFailed(
        "packs",
        "content that the snapshot needs went away, or is damaged",
        hint="see what with: respaldo verify; mend it with: respaldo repair",
    )


class _Run:
    """Is one session: the snapshots as they were when it began, and what it wrote."""

    def __init__(
        self, repo: Repo, session: Session, options: RewriteOptions, progress: Progress, cancel: Cancel
    ) -> None:
        self._repo = repo
        self._session = session
        self._options = options
        self._progress = progress
        if options.dry_run:
            repo.synchronise(progress, lenient=True)
            self._catalogue = load(repo)
        else:
            self._catalogue = session.begin()
        self._there = {item.id: item for item in self._catalogue.snapshots}
        self._rules = Rules(options.exclude)
        self._committed = False
        self._excluder = Excluder(
            repo,
            DrySink(session.sink) if options.dry_run else session.sink,
            rules=self._rules,
            larger_bytes=options.exclude_larger_bytes,
            progress=progress,
            cancel=cancel,
        )

    def check(self, snapshots: Sequence[SnapshotId]) -> None:
        """Raises `UsageError` where one of some snapshots could not say what it should."""
        for snapshot in snapshots:
            if snapshot in self._there:
                self._options.described(self._there[snapshot].manifest)

    def one(self, snapshot: SnapshotId) -> Rewritten:
        """Rewrites a snapshot."""
        item = self._there.get(snapshot)
        if item is None:
            self._repo.require_newest()  # else it may be there, under another key and id
            return Rewritten(old=snapshot)
        self._progress.note(1, f"rewriting snapshot {item.hex[:8]}")
        before = item.manifest
        fresh = self._options.described(before)
        lost: tuple[bytes, ...] = ()
        if self._options.leaves_out:
            fresh = self._without(snapshot, fresh)
            lost = tuple(self._excluder.lost)
        if fresh.root == before.root and replace(fresh, rules=before.rules) == before:
            fresh = before  # patterns that leave nothing out change nothing
        if fresh == before or self._options.dry_run:
            return Rewritten(old=snapshot, before=before, manifest=fresh, lost=lost)
        fresh = replace(
            fresh,
            session=self._session.id,
            program=self._options.program,
            repairs=b"",
            origin=None,  # it is a copy of nothing: whoever has a copy of the old one does not have this one
            rewrites=snapshot,
        )
        new = self._session.try_commit(fresh, {snapshot})
        if new is None:
            raise _GoneError
        self._committed = True
        return Rewritten(old=snapshot, before=before, manifest=fresh, snapshot=new, lost=lost)

    def tidy(self) -> None:
        """Merges small objects where there are many now."""
        if self._committed:
            self._session.tidy(self._catalogue)

    def _without(self, snapshot: SnapshotId, manifest: Manifest) -> Manifest:
        """Returns a manifest of what is left of a snapshot."""
        result = self._excluder.run(manifest.root, manifest.sources)
        missing = self._excluder.lost
        if missing:
            if snapshot not in list_pending(self._repo):
                raise _GoneError
            for path in missing:
                self._progress.note(-1, "cannot be read: nothing in it was left out", path)
        if result.id == manifest.root and result.gone == manifest.root_lost:
            return manifest
        old = manifest.lost
        ids = dict.fromkeys([old[at : at + CHUNK_ID_BYTES] for at in range(0, len(old), CHUNK_ID_BYTES)])
        ids.update(dict.fromkeys(map(bytes, missing.values())))
        failed = tuple(item for item in manifest.failed if not self._is_out(manifest, item[0]))
        totals = result.totals
        figures = replace(
            manifest.figures,
            files=totals.files,
            directories=totals.directories,
            others=totals.others,
            length_bytes=totals.length_bytes,
            errors=max(0, manifest.figures.errors - len(manifest.failed) + len(failed)),
        )
        return replace(
            manifest,
            root=result.id,
            root_lost=result.gone,
            lost=b"".join(list(ids)[:LOST_KEPT]),
            failed=failed,
            figures=manifest.figures if missing else figures,
            changes=None,  # nobody counted those of what is left
        )

    def _is_out(self, manifest: Manifest, path: bytes) -> bool:
        """Whether a path that could not be read is among what is left out."""
        for source in manifest.sources:
            below = source.rstrip(b"/") + b"/"
            if path.startswith(below):
                entry = self._entry(manifest, path)
                relative, limit = path[len(below) :], self._options.exclude_larger_bytes
                if entry is not None and entry.is_regular and 0 < limit < entry.size:
                    return True
                return self._rules.excluded(relative, entry is not None and entry.is_dir)
        return False

    def _entry(self, manifest: Manifest, path: bytes) -> Entry | None:
        trees = TreeReader(self._repo.source)
        *above, last = path.strip(b"/").split(b"/")
        tree = manifest.root
        try:
            for name in above:
                entry = trees.find(tree, name)
                if entry is None or not entry.is_dir or not entry.content:
                    return None
                tree = next(iter(entry.content))
            return trees.find(tree, last)
        except (ChunkMissing, Corruption, ObjectMissing):
            return None
