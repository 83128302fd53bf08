"""Sides: two snapshots, or a snapshot and a directory of this machine, as `respaldo.views.diff` compares them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from respaldo import kernel
from respaldo.catalog.parted import parted
from respaldo.catalog.trees import TreeReader, check_run
from respaldo.core.errors import ChunkMissing, Corruption, SourceError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry, Mark
from respaldo.core.seams import Buffer, Progress
from respaldo.format.content import HOLE
from respaldo.format.tree import Leaf
from respaldo.fs.meta import Names, read_xattrs
from respaldo.fs.recorded import recorded_limit, recorded_rules
from respaldo.kernel.layout import ENTRY_FAILED, IDENT, META
from respaldo.store.source import Location
from respaldo.views.content import WITHOUT_CONTENT
from respaldo.views.diff import plain_fields
from respaldo.views.walk import tree_of

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NOT_ALL_THERE = frozenset({Mark.UNREADABLE, Mark.MOUNT, Mark.EXCLUDED})


class Source(Protocol):
    """Says how long chunks are, and checks bytes against an id."""

    def locate(self, kind: Kind, chunk_id: ChunkId) -> Location: ...

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Is a directory that could not be compared, by its path below what is. ``lost``: a repair has given it up."""

    path: bytes
    reason: str
    lost: bool


class Snapshots:
    """Compares two snapshots: by ids, so that no content is read."""

    def __init__(self, trees: TreeReader) -> None:
        self._trees = trees
        self.gaps: dict[bytes, Gap] = {}
        """What could not be compared, by path: of a directory of which one side cannot be read, nothing is said."""

    def before(self, entry: Entry, path: bytes) -> Iterator[Entry]:
        """Yields what is in a directory."""
        opened = self._opened(entry, path)
        return iter(()) if opened is None else self._entries(opened, frozenset(), entry, path)

    def after(self, entry: Entry, path: bytes) -> Iterator[Entry]:
        """Yields what is in a directory."""
        return self.before(entry, path)

    def both(self, before: Entry, after: Entry, path: bytes) -> tuple[Iterator[Entry], Iterator[Entry]] | None:
        """Returns what of two directories is not in both, as far as that is seen at once; None where nothing is."""
        one, other = tree_of(before), tree_of(after)
        if one == other:
            return None
        if one is None or other is None:
            return self.before(before, path), self.before(after, path)
        opened, other_opened = self._opened(before, path), self._opened(after, path)
        if opened is None or other_opened is None:
            return None
        common: AbstractSet[ChunkId] = frozenset()
        if isinstance(opened, list) and isinstance(other_opened, list):
            common = set(opened) & set(other_opened)
        if isinstance(opened, Leaf) and isinstance(other_opened, Leaf):
            opened, other_opened = parted(opened, other_opened)
        ones, others = self._entries(opened, common, before, path), self._entries(other_opened, common, after, path)
        return None if path in self.gaps else (ones, others)

    def _opened(self, entry: Entry, path: bytes) -> Leaf | list[ChunkId] | None:
        """Returns a directory, a long one as its runs; None where it cannot be read: that is told."""
        tree = tree_of(entry)
        try:
            return [] if tree is None else self._trees.opened(tree)
        except (ChunkMissing, Corruption) as error:
            self._tell(entry, path, error)
            return None

    def _entries(
        self, opened: Leaf | list[ChunkId], common: AbstractSet[ChunkId], entry: Entry, path: bytes
    ) -> Iterator[Entry]:
        """Returns what is in a directory, but for common runs; nothing where a run cannot be read: that is told.

        What stands in a run that is missing would else seem to have come or gone.
        """
        if isinstance(opened, Leaf):
            return opened.entries()
        runs = [run for run in opened if run not in common]
        try:
            last = b""
            for run in runs:
                last = check_run(self._trees.opened(run), last, f"tree {run.hex()[:16]}")
        except (ChunkMissing, Corruption) as error:
            self._tell(entry, path, error)
            return iter(())
        return chain.from_iterable(map(self._trees.entries, runs))

    def _tell(self, entry: Entry, path: bytes, error: ChunkMissing | Corruption) -> None:
        lost = entry.mark is Mark.LOST and isinstance(error, ChunkMissing)
        reason = WITHOUT_CONTENT[Mark.LOST] if lost else str(error)
        self.gaps.setdefault(path, Gap(path=path, reason=reason, lost=lost))

    def fields(self, before: Entry, after: Entry, path: bytes) -> tuple[str, ...]:  # noqa: ARG002
        """Returns what differs between two entries of one type."""
        content = before.is_regular and (before.content, before.size) != (after.content, after.size)
        return (*(("content",) if content else ()), *plain_fields(before, after))

    def key(self, entry: Entry, *, live: bool) -> bytes:  # noqa: ARG002
        """Returns ids: of a directory's tree, of a file's chunks."""
        return entry.content.ids if entry.is_dir or entry.is_regular else b""

    def same(self, before: Entry, after: Entry, path: bytes) -> bool:  # noqa: ARG002
        """Whether content is equal: the ids are."""
        return before.content == after.content


