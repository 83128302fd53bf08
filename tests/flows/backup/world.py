"""A tree to back up, a repository to back it up into, and both as dicts that can be compared."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Counting
from respaldo.catalog.snapshots import read_undecided
from respaldo.catalog.trees import TreeReader
from respaldo.chunk.chunker import ChunkerParams
from respaldo.codec.slots import STANDARD, Secret
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Cancel, Silent, system_random
from respaldo.flows.backup import files as files_module
from respaldo.flows.backup.options import BackupOptions, BackupResult
from respaldo.flows.backup.run import run_backup
from respaldo.format.config import Config
from respaldo.format.content import HOLE
from respaldo.format.figures import Changes
from respaldo.store.making import create
from respaldo.store.repo import Repo

HOUR_NS = 3600 * 10**9
SECRET = Secret(key=bytes(range(32)))
_GETFLAGS = 0x80086601
_KEPT_FLAGS = 0x2283C0FF


class ShiftedClock:
    """Is ahead of the machine's clock by as much as a test says: an hour, and everything in a tree looks old."""

    def __init__(self) -> None:
        self.shift_ns = HOUR_NS
        self.monotonic_shift_ns = 0

    def now_ns(self) -> int:
        return time.time_ns() + self.shift_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.monotonic_shift_ns


class Notes(Silent):
    """Keeps what a run says."""

    level = 2

    def __init__(self) -> None:
        self.notes: list[tuple[int, str, bytes]] = []

    def note(self, level: int, text: str, path: bytes = b"") -> None:
        self.notes.append((level, text, path))

    def why(self) -> dict[bytes, str]:
        return {os.path.basename(path): text for level, text, path in self.notes if level == 1}


