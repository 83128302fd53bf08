"""The walk: from directories to trees, depth first, a whole directory at a time.

A directory whose scan equals the remembered one, byte for byte, costs one comparison; in any other, entries are
compared one by one and only those that differ are read. No recursion, few descriptors: directories may be nested
thousands deep. Never follows a link, never opens anything but directories and regular files.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array

from blake3 import blake3

from respaldo.catalog.trees import Sink, TreeReader, put_tree
from respaldo.core.ids import ChunkId
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Clock, Progress
from respaldo.flows.backup.entries import Entries
from respaldo.flows.backup.files import failure
from respaldo.flows.backup.frame import Frame, Node, Same
from respaldo.flows.backup.keep import remember, remember_again, remember_part, with_new_children
from respaldo.flows.backup.memo import Memo, Remembered
from respaldo.flows.backup.options import BackupOptions, Counts
from respaldo.flows.backup.reader import open_source
from respaldo.flows.backup.trust import Trust
from respaldo.format.tree import META
from respaldo.fs.match import CACHE_TAG, CACHE_TAG_NAME, Rules, is_cache_tag
from respaldo.fs.meta import FileSystem, Names, filesystem_kind, read_flags, read_xattrs
from respaldo.kernel import scan

RECENT_NS = 2_000_000_000
"""What changed within this time before a scan may change again without showing it."""
_OPEN_FRAMES_MAX = 32
_DIRECTORY = os.O_DIRECTORY


class Walker:
    """Walks sources for one backup. One thread."""

    def __init__(  # noqa: PLR0913 - the parts of a run
        self,
        *,
        sink: Sink,
        entries: Entries,
        memo: Memo | None,
        trust: Trust,
        trees: TreeReader,
        rules: Rules,
        options: BackupOptions,
        name_order: bytes,
        owners: Names,
        counts: Counts,
        clock: Clock,
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._sink = sink
        self._entries = entries
        self._memo = memo
        self._trust = trust
        self._trees = trees
        self._rules = rules
        self._options = options
        self._name_order = name_order
        self._owners = owners
        self._counts = counts
        self._clock = clock
        self._progress = progress
        self._cancel = cancel
        self._rules_digest = blake3("\0".join(options.rules()).encode("utf-8", "surrogateescape")).digest(16)
        self._devices: dict[int, int] = {}
        self._networks: dict[int, bool] = {}
        self.stack: list[Frame] = []

    def walk(self, root: Node, parent_tree: ChunkId | None) -> ChunkId:
        """Backs up everything below a node; returns the tree's id."""
        frame = self._frame_of_root(root) if root.source else self._frame_of_node(root, parent_tree)
        frame.parent_tree = parent_tree
        self._enter(frame)
        self.stack.append(frame)
        while True:
            frame = self.stack[-1]
            if frame.next < len(frame.subdirs):
                row = frame.subdirs[frame.next]
                frame.next += 1
                child = self._open_child(frame, row)
                if child is not None:
                    self.stack.append(child)
                    self._close_distant()
                continue
            self.stack.pop()
            tree = self._finish(frame)
            if not self.stack:
                self._close(frame)
                return tree
            parent = self.stack[-1]
            self._reopen(parent, frame)
            self._close(frame)
            self._settle(parent, frame, tree)
            self._entries.files.reader.checkpoint()

    # --- opening ---------------------------------------------------------------------------------------------------

    @staticmethod
    def _frame_of_root(root: Node) -> Frame:
        fd = os.open(root.actual, os.O_RDONLY | _DIRECTORY | os.O_CLOEXEC)
        status = os.fstat(fd)
        return Frame(
            path=b"/", relative=b"", fd=fd, row=-1, device=status.st_dev, inode=status.st_ino, key=Memo.key(b"/")
        )

    @staticmethod
    def _frame_of_node(node: Node, parent_tree: ChunkId | None) -> Frame:
        fd = -1
        device = 0
        if node.actual:
            try:
                fd = os.open(node.actual, os.O_RDONLY | _DIRECTORY | os.O_CLOEXEC)
                device = os.fstat(fd).st_dev
            except OSError:
                fd = -1
        return Frame(
            path=node.recorded,
            relative=b"",
            fd=fd,
            row=-1,
            device=device,
            only=node,
            key=Memo.key(node.recorded, partial_listing=True),
            parent_tree=parent_tree,
        )

    def _open_child(self, parent: Frame, row: int) -> Frame | None:
        """Opens and enters a subdirectory; None where it cannot be, which is counted and marked."""
        name = parent.child_name(row)
        path = parent.child_path(name)
        node = parent.only.children.get(name) if parent.only is not None else None
        parent_tree = self._trust.child_tree(parent.parent_tree, name)
        if node is not None and not node.source:
            child = self._frame_of_node(node, parent_tree)
            child.row, child.mark = row, Mark.PARTIAL
            self._look_at_directory(parent, child)
            self._enter(child)
            return child
        if node is not None:
            # Whoever plants files in one source must not learn, by what compresses well, what another holds.
            self._sink.separate()
        try:
            if node is not None:
                fd = os.open(node.actual, os.O_RDONLY | _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            elif parent.fd >= 0:
                fd = open_source(name, parent.fd, _DIRECTORY)
            else:
                raise OSError(errno.ESTALE, "a directory above it was moved")
        except OSError as error:
            self._lost_child(parent, row, path, error)
            return None
        child = Frame(
            path=path,
            relative=b"" if node is not None else (parent.relative + b"/" + name if parent.relative else name),
            fd=fd,
            row=row,
            device=(status := os.fstat(fd)).st_dev,
            inode=status.st_ino,
            key=Memo.key(path),
            parent_tree=parent_tree,
        )
        try:
            self._look_at_directory(parent, child)
            self._enter(child)
        except OSError as error:
            self._close(child)
            self._lost_child(parent, row, path, error)
            return None
        except BaseException:
            self._close(child)
            raise
        return child

    def _lost_child(self, parent: Frame, row: int, path: bytes, error: OSError) -> None:
        if parent.same is not None:
            self._distrust(parent)
        failure(self._counts, self._progress, path, error)
        if error.errno == errno.ENOENT:
            parent.dropped.add(row)
        else:
            parent.marks[row] = Mark.UNREADABLE
            parent.poisoned.add(row)

    def _look_at_directory(self, parent: Frame, child: Frame) -> None:
        """Reads a directory's own attributes, unless they are known from last time."""
        row = child.row
        if parent.same is not None or row in parent.settled or child.fd < 0:
            return
        xattrs = read_xattrs(child.fd)
        if xattrs:
            parent.xattrs[row] = xattrs
        attributes = read_flags(child.fd)
        if attributes:
            parent.patch_attributes(row, attributes)

    def _close_distant(self) -> None:
        if len(self.stack) > _OPEN_FRAMES_MAX:
            self._close(self.stack[-_OPEN_FRAMES_MAX - 1])

    @staticmethod
    def _close(frame: Frame) -> None:
        if frame.fd >= 0:
            os.close(frame.fd)
            frame.fd = -1

    def _reopen(self, parent: Frame, child: Frame) -> None:
        """Opens a directory again whose descriptor was given up, by way of its child.

        Where the child was moved meanwhile the directory stays closed, and what it still holds counts as unreadable.
        """
        if parent.fd >= 0 or parent.only is not None or child.fd < 0:
            return
        try:
            fd = os.open(b"..", os.O_RDONLY | _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=child.fd)
        except OSError:
            return
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) == (parent.device, parent.inode):
            parent.fd = fd
        else:
            os.close(fd)

    # --- a directory -----------------------------------------------------------------------------------------------

    def _enter(self, frame: Frame) -> None:
        self._cancel.check()
        self._progress.at(frame.path)
        if frame.device not in self._devices:
            self._devices[frame.device] = len(self._devices)
            kind = filesystem_kind(frame.fd) if frame.fd >= 0 else FileSystem.LOCAL
            self._networks[frame.device] = kind is not FileSystem.LOCAL
        frame.network = self._networks[frame.device]
        self._counts.directories += 1
        remembered = self._memo.get(frame.key) if self._memo is not None else None
        if remembered is not None:
            frame.mark_before = remembered.mark
        if frame.only is not None:
            self._entries.scan_node(frame, frame.only, self._clock.now_ns() - RECENT_NS)
        else:
            recent_ns = self._clock.now_ns() - RECENT_NS
            frame.names, frame.meta, frame.ident = scan(frame.fd, recent_ns, 0)
            if remembered is not None and self._is_same(frame, remembered):
                frame.same = Same(
                    tree=ChunkId(remembered.tree), children=bytes(remembered.children), totals=remembered.totals
                )
                frame.subdirs = list(array("I", bytes(remembered.subdirs)))
                frame.mark = remembered.mark
                self._take_over(frame)
                return
        self._look(frame, remembered)

    def _is_same(self, frame: Frame, remembered: Remembered) -> bool:
        return (
            remembered.rules == self._rules_digest
            and remembered.names == frame.names
            and remembered.meta == frame.meta
            and self._entries.equal_idents(frame, bytes(frame.ident), remembered.ident)
            and self._trust.taken_over(remembered.run)
        )

    def _take_over(self, frame: Frame) -> None:
        if frame.same is not None:
            files, others, length_bytes = frame.same.totals
            self._counts.files += files
            self._counts.files_unchanged += files
            self._counts.others += others
            self._counts.length_bytes += length_bytes
            self._progress.advance(files=files, length_bytes=length_bytes)

    def _distrust(self, frame: Frame) -> None:
        """Goes back to looking at entries one by one, because something below is not as it was."""
        if frame.same is None:
            return
        totals, frame.same = frame.same.totals, None
        self._counts.files -= totals.files
        self._counts.files_unchanged -= totals.files
        self._counts.others -= totals.others
        self._counts.length_bytes -= totals.length_bytes
        subdirs, at, children = frame.subdirs, frame.next, frame.children
        frame.subdirs, frame.children = [], []
        self._look(frame, self._memo.get(frame.key) if self._memo is not None else None)
        for row, tree in zip(subdirs, children, strict=False):
            frame.set_content(row, tree)
        frame.subdirs, frame.next = subdirs, at

    def _look(self, frame: Frame, remembered: Remembered | None) -> None:
        """Finds out about every entry: what is left out, what is as it was, what must be read."""
        self._leave_out(frame)
        old = self._entries.remembered(remembered) if remembered is not None else {}
        taken = remembered is not None and self._trust.taken_over(remembered.run)
        if not old and self._options.trust_times and frame.parent_tree is not None:
            old = self._entries.from_tree(frame.parent_tree, self._trees)
            taken = False
        self._entries.process(frame, old, taken=taken, device=self._devices[frame.device])

    def _leave_out(self, frame: Frame) -> None:
        """Drops what the rules exclude; marks mounts that are not crossed."""
        options = self._options
        names = frame.names.split(b"\0")[:-1]
        frame.name_list = names
        if frame.only is not None:
            return
        if options.exclude_caches and CACHE_TAG_NAME in names and self._is_cache(frame):
            frame.dropped.update(row for row, name in enumerate(names) if name != CACHE_TAG_NAME)
            frame.mark = Mark.EXCLUDED
            return
        if not self._rules and not options.exclude_larger_bytes:
            return
        modes = [item[0] for item in META.iter_unpack(frame.meta)]
        if self._rules:
            kept = self._rules.kept(frame.relative, names, [stat.S_ISDIR(mode) for mode in modes])
            if kept is not None:
                frame.dropped.update(row for row, keep in enumerate(kept) if not keep)
        if options.exclude_larger_bytes:
            for row, item in enumerate(META.iter_unpack(frame.meta)):
                if stat.S_ISREG(item[0]) and item[4] > options.exclude_larger_bytes:
                    frame.dropped.add(row)

    @staticmethod
    def _is_cache(frame: Frame) -> bool:
        try:
            fd = open_source(CACHE_TAG_NAME, frame.fd)
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and is_cache_tag(os.read(fd, len(CACHE_TAG)))
        finally:
            os.close(fd)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _settle(self, parent: Frame, child: Frame, tree: ChunkId) -> None:
        if parent.same is not None:
            if child.mark == child.mark_before:
                parent.children.append(tree)
                return
            self._distrust(parent)
        parent.set_content(child.row, tree)
        if child.mark:
            parent.marks[child.row] = child.mark

    def _finish(self, frame: Frame) -> ChunkId:
        if frame.same is not None and self._memo is not None:
            if b"".join(frame.children) == frame.same.children:
                self._memo.stamp(frame.key)
                return frame.same.tree
            leaf = with_new_children(self._memo, frame)
            tree = put_tree(self._sink, leaf, self._name_order)
            remember_again(self._memo, frame, self._rules_digest, tree, leaf)
            return tree
        leaf, totals = frame.leaf(self._owners)
        tree = put_tree(self._sink, leaf, self._name_order)
        self._counts.files += totals.files
        self._counts.others += totals.others
        self._counts.length_bytes += totals.length_bytes
        if self._memo is not None:
            remember(self._memo, frame, self._rules_digest, tree, leaf, totals)
        return tree

    def save_open(self) -> None:
        """Remembers what is known of directories that are not finished, for a run that is cut off."""
        if self._memo is not None:
            for frame in self.stack:
                remember_part(self._memo, frame, self._owners)
            self._memo.flush()