class Live:
    """Compares a snapshot with a directory as it is now.

    A file with the size and the time that were recorded counts as unchanged unless ``checksum`` asks for its content to
    be read. What the snapshot left out by its rules is left out here, too. Inode flags are not compared.
    """

    def __init__(
        self,
        source: Source,
        trees: TreeReader,
        *,
        top: bytes,
        relative: bytes,
        rules: Sequence[str],
        checksum: bool,
        progress: Progress,
    ) -> None:
        self._source = source
        self._trees = trees
        self._top = top
        self._relative = relative
        self._rules = recorded_rules(rules)
        self._larger_bytes = recorded_limit(rules)
        self._checksum = checksum
        self._progress = progress
        self._names = Names()
        self._recorded = Snapshots(trees)
        self.gaps = self._recorded.gaps
        """Directories of the snapshot that could not be read, by path."""
        self.failed = 0
        """What could not be looked at."""

    def root(self, recorded: Entry) -> Entry:
        """Returns what is at the top now; raises `SourceError` where there is nothing."""
        try:
            status = os.lstat(self._top or b"/")
        except OSError as error:
            raise SourceError(self._top, error.strerror or str(error)) from None
        device = stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)
        number = os.major(status.st_rdev) << 32 | os.minor(status.st_rdev) if device else status.st_size
        meta = (status.st_mode, status.st_uid, status.st_gid, 0, number, status.st_mtime_ns, 0)
        links = status.st_nlink if not stat.S_ISDIR(status.st_mode) else 1
        return self._entry(recorded.name, meta, links, b"")

    def before(self, entry: Entry, path: bytes) -> Iterator[Entry]:
        """Yields what was in a directory."""
        return self._recorded.before(entry, path)

    def after(self, entry: Entry, path: bytes) -> Iterator[Entry]:  # noqa: ARG002 - the path says it
        """Yields what is in a directory, but for what the rules leave out."""
        found = self._scan(path)
        return iter(()) if found is None else self._entries(path, *found)

    def both(self, before: Entry, after: Entry, path: bytes) -> tuple[Iterator[Entry], Iterator[Entry]] | None:  # noqa: ARG002
        """Returns what was and what is in a directory; None where one of the two is not known."""
        found = None if before.mark in _NOT_ALL_THERE else self._scan(path)
        if found is None:
            return None
        recorded = self.before(before, path)
        if path in self.gaps:
            return None
        entries = self._entries(path, *found)
        if before.mark is Mark.PARTIAL:  # of what it lacks, nobody knows whether it was there
            names = {entry.name for entry in self.before(before, path)}
            entries = (entry for entry in entries if entry.name in names)
        return recorded, entries

    def _scan(self, path: bytes) -> tuple[bytes, bytes, bytes] | None:
        """Returns names and rows, None where they cannot be had; holds no descriptor: a tree may be deep."""
        try:
            fd = os.open((self._top + path) or b"/", _OPEN_DIRECTORY)
            try:
                return kernel.scan(fd, 0, 0)
            finally:
                os.close(fd)
        except OSError as error:
            self._warn(path, error)
            return None

    def _entries(self, path: bytes, joined: bytes, meta: bytes, ident: bytes) -> Iterator[Entry]:
        names = joined.split(b"\0")[:-1]
        rows = list(META.iter_unpack(meta))
        kept = self._rules.kept((self._relative + path).strip(b"/"), names, [stat.S_ISDIR(row[0]) for row in rows])
        columns = zip(names, rows, IDENT.iter_unpack(ident), strict=True)
        for place, (name, row, (_, _, links, flags)) in enumerate(columns):
            if flags & ENTRY_FAILED:
                self._warn(path + b"/" + name, OSError(links, os.strerror(links)))
            elif (kept is None or kept[place]) and not (0 < self._larger_bytes < row[4] and stat.S_ISREG(row[0])):
                yield self._entry(name, row, links, path + b"/" + name)

    def fields(self, before: Entry, after: Entry, path: bytes) -> tuple[str, ...]:
        """Returns what differs between two entries of one type; reads content where size and time do not tell."""
        content = False
        if before.is_regular and before.mark not in {Mark.UNREADABLE, Mark.LOST}:
            content = before.size != after.size
            if not content and (self._checksum or before.mtime_ns != after.mtime_ns):
                content = not self.same(before, after, path)
        fields = plain_fields(before, after)
        owner = (before.uid, before.gid) != (after.uid, after.gid)  # names may have changed for the same numbers
        left = [name for name in fields if name not in {"flags", "mark"} and (name != "owner" or owner)]
        return (*(("content",) if content else ()), *left)

    def key(self, entry: Entry, *, live: bool) -> bytes:  # noqa: ARG002
        """Returns the length of a file: content that is not backed up has no ids."""
        return b"%d" % entry.size if entry.is_regular and entry.size else b""

    def same(self, before: Entry, after: Entry, path: bytes) -> bool:
        """Whether a file has the content that was recorded; reads it, piece by piece."""
        if before.size != after.size or not before.is_regular:
            return False
        try:
            fd = os.open(self._top + path, _OPEN_FILE)
        except OSError as error:
            self._warn(path, error)
            return False
        try:
            return self._same(fd, before)
        except OSError as error:
            self._warn(path, error)
            return False
        finally:
            os.close(fd)

    def _same(self, fd: int, entry: Entry) -> bool:
        at = 0
        for chunk_id, length in self._lengths(entry.content, entry.size):
            if chunk_id == HOLE:
                for start in range(at, at + length, 1 << 20):
                    raw = os.pread(fd, min(1 << 20, at + length - start), start)
                    if raw.count(0) != len(raw):
                        return False
            else:
                raw = os.pread(fd, length, at)
                if len(raw) != length or not self._is(chunk_id, raw):
                    return False
            at += length
        return at == entry.size

    def _lengths(self, content: Content, size: int) -> Iterator[tuple[ChunkId, int]]:
        if content.level:
            yield from self._trees.list_rows(content)
        elif len(content) == 1:
            yield next(iter(content)), size
        else:
            for chunk_id in content:
                yield chunk_id, self._source.locate(Kind.DATA, chunk_id).length

    def _is(self, chunk_id: ChunkId, raw: bytes) -> bool:
        try:
            self._source.check(Kind.DATA, chunk_id, raw)
        except Corruption:
            return False
        return True

    def _entry(self, name: bytes, meta: tuple[int, ...], links: int, path: bytes) -> Entry:
        mode, uid, gid, _, size, mtime_ns, _ = meta
        device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
        target = b""
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        try:
            if stat.S_ISLNK(mode):
                target = os.readlink(self._top + path)
            xattrs = read_xattrs((self._top + path) or b"/")
        except OSError as error:
            self._warn(path, error)
        return Entry(
            name=name,
            mode=mode,
            uid=uid,
            gid=gid,
            size=0 if device or stat.S_ISDIR(mode) else size,
            rdev=size if device else 0,
            mtime_ns=mtime_ns,
            target=target,
            link_group=bytes(16) if links > 1 and not stat.S_ISDIR(mode) else b"",
            xattrs=xattrs,
            user=self._names.user(uid),
            group=self._names.group(gid),
        )

    def _warn(self, path: bytes, error: OSError) -> None:
        self.failed += 1
        self._progress.note(-1, error.strerror or str(error), self._top + path)
