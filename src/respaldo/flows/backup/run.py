"""One backup from beginning to end: index, walk, manifest, commit; again where content went away under it.

Invariant: no snapshot unless everything was read or counted as failed. An interrupted run leaves none, and leaves
behind what the next one needs to go on.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from respaldo.catalog.feed import FedSink, Feed
from respaldo.catalog.register import FOLDER_NAME
from respaldo.catalog.runs import put_tree
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import Catalogue, Snapshot, load
from respaldo.catalog.trees import Sink, TreeReader
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.core.errors import Interrupted, StorageFailed, UsageError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, PackName, SnapshotId
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Progress, Silent
from respaldo.flows.backup.changes import ChangeCount
from respaldo.flows.backup.entries import Entries
from respaldo.flows.backup.estimate import Estimate
from respaldo.flows.backup.files import Files
from respaldo.flows.backup.frame import Node
from respaldo.flows.backup.memo import Memo
from respaldo.flows.backup.naming import kind_and_label, parent_of
from respaldo.flows.backup.options import BackupOptions, BackupResult, Counts, check_recordable
from respaldo.flows.backup.paranoid import (
    SAMPLE_START_BYTES,
    NamingSink,
    Paranoid,
    Sample,
    keep_start,
    sample_start,
)
from respaldo.flows.backup.reader import FileReader
from respaldo.flows.backup.sources import hierarchy, normal_path
from respaldo.flows.backup.trust import Trust
from respaldo.flows.backup.walker import Walker
from respaldo.format.figures import Changes, Figures
from respaldo.format.leafcheck import NAME_BYTES_MAX
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import META, Leaf
from respaldo.fs.match import Rules
from respaldo.fs.meta import Names
from respaldo.store.chunks import ChunkSink
from respaldo.store.drysink import DrySink
from respaldo.store.local import claim
from respaldo.store.repo import Repo
from respaldo.store.spoilt import Wanting

_TRIES = 3
_LOST = b"\xa4lost"
"""As it stands in an encoded manifest."""


class Stream(Protocol):
    """Yields bytes until it is empty."""

    def read(self, length_bytes: int, /) -> bytes: ...


def run_backup(
    repo: Repo, sources: Sequence[bytes], options: BackupOptions, *, progress: Progress, cancel: Cancel
) -> BackupResult:
    """Backs up sources (absolute paths); returns the snapshot and its figures.

    Raises `SourceError` where a source is not there, `Interrupted`, storage errors; then there is no snapshot.
    """
    root, recorded = hierarchy(sources, options.recorded_as)
    check_recordable(options, recorded)

    def attempt(fresh: bool) -> BackupResult:  # noqa: FBT001 - private
        # A memo, and its number for the run, of its own: what stands in it under that number is in the snapshot that
        # is committed under it, nothing that another attempt or another process saw.
        with claim(repo.cache_dir, "memo") as path, contextlib.closing(Memo(path)) as memo:
            memo.frozen = options.dry_run
            return _Run(repo, options, memo, progress, cancel, fresh=fresh).walk(root, recorded)

    return _again(attempt)


def run_stream(
    repo: Repo,
    path: bytes,
    stream: Stream,
    options: BackupOptions,
    *,
    finish: Callable[[], None],
    progress: Progress,
    cancel: Cancel,
) -> BackupResult:
    """Backs up what a stream yields as one file at an absolute path.

    ``finish`` is called at the stream's end and raises where what came was not all: then there is no snapshot. A stream
    cannot be read twice: where stored content goes away under the run, it fails.
    """
    if options.dry_run:
        raise UsageError("a stream cannot be read without being stored")
    if path == b"/" or normal_path(path, b"/") != path or max(map(len, path.split(b"/"))) > NAME_BYTES_MAX:
        raise UsageError("a stream needs the absolute path of a file to be recorded under")
    check_recordable(options, (path,))
    try:
        return _Run(repo, options, None, progress, cancel).stream(path, stream, finish)
    except ContentGoneError:
        raise StorageFailed(
            "packs", "content went away while the stream was stored", hint="run the command again"
        ) from None


def _again(attempt: Callable[[bool], BackupResult]) -> BackupResult:
    for number in range(_TRIES):
        try:
            return attempt(number > 0)
        except ContentGoneError:
            continue
    raise StorageFailed("packs", "content went away again and again while it was being relied on", retryable=True)


class _Run:
    """Is one attempt."""

    def __init__(
        self,
        repo: Repo,
        options: BackupOptions,
        memo: Memo | None,
        progress: Progress,
        cancel: Cancel,
        *,
        fresh: bool = False,
    ) -> None:
        self._repo = repo
        self._options = options
        self._memo = memo
        self._fresh = fresh
        self._progress = progress
        self._cancel = cancel
        self._started_ns = repo.clock.now_ns()
        self._time_ns = options.time_ns or self._started_ns
        self._kind = self._label = ""
        self._changes: Changes | None = None
        self._clock_ns = repo.clock.monotonic_ns()
        self._counts = Counts()
        self._wanting = Wanting()

    def walk(self, root: Node, recorded: tuple[bytes, ...]) -> BackupResult:
        with Session(self._repo, self._progress) as session, self._feed() as feed:
            if self._options.dry_run:
                self._repo.synchronise(self._progress)
                catalogue = load(self._repo)
            else:
                catalogue = session.begin()
            self._look_for_losses()
            session.sink.wanting = self._wanting.ids | self._lost(catalogue)
            parent = parent_of(catalogue, self._options.host, recorded)
            self._kind, self._label = kind_and_label(catalogue, self._options, recorded, self._time_ns)
            if parent is not None:
                figures = parent.manifest.figures
                self._progress.total(files=figures.files, length_bytes=figures.length_bytes)
            feed.first = parent is None
            sink = DrySink(session.sink) if self._options.dry_run else session.sink
            reader = self._reader(sink)
            trees = TreeReader(self._repo.source)
            trust = Trust(
                sink=sink,
                trees=trees,
                memo=self._memo,
                snapshots=() if self._fresh or not session.can_take_over else {item.id for item in catalogue.snapshots},
            )
            reader.known = trust.has
            memo = self._memo
            paranoid = self._paranoid(recorded, reader, trees)
            entries = Entries(
                files=Files(
                    reader=reader,
                    memo=memo,
                    link_key=self._repo.ring.link_group,
                    counts=self._counts,
                    progress=self._progress,
                ),
                trust=trust,
                options=self._options,
                counts=self._counts,
                progress=self._progress,
                paranoid=paranoid,
            )
            walker = Walker(
                sink=sink,
                tree_sink=FedSink(sink, feed),
                entries=entries,
                memo=memo,
                trust=trust,
                trees=trees,
                rules=Rules(self._options.exclude),
                options=self._options,
                name_order=self._repo.ring.name_order,
                owners=Names(),
                counts=self._counts,
                clock=self._repo.clock,
                progress=self._progress,
                cancel=self._cancel,
            )
            if self._options.dry_run:
                tree = walker.walk(root, parent.manifest.root if parent is not None else None)
                self._changes = walker.changes.total
                return self._result(None, self._manifest(session, sink, tree, recorded, parent, reader))

            estimate = Estimate(root, self._options) if self._options.estimate and parent is None else None

            def checkpoint(*, now: bool = False) -> bool:
                if estimate is not None:
                    self._progress.total(files=estimate.files, length_bytes=estimate.length_bytes)
                if not (now or session.due()):
                    return False
                session.save()
                walker.save_open()
                return True

            reader.checkpoint = checkpoint
            try:
                with estimate or contextlib.nullcontext():
                    tree = walker.walk(root, parent.manifest.root if parent is not None else None)
            except Interrupted:
                checkpoint(now=True)
                raise
            session.save()
            self._changes = walker.changes.total
            manifest = self._manifest(session, sink, tree, recorded, parent, reader)
            snapshot = session.commit(manifest, trust.relied)
            feed.root(tree)
            if self._memo is not None:
                if paranoid is not None:
                    keep_start(self._memo, recorded, paranoid.sample.next)
                self._memo.commit(snapshot, self._repo.clock.now_ns(), self._packs(), self._wanting.rows)
            session.tidy(catalogue)
            return self._result(snapshot, manifest, session.sink.healed)

    def stream(self, path: bytes, stream: Stream, finish: Callable[[], None]) -> BackupResult:
        """Backs up one file from a stream, and the directories above it, which exist in the record only."""
        with Session(self._repo, self._progress) as session:
            catalogue = session.begin()
            session.sink.wanting = self._repo.spoilt.wanting().ids | self._lost(catalogue)
            reader = self._reader(session.sink)
            reader.checkpoint = session.save_if_due
            content = reader.store_stream(stream.read)
            finish()
            length = reader.read_bytes
            self._counts.files = self._counts.files_new = 1
            self._counts.directories = path.count(b"/")
            self._counts.length_bytes = length
            mode = stat.S_IFREG | 0o600
            leaf = Leaf(
                names=path.rpartition(b"/")[2] + b"\0",
                meta=META.pack(mode, self._options.uid, self._options.gid, 0, length, self._time_ns, 0),
                content=content.ids,
                levels={0: (content.level, len(content))} if content.level or len(content) > 1 else {},
            )
            parent = parent_of(catalogue, self._options.host, (path,))
            self._kind, self._label = kind_and_label(catalogue, self._options, (path,), self._time_ns)
            changes = ChangeCount(TreeReader(self._repo.source), None)
            changes.settle_file(path, parent.manifest.root if parent is not None else None, leaf)
            self._changes = changes.total
            tree = put_tree(session.sink, leaf, self._repo.ring.name_order)
            for name in reversed(path.strip(b"/").split(b"/")[:-1]):
                above = Leaf(
                    names=name + b"\0",
                    meta=META.pack(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0),
                    content=tree,
                    marks={0: Mark.PARTIAL},
                )
                tree = put_tree(session.sink, above, self._repo.ring.name_order)
            session.save()
            manifest = self._manifest(session, session.sink, tree, (path,), parent, reader)
            snapshot = session.commit(manifest, set())
            session.tidy(catalogue)
            return BackupResult(snapshot=snapshot, manifest=manifest, healed=session.sink.healed)

    def _feed(self) -> Feed:
        return Feed(self._repo.cache_dir / FOLDER_NAME, frozen=self._options.dry_run)

    def _reader(self, sink: Sink, progress: Progress | None = None) -> FileReader:
        low, mean, high, strict, loose = self._repo.config.chunker
        params = ChunkerParams(minimum=low, average=mean, maximum=high, strict=strict, loose=loose)
        chunker = Chunker(self._repo.ring.chunker_secret, params)
        return FileReader(sink, chunker, progress or self._progress, self._cancel)

    def _paranoid(self, recorded: tuple[bytes, ...], reader: FileReader, trees: TreeReader) -> Paranoid | None:
        if not self._options.paranoid or self._memo is None:
            return None
        start = sample_start(self._memo, recorded, self._repo.random(SAMPLE_START_BYTES))
        again = self._reader(NamingSink(self._repo.ring.id_keys), Silent())
        again.checkpoint = lambda: reader.checkpoint()  # noqa: PLW0108 - it is given one later
        return Paranoid(
            sample=Sample(self._options.paranoid, start, self._repo.ring.name_order),
            reader=again,
            trees=trees,
            source=self._repo.source,
            counts=self._counts,
            progress=self._progress,
        )

    def _result(self, snapshot: SnapshotId | None, manifest: Manifest, healed: int = 0) -> BackupResult:
        counts = self._counts
        return BackupResult(
            snapshot=snapshot,
            manifest=manifest,
            reread_files=counts.reread_files,
            reread_bytes=counts.reread_bytes,
            rotten=tuple(counts.rotten),
            healed=healed,
        )

    def _packs(self) -> AbstractSet[PackName]:
        return self._repo.index.lengths().keys()

    def _look_for_losses(self) -> None:
        """Trusts no run where packs are gone that no collector condemned, or damaged: then content is stored again."""
        self._wanting = self._repo.spoilt.wanting()
        if self._memo is not None and self._wanting.beyond(self._memo.damage_seen()):
            self._memo.distrust()
            count = len(self._wanting.ids)
            self._progress.note(0, f"{count} chunks are known to be damaged: looking up what is there of every file")
        gone = self._memo.packs_gone(self._packs()) if self._memo is not None else set()
        if not gone or self._memo is None:
            return
        for name in [name for name, _ in self._repo.index.records("condemned/")]:
            record = self._repo.read_condemnation(name)
            gone.difference_update(record.packs if record is not None else ())
        if gone:
            self._memo.distrust()
            self._progress.note(0, f"{len(gone)} packs are gone or damaged: looking up what is there of every file")

    def _lost(self, catalogue: Catalogue) -> set[bytes]:
        """Returns the chunks that repaired snapshots and copies lack, as far as they say which."""
        found: set[bytes] = set()
        for item in catalogue.snapshots:
            if _LOST in item.encoded:  # where it stands nowhere, nothing needs to be parsed
                lost = item.manifest.lost
                found.update(lost[at : at + CHUNK_ID_BYTES] for at in range(0, len(lost), CHUNK_ID_BYTES))
        index = self._repo.index
        return {chunk_id for chunk_id in found if index.find(ChunkId(chunk_id), usable_only=True) is None}

    def _manifest(
        self,
        session: Session,
        sink: ChunkSink | DrySink,
        root: ChunkId,
        recorded: tuple[bytes, ...],
        parent: Snapshot | None,
        reader: FileReader,
    ) -> Manifest:
        options, counts, tally = self._options, self._counts, sink.tally
        now_ns = self._repo.clock.now_ns()
        return Manifest(
            session=session.id,
            root=root,
            sources=recorded,
            time_ns=self._time_ns,
            started_ns=self._started_ns,
            ended_ns=now_ns,
            host=options.host,
            user=options.user,
            uid=options.uid,
            kind=self._kind,
            label=self._label,
            reason=options.reason,
            tags=options.tags,
            parent=parent.id if parent is not None else SnapshotId(b""),
            program=options.program,
            rules=options.rules(),
            failed=tuple(counts.failed),
            changes=self._changes,
            figures=Figures(
                files=counts.files,
                directories=counts.directories,
                others=counts.others,
                length_bytes=counts.length_bytes,
                files_new=counts.files_new,
                files_changed=counts.files_changed,
                files_unchanged=counts.files_unchanged,
                read_bytes=reader.read_bytes,
                chunks_new=tally.chunks_new,
                chunk_bytes_new=tally.bytes_new,
                chunks_known=tally.chunks_known,
                chunk_bytes_known=tally.bytes_known,
                stored_bytes=tally.stored_bytes,
                errors=counts.errors,
                duration_ns=self._repo.clock.monotonic_ns() - self._clock_ns,
            ),
        )
