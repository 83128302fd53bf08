"""What looks into files, and at many snapshots at once: dump, diff, find, history, export, costs.

Everything is computed from manifests and trees; nothing is written to the repository.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, NamedTuple

from respaldo.api.naming import Found, covers
from respaldo.catalog.kinds import kind_of
from respaldo.catalog.register import FOLDER_NAME, Register
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Corruption, SourceError, TargetError, UsageError
from respaldo.core.seams import Buffer, Cancel, Progress
from respaldo.store.repo import Repo
from respaldo.store.source import KEPT_BYTES_MANY
from respaldo.views.content import WITHOUT_CONTENT
from respaldo.views.criteria import Criteria
from respaldo.views.find import Find as Finding

if TYPE_CHECKING:
    from respaldo.api.costing import Costing
    from respaldo.api.exporting import Exported
    from respaldo.api.recording import Accesses, Ending
    from respaldo.views.ahead import Ahead
    from respaldo.views.checksums import Checksum, Known
    from respaldo.views.diff import Change
    from respaldo.views.history import State
    from respaldo.views.sides import Gap

Write = Callable[[Buffer], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dumped:
    """Is what was written out.

    ``left_out``: how many entries the form of it cannot hold, or have no content; ``damaged``: how many are left out
    for damage, or are directories of which something is.
    """

    length_bytes: int
    sha256: str
    files: int = 1
    left_out: int = 0
    damaged: int = 0

    @property
    def exit_status(self) -> int:
        """0 all is there, 3 something is left out, 4 for damage."""
        return 4 if self.damaged else 3 if self.left_out else 0


class Comparison(NamedTuple):
    """Is what differs, in the order of paths, and what could not be compared, which is known when that is through.

    ``gaps``: directories of snapshots that could not be read, by whole paths; ``failed``: how much of this machine's
    could not be looked at.
    """

    changes: Iterator[Change]
    gaps: Callable[[], Sequence[Gap]]
    failed: Callable[[], int]


class Looking:
    """Looks into one repository. One thread."""

    def __init__(
        self, repo: Repo, trees: TreeReader, listed: Callable[[], Catalogue], accesses: Callable[[], Accesses]
    ) -> None:
        self._repo = repo
        self._accesses = accesses
        self._listed = listed
        self._known: Sequence[Snapshot] = ()
        self.damaged: Sequence[Corruption] = ()
        """Records of snapshots that could not be read when these were listed: what they hold was not looked at."""
        self._trees = trees
        self._opened: Register | None = None

    def close(self) -> None:
        """Makes what was found out durable."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def dump(self, found: Found, write: Write, *, progress: Progress) -> Dumped:
        """Writes the content of a file, a directory as a tar archive.

        Raises `Corruption` and `ChunkMissing` where content is damaged: what was written by then is all there is of it;
        `NotRecorded` before anything is.
        """
        with self._recorded("dump", found) as ending:
            done = self._dump(found, write, progress)
            ending.take(done.exit_status, done.length_bytes)
        return done

    def _recorded(
        self, verb: str, found: Found, *, target: bytes = b"", note: str = ""
    ) -> AbstractContextManager[Ending]:
        return self._accesses().recorded(
            verb, snapshots=[found.snapshot.id], paths=[found.path], target=target, note=note
        )

    def _dump(self, found: Found, write: Write, progress: Progress) -> Dumped:
        if found.entry.is_dir:
            return self._export(found, "tar", write, progress)
        counted = _Counted(write)
        if not found.entry.is_regular:
            raise UsageError(
                f"{_shown(found.path)} is neither a file nor a directory: {_kind(found.entry.mode)}",
                hint="links are not followed; name what it leads to" if found.entry.is_symlink else "",
            )
        if found.entry.mark in WITHOUT_CONTENT:
            raise SourceError(found.path, WITHOUT_CONTENT[found.entry.mark])
        with self._ahead() as contents:
            for member in contents.members(iter([(found.path, found.entry)])):
                if member.error is not None:
                    raise member.error
                for raw in contents.read(found.entry):
                    counted(raw)
        return Dumped(length_bytes=counted.length, sha256=counted.hexdigest())

    def export(self, found: Found, form: str, write: Write, *, target: bytes = b"", progress: Progress) -> Dumped:
        """Writes a directory or file as an archive in one of the `exporting.FORMATS`; the same bytes every time.

        Remembers the SHA-256 of each file, and of a whole snapshot that all of it was read, where that can be written.
        ``target``: where it goes, for the access log. Raises `NotRecorded` before anything is written.
        """
        with self._recorded("export", found, target=target, note=form) as ending:
            done = self._export(found, form, write, progress)
            ending.take(done.exit_status, done.length_bytes)
        return done

    def _export(self, found: Found, form: str, write: Write, progress: Progress) -> Dumped:
        from respaldo.api.blocks import trees_below  # noqa: PLC0415 - start-up time
        from respaldo.api.verifying import remember  # noqa: PLC0415 - start-up time
        from respaldo.catalog.sums import SumsKept  # noqa: PLC0415 - start-up time
        from respaldo.format.verification import How  # noqa: PLC0415 - start-up time
        from respaldo.views.archive import about, fill  # noqa: PLC0415 - start-up time
        from respaldo.views.packed import gzip, zstd  # noqa: PLC0415 - start-up time
        from respaldo.views.tar import Tar  # noqa: PLC0415 - start-up time
        from respaldo.views.zip import Zip  # noqa: PLC0415 - start-up time

        counted = _Counted(write)
        packed = {"tar.gz": gzip, "tar.zst": zstd}[form](counted) if form in {"tar.gz", "tar.zst"} else None
        trees = trees_below(self._repo, found.entry)
        with SumsKept(self._repo) as known, self._ahead(known) as contents:
            archive: Tar | Zip = Zip(counted, contents)
            if form != "zip":
                archive = Tar(packed or counted, contents)
                folder = found.path if found.entry.is_dir else os.path.dirname(found.path)
                archive.comment(about(found.snapshot.manifest, folder))
            filled = fill(archive, trees, contents, found.entry, progress)
        if packed is not None:
            packed.finish()
        if found.path == b"/" and not filled.left_out and not filled.damaged:
            remember(self._repo, [(found.snapshot.id, found.snapshot.manifest.root)], How.EXPORT)
        return Dumped(
            length_bytes=counted.length,
            sha256=counted.hexdigest(),
            files=filled.members,
            left_out=filled.left_out,
            damaged=filled.damaged,
        )

    @contextlib.contextmanager
    def _ahead(self, known: Known | None = None) -> Iterator[Ahead]:
        """Gives what reads contents, with threads that open blocks ahead; ``known`` learns their SHA-256."""
        from respaldo.api.blocks import Blocks  # noqa: PLC0415 - start-up time
        from respaldo.store.fetch import Fetcher  # noqa: PLC0415 - start-up time
        from respaldo.views.ahead import Ahead  # noqa: PLC0415 - start-up time
        from respaldo.views.checksums import SummingAhead  # noqa: PLC0415 - start-up time

        blocks = Blocks(self._repo)
        with Fetcher(blocks, Cancel()) as fetcher:
            if known is None:
                yield Ahead(self._repo.source, self._trees, blocks, fetcher)
            else:
                yield SummingAhead(self._repo.source, self._trees, blocks, fetcher, known)

    def checksums(
        self, found: Found, *, anew: bool, progress: Progress, cancel: Cancel, failed: Callable[[bytes, object], None]
    ) -> Iterator[Checksum]:
        """Yields the SHA-256 of every file of a directory, or of one; ``failed`` is told of those that have none.

        With ``anew`` from the content, whatever is kept; a whole snapshot that is read so counts as verified. Raises
        `NotRecorded` before the first one.
        """
        from respaldo.api.verifying import list_checksums  # noqa: PLC0415 - start-up time

        with self._recorded("checksums", found):
            yield from list_checksums(
                self._repo, self._trees, found, anew=anew, progress=progress, cancel=cancel, failed=failed
            )

    def export_to(
        self,
        found: Found,
        form: str,
        target: bytes,
        *,
        template: str | None = None,
        prefix: str = "",
        zone: tzinfo = UTC,
        force: bool = False,
        progress: Progress,
    ) -> Exported:
        """Writes an archive to a file, or into a directory under the name that a template makes; its SHA-256 beside it.

        ``template``: None for `exporting.TEMPLATE`. Raises `UsageError` for one that makes no name, `TargetError`.
        """
        from respaldo.api import exporting  # noqa: PLC0415 - start-up time

        template = exporting.TEMPLATE if template is None else template
        exporting.check_template(template)
        named = not os.path.isdir(target)
        folder = (os.path.dirname(target) or b".") if named else target
        if named and not force and os.path.lexists(target):
            raise TargetError(target, "it exists already", hint="name another, or use --force")
        if named and os.path.lexists(target) and not os.path.isfile(target):
            # As root, a rename would put the archive in the place of /dev/null.
            hint = "an archive for a pipe or a device goes to standard output: -o - > TARGET"
            raise TargetError(target, "it is no regular file, and is not replaced", hint=hint)
        with exporting.new_file(folder) as (file, publish):
            done = self.export(found, form, file.write, target=os.path.abspath(target), progress=progress)
            path = target
            if not named:
                name = exporting.name_of(template, found, done.sha256, prefix=prefix, zone=zone)
                path = os.path.join(folder, name + b"." + form.encode())
            publish(path, force)
        exporting.write_checksum(path, done.sha256)
        return exporting.Exported(
            path=path,
            sha256=done.sha256,
            length_bytes=done.length_bytes,
            members=done.files,
            left_out=done.left_out,
            damaged=done.damaged,
        )

    def costing(self, *, progress: Progress, cancel: Cancel) -> Costing:
        """Says what snapshots cost, and where the space lies."""
        from respaldo.api.costing import Costing  # noqa: PLC0415 - start-up time

        return Costing(self._repo, self._trees, progress=progress, cancel=cancel)

    def diff(self, before: Found, after: Found) -> Comparison:
        """Compares two directories or files of snapshots."""
        from respaldo.views.diff import compare, placed  # noqa: PLC0415 - start-up time
        from respaldo.views.sides import Snapshots  # noqa: PLC0415 - start-up time

        self._repo.source.kept_bytes = KEPT_BYTES_MANY
        sides = Snapshots(self._trees)
        changes = (placed(change, before.path, after.path) for change in compare(sides, before.entry, after.entry))
        return Comparison(changes, lambda: _gaps(sides.gaps, before.path), lambda: 0)

    def diff_live(self, before: Found, target: bytes, *, checksum: bool, progress: Progress) -> Comparison:
        """Compares a directory or file of a snapshot with what is at a path of this machine now.

        Raises `SourceError` where nothing is there.
        """
        from respaldo.views.diff import compare, placed  # noqa: PLC0415 - start-up time
        from respaldo.views.sides import Live  # noqa: PLC0415 - start-up time

        manifest = before.snapshot.manifest
        inside = [source for source in manifest.sources if (before.path + b"/").startswith(source.rstrip(b"/") + b"/")]
        live = Live(
            self._repo.source,
            self._trees,
            top=target.rstrip(b"/"),
            relative=before.path[len(max(inside, key=len, default=b"/")) :],
            rules=manifest.rules,
            checksum=checksum,
            progress=progress,
        )
        top = live.root(before.entry)
        shown = (placed(change, before.path, target) for change in compare(live, before.entry, top))
        return Comparison(shown, lambda: _gaps(live.gaps, before.path), lambda: live.failed)

    def snapshots(
        self, *, host: str = "", tags: Collection[str] = (), kind: str = "", covering: bytes = b""
    ) -> list[Snapshot]:
        """Returns the snapshots in which is looked, by time: of a host, with all tags, of a kind, that cover a path."""
        found = self._listed()
        self._known, self.damaged = found.snapshots, found.damaged
        return [
            item
            for item in self._known
            if (not host or item.manifest.host == host)
            and set(tags) <= set(item.manifest.tags)
            and (not kind or kind_of(item.manifest.kind, item.manifest.parent) == kind)
            and (not covering or covers(item, covering))
        ]

    def find(self, snapshots: Sequence[Snapshot], criteria: Criteria) -> Finding:
        """Looks through snapshots, each directory once however many of them hold it."""
        roots = [item.manifest.root for item in snapshots]
        living = [item.manifest.root for item in self._known]
        return Finding(self._repo.source, self._repo.index, self._register, roots, criteria, living=living)

    @property
    def _register(self) -> Register:
        if self._opened is None:
            self._opened = Register(self._repo.cache_dir / FOLDER_NAME)
        return self._opened

    def history(self, snapshots: Sequence[Snapshot], path: bytes) -> Iterator[State]:
        """Yields the states of a path in snapshots, numbered by their place."""
        from respaldo.views.history import history  # noqa: PLC0415 - start-up time

        return history(self._register, self._trees, [item.manifest.root for item in snapshots], path)


def _gaps(gaps: Mapping[bytes, Gap], top: bytes) -> list[Gap]:
    return [replace(gap, path=(top.rstrip(b"/") + gap.path) or b"/") for gap in gaps.values()]


class _Counted:
    """Counts and hashes what goes by."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self._hash = hashlib.sha256()
        self.length = 0

    def __call__(self, data: Buffer) -> None:
        self._hash.update(data)
        self.length += len(data)
        self._write(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _kind(mode: int) -> str:
    names = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return names.get(stat.S_IFMT(mode), "a device")


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