@dataclass(frozen=True)
class Seen:
    """Is one entry, as far as a snapshot and the file system can agree on it. ``data`` is (offset, bytes) runs."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    attributes: int = 0
    rdev: int = 0
    data: tuple[tuple[int, bytes], ...] = ()
    group: frozenset[bytes] = frozenset()
    mark: int = 0


Model = dict[bytes, Seen]


@dataclass
class World:
    """Has a source, a repository in memory and a cache; backs up and compares."""

    path: Path
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    backend: Counting = field(default_factory=lambda: Counting(MemoryBackend()))
    notes: Notes = field(default_factory=Notes)

    def __post_init__(self) -> None:
        self.source = self.path / "source"
        self.source.mkdir(exist_ok=True)
        params = ChunkerParams.standard()
        create(
            self.backend,
            secret=SECRET,
            kdf=STANDARD,
            config=Config(chunker=(params.minimum, params.average, params.maximum, params.strict, params.loose)),
            clock=self.clock,
            random=system_random,
            label="",
        )
        self.repo = self.open()

    def open(self) -> Repo:
        return Repo.open(
            self.backend, SECRET, cache_dir=self.path / "local" / "cache", clock=self.clock, random=system_random
        )

    def reopen(self, *, forget: bool = False) -> None:
        """Opens the repository again, as another run of the program would; ``forget`` takes the local cache away."""
        self.repo.index.close()
        if forget:
            (self.path / "local" / "cache").rename(self.path / "local" / f"{time.monotonic_ns()}")
        self.repo = self.open()

    def backup(self, *sources: Path | bytes, cancel: Cancel | None = None, **options: object) -> BackupResult:
        self.notes = Notes()
        return run_backup(
            self.repo,
            [os.fsencode(source) for source in sources or (self.source,)],
            BackupOptions(**options),  # type: ignore[arg-type]
            progress=self.notes,
            cancel=cancel or Cancel(),
        )

    def model(self, result: BackupResult, base: Path | bytes | None = None) -> Model:
        """Returns everything below a path of a snapshot."""
        return read_model(self.repo, result, os.fsencode(self.source if base is None else base))

    def check(self, *, lost: bool = False, **options: object) -> BackupResult:
        """Backs up and holds the snapshot against the source; all of it must be readable.

        ``lost``: a pack is, and perhaps what was below the parent, with which nothing can be compared then.
        """
        result = self.backup(**options)
        assert_equal(self.model(result), walk_model(self.source))
        assert result.complete, result.manifest.failed
        assert_figures(result, self.model(result))
        with contextlib.suppress(ChunkMissing) if lost else contextlib.nullcontext():
            assert_changes(self.repo, result)
        return result

    @property
    def snapshots(self) -> list[str]:
        return [name for name, _ in self.backend.list("outcome")]


def assert_equal(found: Model, expected: Model) -> None:
    """Compares two models, naming the paths that differ."""
    assert sorted(found) == sorted(expected)
    differing = {path: (found[path], expected[path]) for path in expected if found[path] != expected[path]}
    assert not differing, "\n".join(f"{path!r}:\n  {a}\n  {b}"[:2000] for path, (a, b) in differing.items())


def assert_figures(result: BackupResult, model: Model) -> None:
    """Holds the figures of a snapshot of one directory against what is in it; directories above it count too."""
    figures = result.figures
    regular = [seen for seen in model.values() if stat.S_ISREG(seen.mode)]
    directories = [seen for seen in model.values() if stat.S_ISDIR(seen.mode)]
    above = result.manifest.sources[0].count(b"/")
    assert figures.files == len(regular)
    assert figures.length_bytes == sum(seen.size for seen in regular)
    assert figures.directories == len(directories) + 1 + above
    assert figures.others == len(model) - len(regular) - len(directories)
    assert figures.files_new + figures.files_changed + figures.files_unchanged == figures.files


def assert_changes(repo: Repo, result: BackupResult) -> None:
    """Holds what a snapshot says was added, changed and removed against it and its parent, entry by entry."""
    parent = result.manifest.parent
    before = {} if not parent else plain_entries(repo, read_undecided(repo, SnapshotId(parent))[0].root)
    after = plain_entries(repo, result.manifest.root)
    expected = Changes(
        added=len(after.keys() - before.keys()),
        changed=sum(before[path] != after[path] for path in before.keys() & after.keys()),
        removed=len(before.keys() - after.keys()),
    )
    assert result.manifest.changes == expected, (
        before.keys() ^ after.keys(),
        [(before[p], after[p]) for p in before.keys() & after.keys() if before[p] != after[p]],
    )


def plain_entries(repo: Repo, root: ChunkId) -> dict[bytes, Entry]:
    """Returns what is below a tree but for directories, without what no restore brings back."""
    return {
        path: replace(entry, btime_ns=0, link_group=b"linked" if entry.link_group else b"")
        for path, entry in entries_of(repo, root)
        if not entry.is_dir
    }


# --- snapshots -----------------------------------------------------------------------------------------------------


def entries_below(repo: Repo, result: BackupResult) -> Iterator[tuple[bytes, Entry]]:
    """Yields every (path, entry) of a snapshot."""
    return entries_of(repo, result.manifest.root)


def entries_of(repo: Repo, root: ChunkId) -> Iterator[tuple[bytes, Entry]]:
    """Yields every (path, entry) below a tree."""
    trees = TreeReader(repo.source)
    stack = [(b"", root)]
    while stack:
        above, tree = stack.pop()
        for entry in trees.entries(tree):
            path = above + b"/" + entry.name
            yield path, entry
            if entry.is_dir:
                stack += [(path, child) for child in entry.content]


def entry_at(repo: Repo, result: BackupResult, path: Path | bytes) -> Entry:
    """Returns the entry of a path in a snapshot."""
    wanted = os.fsencode(path)
    return next(entry for found, entry in entries_below(repo, result) if found == wanted)


def read_model(repo: Repo, result: BackupResult, base: bytes) -> Model:
    """Returns what a snapshot holds below a path, by path relative to it."""
    trees = TreeReader(repo.source)
    found = dict(entries_below(repo, result))
    below = base.rstrip(b"/") + b"/"
    groups: dict[bytes, set[bytes]] = {}
    for path, entry in found.items():
        if entry.link_group:
            groups.setdefault(entry.link_group, set()).add(path.removeprefix(below))
    model: Model = {}
    for path, entry in found.items():
        if not path.startswith(below):
            continue
        model[path.removeprefix(below)] = Seen(
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            size=entry.size if entry.is_regular else 0,
            mtime_ns=entry.mtime_ns,
            target=entry.target,
            xattrs=entry.xattrs,
            attributes=entry.attributes,
            rdev=entry.rdev,
            data=content_of(repo, trees, entry) if entry.is_regular else (),
            group=frozenset(groups.get(entry.link_group, ())),
            mark=entry.mark,
        )
    return model


def content_of(repo: Repo, trees: TreeReader, entry: Entry) -> tuple[tuple[int, bytes], ...]:
    """Returns the runs of data of a file, joined where they meet."""
    from respaldo.core.ids import Kind

    pieces: list[tuple[int, bytes]] = []
    at = 0
    if entry.content.level == 0:
        for chunk_id in entry.content:
            raw = repo.source.get(Kind.DATA, chunk_id)
            pieces.append((at, raw))
            at += len(raw)
    else:
        for row in trees.list_rows(entry.content):
            if row.id != HOLE:
                raw = repo.source.get(Kind.DATA, row.id)
                assert len(raw) == row.length
                pieces.append((at, raw))
            at += row.length
    if entry.mark not in (Mark.UNREADABLE, Mark.LOST):
        assert at == entry.size
    return joined(pieces)


def joined(pieces: list[tuple[int, bytes]]) -> tuple[tuple[int, bytes], ...]:
    """Joins runs of data that follow one another."""
    runs: list[tuple[int, list[bytes]]] = []
    end = -1
    for at, raw in pieces:
        if at == end:
            runs[-1][1].append(raw)
        else:
            runs.append((at, [raw]))
        end = at + len(raw)
    return tuple((at, b"".join(parts)) for at, parts in runs)


# --- the file system ------------------------------------------------------------------------------------------------


def walk_model(base: Path | bytes) -> Model:
    """Returns what lies below a directory, by path relative to it."""
    model: Model = {}
    groups: dict[tuple[int, int], set[bytes]] = {}
    grouped: dict[bytes, tuple[int, int]] = {}
    stack = [(os.open(base, os.O_RDONLY), b"")]
    while stack:
        fd, above = stack.pop()
        try:
            for text in os.listdir(fd):
                name = os.fsencode(text)
                path = above + name
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                model[path] = _seen(fd, name, status)
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    grouped[path] = (status.st_dev, status.st_ino)
                    groups.setdefault(grouped[path], set()).add(path)
                if stat.S_ISDIR(status.st_mode):
                    stack.append((os.open(name, os.O_RDONLY, dir_fd=fd), path + b"/"))
        finally:
            os.close(fd)
    for path, key in grouped.items():
        model[path] = Seen(**{**vars(model[path]), "group": frozenset(groups[key])})
    return model


def _seen(fd: int, name: bytes, status: os.stat_result) -> Seen:
    kind = stat.S_IFMT(status.st_mode)
    device = kind in (stat.S_IFBLK, stat.S_IFCHR)
    here = b"/proc/self/fd/%d/%s" % (fd, name)
    attributes = 0
    data: tuple[tuple[int, bytes], ...] = ()
    if kind in (stat.S_IFREG, stat.S_IFDIR):
        opened = os.open(name, os.O_RDONLY, dir_fd=fd)
        try:
            attributes = _flags(opened)
            if kind == stat.S_IFREG:
                data = _runs(opened, status.st_size)
        finally:
            os.close(opened)
    return Seen(
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == stat.S_IFREG else 0,
        mtime_ns=status.st_mtime_ns,
        target=os.readlink(name, dir_fd=fd) if kind == stat.S_IFLNK else b"",
        xattrs=_xattrs(here),
        attributes=attributes,
        rdev=os.major(status.st_rdev) << 32 | os.minor(status.st_rdev) if device else 0,
        data=data,
    )


def _xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    with contextlib.suppress(OSError):
        names = os.listxattr(path, follow_symlinks=False)
        return tuple(sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names))
    return ()


def _flags(fd: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(fd, _GETFLAGS, bytes(8))[:4], "little") & _KEPT_FLAGS
    except OSError:
        return 0


def _runs(fd: int, size: int) -> tuple[tuple[int, bytes], ...]:
    pieces = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # nothing but a hole up to the end
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        pieces.append((begin, os.pread(fd, at - begin, begin)))
    return joined(pieces)


class Reads:
    """Counts which files are opened for reading and which are gathered, while it is in force."""

    def __init__(self, monkeypatch) -> None:
        self.gathered: list[bytes] = []
        self.opened: list[bytes] = []
        real_gather = files_module.gather
        real_read = files_module.FileReader.read

        def gather(fd, names, *rest):
            self.gathered += names.split(b"\0")[:-1]
            return real_gather(fd, names, *rest)

        def read(reader, name, *rest):
            self.opened.append(os.path.basename(name))
            return real_read(reader, name, *rest)

        monkeypatch.setattr(files_module, "gather", gather)
        monkeypatch.setattr(files_module.FileReader, "read", read)

    def take(self) -> list[bytes]:
        """Returns the names that were read since the last call."""
        names = sorted({*self.gathered, *self.opened})
        self.gathered.clear()
        self.opened.clear()
        return names
