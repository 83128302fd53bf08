"""Files: the content of a directory's regular files, read by batches or one by one, and what reading found out.

Hard links are read once a run. What cannot be read is counted, marked and looked at again next time.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from blake3 import blake3

from respaldo.core.model import Mark
from respaldo.core.seams import Progress
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame, saturated
from respaldo.flows.backup.memo import Memo
from respaldo.flows.backup.options import Counts
from respaldo.flows.backup.reader import FileReader, Progresses, ReadFile, open_source
from respaldo.format.leafcheck import LINK_GROUP_BYTES
from respaldo.format.tree import META
from respaldo.fs.meta import Xattrs, beside, read_flags, read_xattrs
from respaldo.kernel import gather, layout
from respaldo.kernel.layout import GATHERED, IDENT

_BATCH_FILES_MAX = 4096
"""So that a directory of empty files can be interrupted."""
_ZEROS = bytes(512)
_FLAGS_OFFSET = 20


@dataclass(slots=True, kw_only=True)
class Linked:
    """Is a hard-linked file that was read before in this run: as scanned, as recorded, and what it holds."""

    meta: bytes
    ident: bytes
    row: bytes
    ids: bytes
    level: int
    xattrs: Xattrs
    left: int
    """How many names are still to come."""


def failure(counts: Counts, progress: Progress, path: bytes, error: OSError) -> None:
    """Counts and reports a path that could not be read."""
    reason = "it vanished while it was read" if error.errno == errno.ENOENT else (error.strerror or str(error))
    counts.fail(path, reason)
    progress.note(-1, reason, path)


class Files:
    """Stores the content of files. One thread."""

    def __init__(
        self, *, reader: FileReader, memo: Memo | None, link_key: bytes, counts: Counts, progress: Progress
    ) -> None:
        self.reader = reader
        self._memo = memo
        self._link_key = link_key
        self._counts = counts
        self._progress = progress
        self._linked: dict[tuple[int, int], Linked] = {}
        self._ordinals: dict[int, int] = {}
        self._xattrs_failed = ""

    def read(self, frame: Frame, small: list[int], large: list[int]) -> None:
        """Reads files by rows: small ones together, large and hard-linked ones one by one."""
        self._read_small(frame, small)
        for row in large:
            if row not in frame.links or not self._link(frame, row):
                self._read_one(frame, row)

    # --- hard links ------------------------------------------------------------------------------------------------

    def ordinal(self, device: int) -> int:
        """Returns the number of a device, in the order in which the walk meets them."""
        return self._ordinals.setdefault(device, len(self._ordinals))

    def group(self, frame: Frame, row: int) -> bytes:
        """Returns the group of a file that has several names."""
        return self._group(*self._key(frame, row))

    def _group(self, device: int, inode: int) -> bytes:
        where = device.to_bytes(4, "little") + inode.to_bytes(8, "little")
        return blake3(where, key=self._link_key).digest(LINK_GROUP_BYTES)

    def _key(self, frame: Frame, row: int) -> tuple[int, int]:
        """Returns the number of a file's device, and its inode: a file may be mounted on a file."""
        inode, _, _, flags = IDENT.unpack(frame.scanned(row)[1])
        device = frame.device
        if flags & layout.ENTRY_MOUNT or frame.fd < 0:
            where, dir_fd = frame.where(frame.child_name(row))
            try:
                device = os.stat(where, dir_fd=dir_fd, follow_symlinks=False).st_dev
            except OSError:
                device = -1
        return self.ordinal(device), inode

    def _link(self, frame: Frame, row: int) -> bool:
        """Takes what another name of the same file was found to hold, where that was read in the state of this scan."""
        key = self._key(frame, row)
        linked = self._linked.get(key)
        meta, ident = frame.scanned(row)
        if linked is None or (linked.meta, linked.ident) != (meta, ident[:_FLAGS_OFFSET]):
            return False
        if linked.ids:
            frame.set_content(row, linked.ids, linked.level)
        if linked.xattrs:
            frame.xattrs[row] = linked.xattrs
        if linked.row != meta:
            frame.patches[row] = linked.row
        frame.unread.discard(row)
        linked.left -= 1
        if not linked.left:
            del self._linked[key]
        self._progress.advance(files=1)
        return True

    def _note_link(self, frame: Frame, row: int) -> None:
        meta, ident = frame.scanned(row)
        left = IDENT.unpack(ident)[2] - 1
        if left > 0:
            self._linked[self._key(frame, row)] = Linked(
                meta=meta,
                ident=ident[:_FLAGS_OFFSET],
                row=frame.meta_row(row),
                ids=frame.contents.get(row, b""),
                level=frame.levels.get(row, (0, 0))[0],
                xattrs=frame.xattrs.get(row, ()),
                left=left,
            )

    # --- reading ---------------------------------------------------------------------------------------------------

    def _read_small(self, frame: Frame, rows: list[int]) -> None:
        """Reads files by batches that fit into the reader's buffer."""
        batch: list[int] = []
        length = 0
        for row in rows:
            size = int.from_bytes(frame.meta[row * META_BYTES + 16 : row * META_BYTES + 24], "little")
            if batch and (length + size > len(self.reader.buffer) or len(batch) >= _BATCH_FILES_MAX):
                self._read_batch(frame, batch)
                batch, length = [], 0
            batch.append(row)
            length += size
        if batch:
            self._read_batch(frame, batch)

    def _read_batch(self, frame: Frame, rows: list[int]) -> None:
        self.reader.check()
        names = frame.name_list
        meta = b"".join([frame.meta[row * META_BYTES : (row + 1) * META_BYTES] for row in rows])
        ident = b"".join([frame.ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES] for row in rows])
        if frame.network:  # inodes may be unstable; 0 is not compared
            ident = b"".join([bytes(8) + ident[at + 8 : at + IDENT_BYTES] for at in range(0, len(ident), IDENT_BYTES)])
        buffer = self.reader.buffer
        gathered = gather(frame.fd, b"".join([names[row] + b"\0" for row in rows]), meta, ident, buffer)
        again: list[int] = []
        read: list[tuple[int, int]] = []
        spans: list[tuple[int, int]] = []
        at = read_bytes = 0
        with memoryview(buffer) as view:
            for row, item, result in zip(rows, META.iter_unpack(meta), GATHERED.iter_unpack(gathered), strict=True):
                size = item[4]
                length, error, flags, attributes, _ = result
                if (
                    error
                    or flags & ~layout.GATHER_XATTRS
                    or (_is_sparse(frame, row) and _may_have_holes(buffer, at, length))
                    or (flags and not self._xattrs_of_gathered(frame, row))
                ):
                    again.append(row)
                else:
                    cut = self.reader.cut_small(view, at, at + length) if length else ()
                    spans += cut
                    read.append((row, len(cut)))
                    read_bytes += length
                    if attributes:
                        frame.patch_attributes(row, attributes)
                at += size
            ids = self.reader.store_small(view, spans)
        at = 0
        for row, count in read:
            if count:
                frame.set_content(row, ids[at] if count == 1 else b"".join(ids[at : at + count]))
                at += count
        frame.unread.difference_update(row for row, _ in read)
        self.reader.read_bytes += read_bytes
        self._progress.advance(files=len(rows) - len(again), length_bytes=read_bytes)
        for row in again:
            self._read_one(frame, row)
        self.reader.checkpoint()

    def _read_one(self, frame: Frame, row: int) -> None:
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
        frame.unread.discard(row)
        if self._xattrs_failed:
            self._without_xattrs(frame, row, self._xattrs_failed)
        if read.changing:
            self._counts.fail(path, "it changed while it was read; kept as read last")
            self._progress.note(-1, "it changed while it was read; kept as read last", path)
            frame.marks[row] = Mark.CHANGED
            frame.poisoned.add(row)
        elif row in frame.links and row not in frame.poisoned and frame.is_as_scanned(row, read.status):
            self._note_link(frame, row)
        self._progress.advance(files=1)

    def _as_read(self, frame: Frame, row: int, read: ReadFile) -> None:
        """Puts the status at the time of reading into a row, where it differs from the scan's."""
        meta = frame.meta[row * META_BYTES : (row + 1) * META_BYTES]
        inode = int.from_bytes(frame.ident[row * IDENT_BYTES : row * IDENT_BYTES + 8], "little")
        mode, uid, gid, _, _, mtime_ns, btime_ns = META.unpack(meta)
        status = read.status
        if inode != status.st_ino and not frame.network:
            # Another file took its place: the name has left the group of the one that was scanned.
            btime_ns = 0
            frame.links.pop(row, None)
            if status.st_nlink > 1:
                frame.links[row] = self._group(self.ordinal(status.st_dev), status.st_ino)
        mode, uid, gid, mtime_ns = status.st_mode, status.st_uid, status.st_gid, saturated(status.st_mtime_ns)
        fresh = META.pack(mode, uid, gid, read.attributes, read.length, mtime_ns, btime_ns)
        if fresh != meta:
            frame.patches[row] = fresh
            if META.pack(mode, uid, gid, 0, read.length, mtime_ns, btime_ns) != meta:
                frame.poisoned.add(row)

    # --- attributes ------------------------------------------------------------------------------------------------

    def _look(self, fd: int) -> tuple[Xattrs, int]:
        """Reads extended attributes and inode flags. Nobody's content is lost because the former cannot be read."""
        self._xattrs_failed = ""
        xattrs: Xattrs = ()
        try:
            xattrs = read_xattrs(fd)
        except OSError as error:
            self._xattrs_failed = error.strerror or str(error)
        return xattrs, read_flags(fd)

    def look_at_directory(self, frame: Frame, row: int, fd: int) -> None:
        """Reads the attributes of a subdirectory that is open."""
        xattrs, attributes = self._look(fd)
        if self._xattrs_failed:
            self._without_xattrs(frame, row, self._xattrs_failed)
        if xattrs:
            frame.xattrs[row] = xattrs
        if attributes:
            frame.patch_attributes(row, attributes)

    def xattrs_by_name(self, frame: Frame, row: int) -> None:
        """Reads the extended attributes of an entry that is not opened."""
        where, dir_fd = frame.where(frame.child_name(row))
        try:
            xattrs = read_xattrs(where if dir_fd is None else beside(dir_fd, where))
        except OSError as error:
            self._without_xattrs(frame, row, error.strerror or str(error))
            return
        if xattrs:
            frame.xattrs[row] = xattrs

    def _xattrs_of_gathered(self, frame: Frame, row: int) -> bool:
        """Reads the extended attributes of a file whose content was read; False where it is not the same any more."""
        try:
            fd = open_source(frame.name_list[row], frame.fd)
        except OSError:
            return False
        try:
            xattrs = read_xattrs(fd)
            same = frame.is_as_scanned(row, os.fstat(fd))
        except OSError:
            return False
        finally:
            os.close(fd)
        if same and xattrs:
            frame.xattrs[row] = xattrs
        return same

    def _without_xattrs(self, frame: Frame, row: int, reason: str) -> None:
        """Counts an entry that is recorded without its extended attributes."""
        path, reason = frame.child_path(frame.child_name(row)), f"its extended attributes could not be read: {reason}"
        self._counts.fail(path, reason)
        self._progress.note(-1, reason, path)
        frame.poisoned.add(row)

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
        frame.poisoned.add(row)
        frame.unread.discard(row)
        if error.errno == errno.ENOENT:
            frame.dropped.add(row)
            if frame.new[row]:
                self._counts.files_new -= 1
            else:
                self._counts.files_changed -= 1
        else:
            frame.marks[row] = Mark.UNREADABLE
            frame.contents.pop(row, None)
            frame.levels.pop(row, None)


def _is_sparse(frame: Frame, row: int) -> bool:
    return bool(frame.ident[row * IDENT_BYTES + _FLAGS_OFFSET] & layout.ENTRY_SPARSE)


def _may_have_holes(buffer: bytearray, start: int, length: int) -> bool:
    """Whether there are zeros where a hole would be; a file that is merely compressed has fewer blocks, too."""
    end = start + length
    tail = min(length % layout.HOLE_BYTES or layout.HOLE_BYTES, len(_ZEROS))
    return buffer.find(_ZEROS, start, end) >= 0 or not any(buffer[end - tail : end])
