"""Files: the content of a directory's regular files, read by batches or one by one, and what reading found out.

Hard links are read once a run. What cannot be read is counted, marked and looked at again next time.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from respaldo.core.model import Mark
from respaldo.core.seams import Progress
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame
from respaldo.flows.backup.memo import Memo
from respaldo.flows.backup.options import Counts
from respaldo.flows.backup.reader import FileReader, Progresses, ReadFile
from respaldo.format.tree import META
from respaldo.fs.meta import read_flags, read_xattrs
from respaldo.kernel import gather
from respaldo.kernel.layout import GATHERED


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


class Files:
    """Stores the content of files. One thread."""

    def __init__(self, *, reader: FileReader, memo: Memo | None, counts: Counts, progress: Progress) -> None:
        self.reader = reader
        self._memo = memo
        self._counts = counts
        self._progress = progress
        self._linked: dict[tuple[int, int], Linked] = {}

    def read(self, frame: Frame, small: list[int], large: list[int], device: int) -> None:
        """Reads files by rows: small ones together, large ones one by one."""
        self._read_small(frame, small, device)
        for row in large:
            self._read_one(frame, row, device)

    def link(self, frame: Frame, row: int, meta: bytes, key: tuple[int, int]) -> bool:
        """Takes over the content of another name of the same file, where one was read; returns whether it did."""
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
