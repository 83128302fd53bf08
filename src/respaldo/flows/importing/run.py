"""One archive from beginning to end: members into a spool, content into packs, trees, manifest, commit.

Invariant: the archive is read once, in one direction, and never unpacked to disk. What could not be taken over is
counted, named in the manifest, and makes the snapshot incomplete; an archive that is none makes no snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from respaldo.catalog.kinds import is_near, kind_by_rule
from respaldo.catalog.labels import Bump, next_label
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import Catalogue, Snapshot, load
from respaldo.catalog.trees import TreeReader
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.core.errors import Interrupted, SourceError, StorageFailed
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.importing.about import About, parse_about
from respaldo.flows.importing.compare import compare
from respaldo.flows.importing.content import Contents
from respaldo.flows.importing.members import EndedError, Members
from respaldo.flows.importing.options import ImportOptions, ImportResult
from respaldo.flows.importing.plant import Planter
from respaldo.flows.importing.spool import Spool
from respaldo.flows.importing.take import Taker
from respaldo.flows.importing.unpack import Stream, unpacked
from respaldo.format.figures import Figures
from respaldo.format.snapshot import Manifest
from respaldo.store.chunks import ChunkSink
from respaldo.store.drysink import DrySink
from respaldo.store.repo import Repo

FAILED_KEPT = 1000
_FAILED_BYTES_KEPT = 4 << 20
SOURCES_MAX = 64
"""An archive of more things side by side is one source: what they lie in."""


def run_import(
    repo: Repo, name: bytes, stream: Stream, options: ImportOptions, *, progress: Progress, cancel: Cancel
) -> ImportResult:
    """Makes a snapshot of an archive; raises `SourceError` where it is none, or empty.

    An archive that is known already (same host, sources, time and content) makes no second snapshot.
    """
    try:
        return _Run(repo, name, options, progress, cancel).run(stream)
    except ContentGoneError:
        raise StorageFailed(
            "packs", "content went away while the archive was stored", hint="run the command again", retryable=True
        ) from None


class _Run:
    def __init__(self, repo: Repo, name: bytes, options: ImportOptions, progress: Progress, cancel: Cancel) -> None:
        self._repo = repo
        self._name = name
        self._options = options
        self._progress = progress
        self._cancel = cancel
        self._started_ns = repo.clock.now_ns()
        self._clock_ns = repo.clock.monotonic_ns()
        self._errors = 0
        self._failed: list[tuple[bytes, str]] = []
        self._failed_bytes = 0

    def fail(self, path: bytes, reason: str) -> None:
        """Counts and tells what could not be taken over."""
        self._errors += 1
        path = path[:4096].replace(b"\0", b"?") or self._name
        self._progress.note(-1, reason, path)
        self._failed_bytes += len(path)
        if len(self._failed) < FAILED_KEPT and self._failed_bytes < _FAILED_BYTES_KEPT:
            self._failed.append((path, reason))

    def run(self, stream: Stream) -> ImportResult:
        repo, options = self._repo, self._options
        with Session(repo, self._progress) as session, Spool(repo.cache_dir) as spool:
            if options.dry_run:
                repo.synchronise(self._progress)
                catalogue = load(repo)
            else:
                catalogue = session.begin()
            sink = DrySink(session.sink) if options.dry_run else session.sink
            low, mean, high, strict, loose = repo.config.chunker
            params = ChunkerParams(minimum=low, average=mean, maximum=high, strict=strict, loose=loose)
            contents = Contents(
                sink,
                Chunker(repo.ring.chunker_secret, params),
                self._progress,
                self._cancel,
                (lambda: None) if options.dry_run else session.save_if_due,
            )
            try:
                members = Members(unpacked(stream), self.fail)
                taker, about = self._take(spool, contents, members)
                result = self._finish(session, catalogue, sink, spool, taker, about, contents)
            except Interrupted:
                if not options.dry_run:
                    session.save()
                raise
            if result.snapshot is not None and not result.present:
                session.tidy(catalogue)
            return result

    def _take(self, spool: Spool, contents: Contents, members: Members) -> tuple[Taker, About]:
        """Reads the archive into the spool."""
        given = self._options.base
        taker = Taker(
            spool, contents, lambda: _parts(given or parse_about(members.comment).path), self.fail, self._progress
        )
        taker.before_ns = self._options.before_ns
        try:
            taker.take(members)
        except EndedError as error:
            self.fail(b"", str(error))
        if not taker.members:
            reason = self._failed[0][1] if self._failed else "it holds nothing"
            raise SourceError(self._name, reason, hint="name a tar archive, packed with gzip, bzip2, xz, zstd or not")
        return taker, parse_about(members.comment)

    def _finish(
        self,
        session: Session,
        catalogue: Catalogue,
        sink: ChunkSink | DrySink,
        spool: Spool,
        taker: Taker,
        about: About,
        contents: Contents,
    ) -> ImportResult:
        options, repo = self._options, self._repo
        planter = Planter(
            spool,
            sink,
            name_order=repo.ring.name_order,
            link_group=repo.ring.link_group,
            users=taker.users,
            groups=taker.groups,
            cancel=self._cancel,
        )
        base = options.base or about.path or b"/"
        whole = not options.base and about.path in {b"", b"/"}
        sources = about.sources if whole and about.sources else self._sources(spool, base)
        above = {node for path in sources for node in spool.above(_parts(path))}
        root = planter.plant(above)
        if not options.dry_run:
            session.save()
        time_ns = options.time_ns or about.time_ns or taker.times_ns or options.before_ns or self._started_ns
        host = options.host or about.host or options.default_host
        alike = [item for item in catalogue.snapshots if item.is_of(host, sources)]
        label = next_label(alike, host=host, sources=sources, bump=Bump.PATCH, time_ns=time_ns, zone=options.zone)
        near = (item.time_ns for item in alike if is_near(time_ns, item.time_ns))
        manifest = Manifest(
            session=session.id,
            root=root,
            sources=sources,
            time_ns=time_ns,
            started_ns=self._started_ns,
            ended_ns=repo.clock.now_ns(),
            host=host,
            user=about.user or options.user,
            uid=options.uid,
            kind=options.kind or about.kind or kind_by_rule(time_ns, near, options.zone),
            label=options.label or about.label or label,
            reason=options.reason or about.reason,
            tags=options.tags or about.tags,
            program=options.program,
            failed=tuple(self._failed),
        )
        parent = _parent(catalogue.snapshots, manifest)
        trees = TreeReader(repo.source)
        new, changed = planter.files, 0
        if parent is not None and not options.dry_run:
            new, changed = compare(trees, parent.manifest.root, root)
        tally = sink.tally
        manifest = replace(
            manifest,
            parent=parent.id if parent is not None else b"",
            figures=Figures(
                files=planter.files,
                directories=planter.directories,
                others=planter.others,
                length_bytes=planter.length_bytes,
                files_new=new,
                files_changed=changed,
                files_unchanged=max(0, planter.files - new - changed),
                read_bytes=contents.read_bytes,
                chunks_new=tally.chunks_new,
                chunk_bytes_new=tally.bytes_new,
                chunks_known=tally.chunks_known,
                chunk_bytes_known=tally.bytes_known,
                stored_bytes=tally.stored_bytes,
                errors=self._errors,
                duration_ns=repo.clock.monotonic_ns() - self._clock_ns,
            ),
        )
        twin = next((item for item in catalogue.snapshots if _same(item, manifest)), None)
        if twin is not None:
            return ImportResult(snapshot=twin.id, manifest=manifest, present=True, members=taker.members)
        snapshot = None if options.dry_run else session.commit(manifest, set())
        return ImportResult(snapshot=snapshot, manifest=manifest, members=taker.members)

    def _sources(self, spool: Spool, base: bytes) -> tuple[bytes, ...]:
        """Returns what counts as backed up: the topmost things that the archive names, or what they lie in."""
        tops = spool.tops(SOURCES_MAX)
        return tuple(tops) if tops else (base,)


def _parts(path: bytes) -> tuple[bytes, ...]:
    return tuple(part for part in path.split(b"/") if part)


def _same(item: Snapshot, manifest: Manifest) -> bool:
    other = item.manifest
    return (other.root, other.time_ns, other.host, other.sources) == (
        manifest.root,
        manifest.time_ns,
        manifest.host,
        manifest.sources,
    )


def _parent(snapshots: Sequence[Snapshot], manifest: Manifest) -> Snapshot | None:
    """Returns the latest snapshot of the same sources on the same host that is not later."""
    for item in reversed(snapshots):
        if item.time_ns <= manifest.time_ns and item.is_of(manifest.host, manifest.sources):
            return item
    return None
