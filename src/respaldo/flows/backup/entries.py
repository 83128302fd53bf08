"""Entries: everything in a directory but its subdirectories' content.

First every entry is compared with what is remembered of it, then what differs is read: so a run that is cut off in a
long directory has lost nothing of what was known. Links and special files are recorded, never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from blake3 import blake3

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Progress
from respaldo.flows.backup.compare import equal_ident, reason_to_read
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame, Node
from respaldo.flows.backup.memo import Memo, Remembered
from respaldo.flows.backup.options import BackupOptions, Counts
from respaldo.flows.backup.reader import SMALL_BYTES, FileReader, Progresses, ReadFile
from respaldo.flows.backup.trust import Trust
from respaldo.format.tree import LINK_GROUP_BYTES, META, Leaf, parse_tree
from respaldo.fs.meta import beside, read_flags, read_xattrs
from respaldo.kernel import gather, layout, scan
from respaldo.kernel.layout import GATHERED, IDENT

_LEAF_BYTES_MAX = 1 << 31


class Old(NamedTuple):
    """Is what is remembered of an entry. ``ident`` is empty where it comes from a snapshot, not from the memo."""

    meta: bytes
    ident: bytes
    entry: Entry


class Linked(NamedTuple):
    """Is a hard-linked file that was met before in this run."""

    meta: bytes
    ids: bytes
    level: int
    xattrs: tuple[tuple[bytes, bytes], ...]


def failure(counts: Counts, progress: Progress, path: bytes, error: OSError) -> None:
    """Counts and reports a path that could not be read."""
    reason = "it vanished while it was read" if error.errno == errno.ENOENT else (error.strerror or str(error))
    counts.fail(path, reason)
    progress.note(-1, reason, path)


class Entries:
    """Finds out about the entries of directories, and stores the content of files. One thread."""

    def __init__(
        self,
        *,
        reader: FileReader,
        memo: Memo | None,
        trust: Trust,
        options: BackupOptions,
        link_key: bytes,
        counts: Counts,
        progress: Progress,
    ) -> None:
        self.reader = reader
        self._memo = memo
        self._trust = trust
        self._options = options
        self._link_key = link_key
        self._counts = counts
        self._progress = progress
        self._linked: dict[tuple[int, int], Linked] = {}

    # --- what there is ---------------------------------------------------------------------------------------------

    def scan_node(self, frame: Frame, node: Node, recent_ns: int) -> None:
        """Fills a frame with the rows of a node's children only; what is not there is counted and left out."""
        rows: dict[bytes, tuple[bytes, bytes]] = {}
        if frame.fd >= 0:
            try:
                names, meta, ident = scan(frame.fd, recent_ns, 0)
            except OSError:
                names, meta, ident = b"", b"", b""
            for row, name in enumerate(names.split(b"\0")[:-1]):
                child = node.children.get(name)
                if child is not None and child.actual == os.path.join(node.actual, name):
                    rows[name] = (
                        meta[row * META_BYTES : (row + 1) * META_BYTES],
                        ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES],
                    )
        for name, child in node.children.items():
            if name not in rows:
                try:
                    rows[name] = self._rows_of(child)
                except OSError as error:
                    failure(self._counts, self._progress, child.recorded, error)
        ordered = sorted(rows)
        frame.names = b"".join([name + b"\0" for name in ordered])
        frame.meta = b"".join([rows[name][0] for name in ordered])
        frame.ident = b"".join([rows[name][1] for name in ordered])

    @staticmethod
    def _rows_of(node: Node) -> tuple[bytes, bytes]:
        if not node.actual:
            return META.pack(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0), IDENT.pack(0, 0, 0, 0)
        if node.source:
            return rows_of(os.lstat(node.actual))
        return rows_of(os.stat(node.actual))

    def remembered(self, remembered: Remembered) -> dict[bytes, Old]:
        """Returns what is remembered of a directory's entries, by name."""
        try:
            leaf = parse_tree(bytes(remembered.leaf), "local cache", length_max=_LEAF_BYTES_MAX)
        except Corruption:
            return {}
        if not isinstance(leaf, Leaf):
            return {}
        names = bytes(remembered.names).split(b"\0")[:-1]
        rows = {name: row for row, name in enumerate(names)}
        meta, ident = bytes(remembered.meta), bytes(remembered.ident)
        found: dict[bytes, Old] = {}
        for entry in leaf.entries():
            row = rows.get(entry.name)
            if row is not None:
                found[entry.name] = Old(
                    meta[row * META_BYTES : (row + 1) * META_BYTES],
                    ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES],
                    entry,
                )
        return found

    @staticmethod
    def from_tree(tree: ChunkId, trees: TreeReader) -> dict[bytes, Old]:
        """Returns the entries of a directory in an earlier snapshot, to be compared by size and time alone."""
        try:
            return {entry.name: Old(b"", b"", entry) for entry in trees.entries(tree) if entry.is_regular}
        except RespaldoError:
            return {}

    def equal_idents(self, frame: Frame, now: bytes, before: bytes | memoryview) -> bool:
        """Whether two identity columns are equal as far as the options and the file system let them be compared."""
        return equal_ident(now, before, self._options, network=frame.network)

    # --- one directory -----------------------------------------------------------------------------------------------

    def process(self, frame: Frame, old: dict[bytes, Old], *, taken: bool, device: int) -> None:
        """Finds out about every entry of a frame. ``taken``: what is remembered is in a snapshot that is relied on."""
        small: list[int] = []
        large: list[int] = []
        for row, name in enumerate(frame.name_list):
            if row in frame.dropped:
                continue
            meta = frame.meta[row * META_BYTES : (row + 1) * META_BYTES]
            ident = frame.ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES]
            mode, _, _, _, size, _, _ = META.unpack(meta)
            inode, _, links, flags = IDENT.unpack(ident)
            if flags & (layout.ENTRY_RECENT | layout.ENTRY_FAILED):
                frame.poisoned.add(row)
            if flags & layout.ENTRY_FAILED:
                frame.marks[row] = Mark.UNREADABLE
                failure(self._counts, self._progress, frame.child_path(name), OSError(links, os.strerror(links)))
                continue
            before = old.get(name)
            known = before is not None and self._unchanged(frame, before, meta, ident, taken=taken)
            if known and before is not None:
                self._take(frame, row, before.entry)
            kind = stat.S_IFMT(mode)
            if links > 1 and kind != stat.S_IFDIR:
                frame.links[row] = self._group(device, inode)
            if kind == stat.S_IFREG:
                if known:
                    self._counts.files_unchanged += 1
                    self._progress.advance(files=1, length_bytes=size)
                    continue
                self._say_why(frame, name, before, meta, ident)
                if links > 1 and self._link(frame, row, meta, (device, inode)):
                    continue
                (small if size <= SMALL_BYTES and frame.fd >= 0 else large).append(row)
            elif kind == stat.S_IFDIR:
                self._directory(frame, row, flags)
            elif kind == stat.S_IFLNK:
                self._symlink(frame, row, name, known=known)
            elif not known:
                self._xattrs_by_name(frame, row, name)
        self._read_small(frame, small, device)
        for row in large:
            self._read_one(frame, row, device)

    def _directory(self, frame: Frame, row: int, flags: int) -> None:
        if flags & layout.ENTRY_MOUNT and self._options.one_file_system and frame.only is None:
            frame.marks[row] = Mark.MOUNT
        else:
            frame.marks.pop(row, None)
            frame.subdirs.append(row)

    def _unchanged(self, frame: Frame, old: Old, meta: bytes, ident: bytes, *, taken: bool) -> bool:
        entry = old.entry
        if entry.mark in _TRY_AGAIN:
            return False
        if not old.ident:
            _, _, _, _, size, mtime_ns, _ = META.unpack(meta)
            return (
                (entry.size, entry.mtime_ns) == (size, mtime_ns)
                and stat.S_ISREG(META.unpack(meta)[0])
                and self._trust.has(entry.content)
            )
        if old.meta != meta or not equal_ident(ident, old.ident, self._options, network=frame.network):
            return False
        return taken or not entry.is_regular or self._trust.has(entry.content)

    def _say_why(self, frame: Frame, name: bytes, old: Old | None, meta: bytes, ident: bytes) -> None:
        if old is None:
            self._counts.files_new += 1
        else:
            self._counts.files_changed += 1
        self._progress.note(1, reason_to_read(old, meta, ident), frame.child_path(name))

    @staticmethod
    def _take(frame: Frame, row: int, entry: Entry) -> None:
        if entry.is_regular and entry.content.ids:
            frame.set_content(row, entry.content.ids, entry.content.level)
        if entry.is_dir:
            frame.settled.add(row)
        if entry.attributes:
            frame.patch_attributes(row, entry.attributes)
        if entry.xattrs:
            frame.xattrs[row] = entry.xattrs
        if entry.mark and not entry.is_dir:
            frame.marks[row] = entry.mark
        if entry.is_symlink:
            frame.targets[row] = entry.target

    def _symlink(self, frame: Frame, row: int, name: bytes, *, known: bool) -> None:
        if known:
            return
        try:
            frame.targets[row] = _readlink(*frame.where(name))
        except OSError as error:
            failure(self._counts, self._progress, frame.child_path(name), error)
            frame.dropped.add(row)
            return
        mode, uid, gid, attributes, size, mtime_ns, btime_ns = META.unpack(frame.meta_row(row))
        if size != len(frame.targets[row]):
            frame.patches[row] = META.pack(mode, uid, gid, attributes, len(frame.targets[row]), mtime_ns, btime_ns)
        self._xattrs_by_name(frame, row, name)

    def _xattrs_by_name(self, frame: Frame, row: int, name: bytes) -> None:
        where, dir_fd = frame.where(name)
        try:
            xattrs = read_xattrs(where if dir_fd is None else beside(dir_fd, where))
        except OSError as error:
            self._progress.note(
                1, f"its extended attributes could not be read: {error.strerror}", frame.child_path(name)
            )
            return
        if xattrs:
            frame.xattrs[row] = xattrs

    def _group(self, device: int, inode: int) -> bytes:
        where = device.to_bytes(4, "little") + inode.to_bytes(8, "little")
        return blake3(where, key=self._link_key).digest(LINK_GROUP_BYTES)

    def _link(self, frame: Frame, row: int, meta: bytes, key: tuple[int, int]) -> bool:
        linked = self._linked.get(key)
        if linked is None or linked.meta != meta:
            return False
        if linked.ids:
            frame.set_content(row, linked.ids, linked.level)
        if linked.xattrs:
            frame.xattrs[row] = linked.xattrs
        frame.patch_attributes(row, 0)
        self._progress.advance(files=1)
        return True

    # --- reading -----------------------------------------------------------------------------------------------------

    def _read_small(self, frame: Frame, rows: list[int], device: int) -> None:
        """Reads files by batches that fit into the reader's buffer."""
        batch: list[int] = []
        length = 0
        for row in rows:
            size = int.from_bytes(frame.meta[row * META_BYTES + 16 : row * META_BYTES + 24], "little")
            if batch and length + size > len(self.reader.buffer):
                self._read_batch(frame, batch, device)
                batch, length = [], 0
            batch.append(row)
            length += size
        if batch:
            self._read_batch(frame, batch, device)

    def _read_batch(self, frame: Frame, rows: list[int], device: int) -> None:
        names = frame.name_list
        meta = b"".join([frame.meta[row * META_BYTES : (row + 1) * META_BYTES] for row in rows])
        ident = b"".join([frame.ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES] for row in rows])
        buffer = self.reader.buffer
        gathered = gather(frame.fd, b"".join([names[row] + b"\0" for row in rows]), meta, ident, buffer)
        store = self.reader.store_small
        again: list[int] = []
        at = read_bytes = 0
        with memoryview(buffer) as view:
            for row, item, result in zip(rows, META.iter_unpack(meta), GATHERED.iter_unpack(gathered), strict=True):
                size = item[4]
                length, error, flags, attributes, _ = result
                if error or flags:
                    again.append(row)
                else:
                    if length:
                        frame.set_content(row, store(view[at : at + length]))
                        read_bytes += length
                    if attributes:
                        frame.patch_attributes(row, attributes)
                    if row in frame.links:
                        self._note_link(frame, row, device)
                at += size
        self.reader.read_bytes += read_bytes
        self._progress.advance(files=len(rows) - len(again), length_bytes=read_bytes)
        for row in again:
            self._read_one(frame, row, device)
        self.reader.checkpoint()

    def _note_link(self, frame: Frame, row: int, device: int) -> None:
        inode = int.from_bytes(frame.ident[row * IDENT_BYTES : row * IDENT_BYTES + 8], "little")
        level = frame.levels.get(row, (0, 0))[0]
        meta = frame.meta[row * META_BYTES : (row + 1) * META_BYTES]
        self._linked[(device, inode)] = Linked(meta, frame.contents.get(row, b""), level, frame.xattrs.get(row, ()))

    def _read_one(self, frame: Frame, row: int, device: int) -> None:
        """Reads one file by itself: a big one, one with attributes, one that changes."""
        name = frame.name_list[row]
        path = frame.child_path(name)
        self._progress.at(path)
        try:
            read = self.reader.read(*frame.where(name), self._look, self._progresses(path))
        except OSError as error:
            self._cannot_read(frame, row, path, error)
            return
        if read.content.ids:
            frame.set_content(row, read.content.ids, read.content.level)
        if read.fd_xattrs:
            frame.xattrs[row] = read.fd_xattrs
        self._as_read(frame, row, read)
        if read.changing:
            self._counts.fail(path, "it changed while it was read; kept as read last")
            self._progress.note(-1, "it changed while it was read; kept as read last", path)
            frame.marks[row] = Mark.CHANGED
            frame.poisoned.add(row)
        elif row in frame.links:
            self._note_link(frame, row, device)
        self._progress.advance(files=1)

    def _as_read(self, frame: Frame, row: int, read: ReadFile) -> None:
        """Puts the status at the time of reading into a row, where it differs from the scan's."""
        meta = frame.meta[row * META_BYTES : (row + 1) * META_BYTES]
        inode = int.from_bytes(frame.ident[row * IDENT_BYTES : row * IDENT_BYTES + 8], "little")
        mode, uid, gid, _, _, mtime_ns, btime_ns = META.unpack(meta)
        status = read.status
        if inode != status.st_ino:
            btime_ns = 0
        mode, uid, gid, mtime_ns = status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns
        fresh = META.pack(mode, uid, gid, read.attributes, read.length, mtime_ns, btime_ns)
        if fresh != meta:
            frame.patches[row] = fresh
            if META.pack(mode, uid, gid, 0, read.length, mtime_ns, btime_ns) != meta:
                frame.poisoned.add(row)

    @staticmethod
    def _look(fd: int) -> tuple[tuple[tuple[bytes, bytes], ...], int]:
        return read_xattrs(fd), read_flags(fd)

    def _progresses(self, path: bytes) -> Progresses | None:
        memo = self._memo
        if memo is None:
            return None
        key = Memo.key(path)
        return Progresses(
            load=lambda: memo.get_file(key),
            save=lambda state: memo.put_file(key, state),
            drop=lambda: memo.drop_file(key),
        )

    def _cannot_read(self, frame: Frame, row: int, path: bytes, error: OSError) -> None:
        failure(self._counts, self._progress, path, error)
        if error.errno == errno.ENOENT:
            frame.dropped.add(row)
        else:
            frame.marks[row] = Mark.UNREADABLE
            frame.contents.pop(row, None)
            frame.levels.pop(row, None)
            frame.poisoned.add(row)


def _readlink(path: bytes, dir_fd: int | None) -> bytes:
    return os.readlink(path, dir_fd=dir_fd)


def rows_of(status: os.stat_result) -> tuple[bytes, bytes]:
    """Returns the rows that the kernel's ``scan`` gives, from a stat; without a birth time."""
    mode = status.st_mode
    size = 0
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        size = status.st_size
    elif stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        size = os.major(status.st_rdev) << 32 | os.minor(status.st_rdev)
    meta = META.pack(mode, status.st_uid, status.st_gid, 0, size, status.st_mtime_ns, 0)
    links = 0 if stat.S_ISDIR(mode) else status.st_nlink
    return meta, IDENT.pack(status.st_ino, status.st_ctime_ns, links, layout.ENTRY_RECENT)


_TRY_AGAIN = frozenset({Mark.UNREADABLE, Mark.CHANGED, Mark.LOST})
