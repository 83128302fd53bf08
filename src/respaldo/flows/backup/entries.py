"""Entries: everything in a directory but its subdirectories' content.

First every entry is compared with what is remembered of it, then what differs is read: so a run that is cut off in a
long directory has lost nothing of what was known. Links and special files are recorded, never opened.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Progress
from respaldo.flows.backup.before import Before, Old
from respaldo.flows.backup.compare import equal_ident, reason_to_read
from respaldo.flows.backup.files import Files, failure
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame, Node, rows_of
from respaldo.flows.backup.options import BackupOptions, Counts
from respaldo.flows.backup.paranoid import Paranoid
from respaldo.flows.backup.reader import SMALL_BYTES
from respaldo.flows.backup.trust import Trust
from respaldo.format.columns import u32_array
from respaldo.format.tree import META
from respaldo.kernel import layout, scan
from respaldo.kernel.layout import IDENT


class Entries:
    """Finds out about the entries of directories, and stores the content of files. One thread."""

    def __init__(
        self,
        *,
        files: Files,
        trust: Trust,
        options: BackupOptions,
        counts: Counts,
        progress: Progress,
        paranoid: Paranoid | None = None,
    ) -> None:
        self.files = files
        self.paranoid = paranoid
        self._trust = trust
        self._options = options
        self._counts = counts
        self._progress = progress
        self.crossed: frozenset[bytes] = frozenset()
        """Mount points that are crossed in any case, because they were named."""

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
                if child is None or child.actual != os.path.join(node.actual, name):
                    continue
                found = meta[row * META_BYTES : (row + 1) * META_BYTES]
                # A link on the way to a source is followed: it stands in the record as the directory it leads to.
                if child.source or stat.S_ISDIR(META.unpack(found)[0]):
                    rows[name] = found, ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES]
        for name, child in node.children.items():
            if name not in rows:
                try:
                    rows[name] = self._rows_of(child, recent_ns)
                except OSError as error:
                    failure(self._counts, self._progress, child.recorded, error)
        ordered = sorted(rows)
        frame.names = b"".join([name + b"\0" for name in ordered])
        frame.meta = b"".join([rows[name][0] for name in ordered])
        frame.ident = b"".join([rows[name][1] for name in ordered])

    @staticmethod
    def _rows_of(node: Node, recent_ns: int) -> tuple[bytes, bytes]:
        if not node.actual:
            return META.pack(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0), IDENT.pack(0, 0, 0, 0)
        return rows_of(os.lstat(node.actual) if node.source else os.stat(node.actual), recent_ns)

    def equal_idents(self, frame: Frame, now: bytes, before: bytes | memoryview) -> bool:
        """Whether two identity columns are equal as far as the options and the file system let them be compared."""
        return equal_ident(now, before, self._options, network=frame.network)

    # --- one directory -----------------------------------------------------------------------------------------------

    def process(self, frame: Frame, before: Before, *, taken: bool) -> None:
        """Finds out about every entry of a frame. ``taken``: what is remembered is in a snapshot that is relied on."""
        frame.new = bytearray(len(frame.name_list))
        small: list[int] = []
        large: list[int] = []
        unchanged: list[int] = []
        dropped, empty = frame.dropped, before.is_empty
        self._carry(frame, before, taken=taken)
        for row, name, (mode, _, _, _, size, _, _), (_, ctime_ns, links, flags) in _others(frame):
            if row in dropped:
                continue
            # A time of modification may lie in the future for ever; the status change time is the system's own.
            if flags & layout.ENTRY_RECENT and (ctime_ns >= frame.recent_ns or self._options.ignore_ctime):
                frame.unproven.add(row)
            if flags & layout.ENTRY_FAILED:
                frame.poisoned.add(row)
                frame.marks[row] = Mark.UNREADABLE
                failure(self._counts, self._progress, frame.child_path(name), OSError(links, os.strerror(links)))
                continue
            old = None if empty else before.find(name)
            frame.new[row] = old is None
            known = old is not None and self._unchanged(frame, row, before, old, taken=taken)
            if known and old is not None:
                self._take(frame, row, old, before.entry())
                self._remember_overlooked(frame, row, old)
            kind = stat.S_IFMT(mode)
            if links > 1 and kind != stat.S_IFDIR:
                frame.links[row] = self.files.group(frame, row)
            if kind == stat.S_IFREG:
                if known:
                    self._counts.files_unchanged += 1
                    unchanged.append(row)
                    self._progress.advance(files=1, length_bytes=size)
                    continue
                self._count_read(frame, row, before, old)
                # The names of one file one after another, so that all but the first are known when it is their turn.
                (small if size <= SMALL_BYTES and links == 1 and frame.fd >= 0 else large).append(row)
            elif kind == stat.S_IFDIR:
                self._directory(frame, row, flags)
            elif kind == stat.S_IFLNK:
                self._symlink(frame, row, name, known=known)
            elif not known:
                self.files.xattrs_by_name(frame, row)
        frame.unread = {*small, *large}
        self.files.read(frame, small, large)
        if self.paranoid is not None:
            for row in unchanged:
                self.paranoid.look_at(frame, row, frame.content(row))
            frame.reread = True

    def _carry(self, frame: Frame, before: Before, *, taken: bool) -> None:
        """Carries over what is as it was, unless somebody wants to look at it in spite of that."""
        if not taken or self.paranoid is not None or before.is_empty:
            return
        before.carry_into(frame)
        files = sum(part.length for part in frame.carried)
        if files:
            words = u32_array(frame.meta)
            low, high = words[_SIZE_WORD::_META_WORDS], words[_SIZE_WORD + 1 :: _META_WORDS]
            spans = [slice(part.row, part.row + part.length) for part in frame.carried]
            length = sum(sum(low[span]) + (sum(high[span]) << 32) for span in spans)
            self._counts.files_unchanged += files
            self._progress.advance(files=files, length_bytes=length)

    def _directory(self, frame: Frame, row: int, flags: int) -> None:
        if (
            flags & layout.ENTRY_MOUNT
            and self._options.one_file_system
            and frame.only is None
            and not (self.crossed and frame.child_path(frame.child_name(row)) in self.crossed)
        ):
            frame.marks[row] = Mark.MOUNT
        else:
            frame.marks.pop(row, None)
            frame.subdirs.append(row)

    def _unchanged(self, frame: Frame, row: int, before: Before, old: Old, *, taken: bool) -> bool:
        """Whether an entry is as it was; looks at the rows first, because most that differ show it there."""
        meta, ident = frame.scanned(row)
        if old.meta != meta and not (self._options.trust_times and stat.S_ISREG(META.unpack(meta)[0])):
            return False
        if old.ident and not equal_ident(ident, old.ident, self._options, network=frame.network):
            return False
        entry = before.entry()
        if entry.mark in _TRY_AGAIN:
            return False
        if old.meta != meta:
            _, _, _, _, size, mtime_ns, _ = META.unpack(meta)
            if not entry.is_regular or (entry.size, entry.mtime_ns) != (size, mtime_ns):
                return False
        return taken or not entry.is_regular or self._trust.has(entry.content)

    @staticmethod
    def _remember_overlooked(frame: Frame, row: int, old: Old) -> None:
        """Lets a difference that the options said to overlook still show to a run without them."""
        if not old.ident:
            frame.unproven.add(row)
        elif old.ident != frame.scanned(row)[1]:
            frame.idents[row] = old.ident

    def _count_read(self, frame: Frame, row: int, before: Before, old: Old | None) -> None:
        """Counts a file that has to be read, and says why to whoever asked for it."""
        if old is None:
            self._counts.files_new += 1
        else:
            self._counts.files_changed += 1
        if self._progress.level >= 1:
            why = "new" if old is None else reason_to_read(old, before.entry(), *frame.scanned(row))
            self._progress.note(1, why, frame.child_path(frame.name_list[row]))

    def _take(self, frame: Frame, row: int, old: Old, entry: Entry) -> None:
        if entry.is_regular and entry.content.ids:
            frame.set_content(row, entry.content.ids, entry.content.level)
        if entry.is_dir:
            frame.settled.add(row)
        if entry.attributes:
            frame.patch_attributes(row, entry.attributes)
        if old.meta not in (frame.scanned(row)[0], b""):
            self.files.xattrs_by_name(frame, row)
        elif entry.xattrs:
            frame.xattrs[row] = entry.xattrs
        if entry.mark and not entry.is_dir:
            frame.marks[row] = entry.mark
        if entry.is_symlink:
            frame.set_target(row, entry.target)

    def _symlink(self, frame: Frame, row: int, name: bytes, *, known: bool) -> None:
        if known:
            return
        try:
            frame.set_target(row, _readlink(*frame.where(name)))
        except OSError as error:
            failure(self._counts, self._progress, frame.child_path(name), error)
            frame.poisoned.add(row)
            if error.errno == errno.ENOENT:
                frame.dropped.add(row)
            else:
                frame.marks[row] = Mark.UNREADABLE
            return
        self.files.xattrs_by_name(frame, row)


def _others(frame: Frame) -> Iterator[tuple[int, bytes, tuple[int, ...], tuple[int, ...]]]:
    """Yields row, name, metadata and identity of what is not carried over."""
    at = 0
    for start, length in [*((part.row, part.length) for part in frame.carried), (len(frame.name_list), 0)]:
        meta = frame.meta[at * META_BYTES : start * META_BYTES]
        ident = frame.ident[at * IDENT_BYTES : start * IDENT_BYTES]
        yield from zip(
            range(at, start),
            frame.name_list[at:start],
            META.iter_unpack(meta),
            IDENT.iter_unpack(ident),
            strict=True,
        )
        at = start + length


def _readlink(path: bytes, dir_fd: int | None) -> bytes:
    return os.readlink(path, dir_fd=dir_fd)


_META_WORDS = META_BYTES // 4
_SIZE_WORD = 4
_TRY_AGAIN = frozenset({Mark.UNREADABLE, Mark.CHANGED, Mark.LOST})
