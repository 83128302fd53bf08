"""Copies between repositories that name content differently: content is read, cut anew, and named anew."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import replace

from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.trees import TreeReader
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.known import Known
from respaldo.flows.copying.learning import learn
from respaldo.flows.copying.options import Copied, as_copied, copies_of
from respaldo.flows.copying.rechunk import Ahead, Rechunker
from respaldo.flows.copying.translate import Translator
from respaldo.format.snapshot import Manifest
from respaldo.store.drysink import DrySink
from respaldo.store.local import claim
from respaldo.store.repo import Repo


class Anew:
    """Copies the content of snapshots, one after the other, in one session."""

    def __init__(
        self,
        source: Repo,
        target: Repo,
        session: Session,
        *,
        snapshots: Collection[SnapshotId],
        ahead: Ahead,
        dry_run: bool,
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._source = source
        self._target = target
        self._session = session
        self._sink = DrySink(session.sink) if dry_run else session.sink
        self._progress = progress
        self._stack = contextlib.ExitStack()
        path = self._stack.enter_context(claim(target.cache_dir, "copies"))
        self._known = self._stack.enter_context(contextlib.closing(Known(path, source.header.repository)))
        self._dry_run = dry_run
        self._trees, self._there = TreeReader(source.source), TreeReader(target.source)
        self._run = b""
        self._total = 0
        self._snapshots = set(snapshots)
        low, mean, high, strict, loose = target.config.chunker
        params = ChunkerParams(minimum=low, average=mean, maximum=high, strict=strict, loose=loose)

        def checkpoint() -> None:
            if not dry_run and session.save_if_due():
                self._known.flush()

        self._files = Rechunker(
            ahead=ahead,
            trees=self._trees,
            sink=self._sink,
            chunker=Chunker(target.ring.chunker_secret, params),
            known=self._known,
            there=self._there,
            progress=progress,
            cancel=cancel,
            checkpoint=checkpoint,
        )
        self._translator = Translator(
            source=source,
            trees=self._trees,
            files=self._files,
            sink=self._sink,
            name_order=target.ring.name_order,
            known=self._known,
            snapshots=self._snapshots,
            progress=progress,
            cancel=cancel,
        )

    @property
    def relied(self) -> set[SnapshotId]:
        """Those of the target that subtrees were taken over from."""
        return self._translator.relied

    def close(self) -> None:
        """Writes down what is known."""
        self._stack.close()

    def learn_from(self, there: Mapping[tuple[bytes, bytes], Snapshot], ours: Collection[Snapshot]) -> None:
        """Looks at snapshots that were copied by other clients, or before the cache was lost."""
        for origin, item in copies_of(self._source.header.repository, list(ours)).items():
            copy = there.get(origin)
            if copy is None or self._known.has_run(copy.id) or item.manifest.root_lost:
                continue
            learn(self._known, self._trees, self._there, (item.manifest.root, copy.manifest.root))
            self._known.commit(copy.id, copy.id)
        self._known.frozen = self._dry_run  # what was learned is so; what would be stored is not

    def copy(self, item: Snapshot, base: Snapshot | None, *, dry_run: bool) -> tuple[Manifest | None, Copied]:  # noqa: ARG002
        """Stores what a snapshot holds; returns its manifest, with the root that it has in the target.

        Raises `Corruption`, `ChunkMissing` where the root is lost.
        """
        manifest = item.manifest
        if manifest.root_lost:
            raise Corruption(f"snapshot {item.hex[:8]}", "its root was lost to damage")
        self._total += manifest.figures.length_bytes
        self._progress.total(files=0, length_bytes=self._total)
        self._run = self._target.random(RANDOM_ID_BYTES)
        tally = self._sink.tally
        chunks, new, stored, read = tally.chunks_new, tally.bytes_new, tally.stored_bytes, self._files.read_bytes
        root = self._translator.translate(manifest.root, self._run)
        if not dry_run:
            self._session.sink.separate()
            self._session.save()
        copied = Copied(
            source=item,
            copy=None,
            chunks_new=tally.chunks_new - chunks,
            new_bytes=tally.bytes_new - new,
            stored_bytes=tally.stored_bytes - stored,
            read_bytes=self._files.read_bytes - read,
            lost=tuple(self._translator.lost),
            errors=self._translator.errors,
        )
        if dry_run:
            return None, copied
        return as_copied(replace(manifest, root=root, lost=b""), copied), copied

    def committed(self, snapshot: SnapshotId) -> None:
        """Remembers which snapshot the trees of this run are in."""
        self._known.commit(self._run, snapshot)
        self._known.commit(snapshot, snapshot)
        self._snapshots.add(snapshot)
