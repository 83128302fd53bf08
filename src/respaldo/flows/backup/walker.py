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

from respaldo.catalog.runs import Alike, encode_short, put_runs
from respaldo.catalog.trees import Sink, TreeReader, TreeSink
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Clock, Progress
from respaldo.flows.backup.before import as_in_snapshot, as_remembered, nothing
from respaldo.flows.backup.changes import ChangeCount
from respaldo.flows.backup.entries import Entries
from respaldo.flows.backup.files import failure
from respaldo.flows.backup.frame import Frame, Node, Same
from respaldo.flows.backup.keep import remember, remember_again, remember_part, with_new_children
from respaldo.flows.backup.memo import Memo, Remembered
from respaldo.flows.backup.opening import frame_of_directory, frame_of_node, frame_of_root, open_again, open_from_above
from respaldo.flows.backup.options import BackupOptions, Counts
from respaldo.flows.backup.reader import open_source
from respaldo.flows.backup.trust import Trust
from respaldo.format.tree import META, Leaf
from respaldo.fs.match import CACHE_TAG, CACHE_TAG_NAME, Rules, is_cache_tag
from respaldo.fs.meta import FileSystem, Names, filesystem_kind
from respaldo.kernel import scan

RECENT_NS = 2_000_000_000
"""What changed within this time before a scan may change again without showing it."""
_OPEN_FRAMES_MAX = 32


class Walker:
    """Walks sources for one backup. One thread."""

    def __init__(  # noqa: PLR0913 - the parts of a run
        self,
        *,
        sink: Sink,
        tree_sink: TreeSink,
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
        self._tree_sink = tree_sink
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
        self._rules_text = "\0".join(options.rules()).encode("utf-8", "surrogateescape")
        self._networks: dict[int, bool] = {}
        self._digests: dict[tuple[int, bytes], bytes] = {}
        self._nested: frozenset[bytes] = frozenset()
        self.changes = ChangeCount(trees, memo)
        self.stack: list[Frame] = []

    def walk(self, root: Node, parent_tree: ChunkId | None) -> ChunkId:
        """Backs up everything below a node; returns the tree's id."""
        try:
            return self._walk(root, parent_tree)
        finally:
            for frame in self.stack:
                self._close(frame)

    def _walk(self, root: Node, parent_tree: ChunkId | None) -> ChunkId:
        self._nested = root.nested if self._options.one_file_system else frozenset()
        self._entries.crossed = self._nested
        frame = frame_of_root(root) if root.source else frame_of_node(root)
        frame.parent_tree = parent_tree
        self.stack.append(frame)
        self._scan(frame)
        self._enter(frame)
        while True:
            self._cancel.check()
            frame = self.stack[-1]
            if frame.next < len(frame.subdirs):
                row = frame.subdirs[frame.next]
                frame.next += 1
                self._descend(frame, row)
                continue
            tree = self._finish(frame)
            self.stack.pop()
            if not self.stack:
                self._close(frame)
                return tree
            parent = self.stack[-1]
            self._reopen(parent, frame)
            self._close(frame)
            self._settle(parent, frame, tree)
            self._entries.files.reader.checkpoint()

    # --- opening ---------------------------------------------------------------------------------------------------

    def _descend(self, parent: Frame, row: int) -> None:
        """Opens and enters a subdirectory; where it cannot be opened, that is counted and marked."""
        name = parent.child_name(row)
        node = parent.only.children.get(name) if parent.only is not None else None
        depth = len(self.stack)
        if node is not None:
            # Whoever plants files in one source must not learn, by what compresses well, what another holds. Files
            # that are named one by one in a directory count as one source.
            self._sink.separate()
        try:
            if node is not None and not node.source:
                child = frame_of_node(node)
                child.row, child.mark = row, Mark.PARTIAL
            else:
                child = frame_of_directory(parent, row, name, node)
            self.stack.append(child)
            # Its own attributes, unless they are known from last time.
            if parent.same is None and row not in parent.settled and child.fd >= 0:
                self._entries.files.look_at_directory(parent, row, child.fd)
            self._scan(child)
        except OSError as error:
            for frame in self.stack[depth:]:
                self._close(frame)
            del self.stack[depth:]
            self._lost_child(parent, row, parent.child_path(name), error)
            return
        child.parent_tree = self.changes.tree_before(parent, name)
        self._enter(child)
        self._close_distant()

    def _lost_child(self, parent: Frame, row: int, path: bytes, error: OSError) -> None:
        if parent.same is not None:
            self._distrust(parent)
        failure(self._counts, self._progress, path, error)
        parent.poisoned.add(row)
        if error.errno == errno.ENOENT:
            parent.dropped.add(row)
        else:
            parent.marks[row] = Mark.UNREADABLE

    def _close_distant(self) -> None:
        if len(self.stack) > _OPEN_FRAMES_MAX:
            self._close(self.stack[-_OPEN_FRAMES_MAX - 1])

    @staticmethod
    def _close(frame: Frame) -> None:
        if frame.fd >= 0:
            os.close(frame.fd)
            frame.fd = -1

    def _reopen(self, parent: Frame, child: Frame) -> None:
        """Opens a directory again whose descriptor was given up, by way of its child, else from above.

        Where it was moved meanwhile it stays closed, and what it still holds counts as unreadable.
        """
        if parent.fd < 0 and parent.only is None:
            if child.fd >= 0:
                parent.fd = open_again(b"..", child.fd, parent)
            if parent.fd < 0:
                parent.fd = open_from_above(self.stack)

    # --- a directory -----------------------------------------------------------------------------------------------

    def _scan(self, frame: Frame) -> None:
        """Lists a directory; raises `OSError` where that cannot be done."""
        self._progress.at(frame.path)
        frame.ordinal = self._entries.files.ordinal(frame.device)
        if frame.device not in self._networks:
            kind = filesystem_kind(frame.fd) if frame.fd >= 0 else FileSystem.LOCAL
            self._networks[frame.device] = kind is not FileSystem.LOCAL
        frame.network = self._networks[frame.device]
        frame.recent_ns = self._clock.now_ns() - RECENT_NS
        if frame.only is not None:
            self._entries.scan_node(frame, frame.only, frame.recent_ns)
        else:
            frame.names, frame.meta, frame.ident = scan(frame.fd, frame.recent_ns, 0)
        self._counts.directories += 1

    def _enter(self, frame: Frame) -> None:
        """Takes a directory for the one it was, or looks at each of its entries."""
        remembered = self._remembered(frame, whole=self._entries.paranoid is not None)
        if remembered is not None:
            frame.mark_before = remembered.mark
            if self._is_same(frame, remembered):
                frame.same = Same(
                    tree=ChunkId(remembered.tree), children=bytes(remembered.children), totals=remembered.totals
                )
                frame.subdirs = list(array("I", bytes(remembered.subdirs)))
                frame.mark = remembered.mark
                self._take_over(frame)
                if self._entries.paranoid is not None:
                    self._entries.paranoid.look_at_same(frame, remembered)
                    frame.reread = True
                return
            remembered = self._remembered(frame)
        self._look(frame, remembered)

    def _remembered(self, frame: Frame, *, whole: bool = True) -> Remembered | None:
        return self._memo.get(frame.key, whole=whole) if self._memo is not None else None

    def _rules_of(self, frame: Frame) -> bytes:
        """Returns a digest of what decides, besides what is scanned, how a directory is recorded.

        Patterns are relative to the source; hard-link groups hold the device's number.
        """
        source = frame.path[: len(frame.path) - len(frame.relative)] if self._rules else b""
        digest = self._digests.get((frame.ordinal, source))
        if digest is None:
            text = b"\0\0".join([self._rules_text, source, b"%d" % frame.ordinal, *sorted(self._nested)])
            digest = self._digests[frame.ordinal, source] = blake3(text).digest(16)
        return digest

    def _is_same(self, frame: Frame, remembered: Remembered) -> bool:
        # As bytes: a view is compared item by item.
        return (
            frame.only is None
            and bytes(remembered.names) == frame.names
            and bytes(remembered.meta) == frame.meta
            and remembered.rules == self._rules_of(frame)
            and self._entries.equal_idents(frame, frame.ident, bytes(remembered.ident))
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
        marks = dict(frame.marks)
        frame.subdirs, frame.children = [], []
        self._look(frame, self._remembered(frame))
        for row, tree in zip(subdirs, children, strict=False):
            frame.set_content(row, tree)
        frame.marks.update(marks)
        frame.subdirs, frame.next = subdirs, at

    def _look(self, frame: Frame, remembered: Remembered | None) -> None:
        """Finds out about every entry: what is left out, what is as it was, what must be read."""
        self._leave_out(frame)
        before = as_remembered(remembered) if remembered is not None else nothing()
        taken = remembered is not None and self._trust.taken_over(remembered.run)
        if before.is_empty and self._options.trust_times and frame.parent_tree is not None:
            before = as_in_snapshot(frame.parent_tree, self._trees)
            taken = False
        self._entries.process(frame, before, taken=taken)

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
        except OSError:
            return False
        finally:
            os.close(fd)

    # --- leaving -----------------------------------------------------------------------------------------------------

    def _settle(self, parent: Frame, child: Frame, tree: ChunkId) -> None:
        if parent.same is not None:
            if child.mark == child.mark_before:
                parent.children.append(tree)
                if child.mark:
                    parent.marks[child.row] = child.mark
                return
            self._distrust(parent)
        parent.set_content(child.row, tree)
        if child.mark:
            parent.marks[child.row] = child.mark

    def _finish(self, frame: Frame) -> ChunkId:
        if frame.same is not None and self._memo is not None:
            if b"".join(frame.children) == frame.same.children:
                self.changes.settle(frame, frame.same.tree, None, frame.same.totals)
                self._memo.stamp(frame.key)
                return frame.same.tree
            leaf = with_new_children(self._memo, frame)
            tree, encoded = self._put(frame, leaf)
            self.changes.settle(frame, tree, leaf, frame.same.totals)
            remember_again(self._memo, frame, self._rules_of(frame), tree, encoded or leaf)
            return tree
        leaf, totals = frame.leaf(self._owners)
        tree, encoded = self._put(frame, leaf)
        self._counts.files += totals.files
        self._counts.others += totals.others
        self._counts.length_bytes += totals.length_bytes
        self.changes.settle(frame, tree, leaf, totals)
        if self._memo is not None:
            remember(self._memo, frame, self._rules_of(frame), tree, encoded or leaf, totals)
        return tree

    def _put(self, frame: Frame, leaf: Leaf) -> tuple[ChunkId, bytes]:
        """Stores a directory; of a long one only the runs in which something has changed.

        Returns its tree's id, and of a short one its bytes.
        """
        encoded = encode_short(leaf)
        if encoded:
            return self._tree_sink.put(Kind.TREE, encoded), encoded
        tree, frame.runs = put_runs(self._tree_sink, leaf, self._name_order, self._alike(frame, leaf))
        return tree, b""

    def _alike(self, frame: Frame, leaf: Leaf) -> Alike | None:
        """Returns what a directory has in common with the tree remembered, which is in a snapshot that is relied on."""
        like = frame.like
        if like is None:
            return None
        for names, then in ((leaf.users, like.users), (leaf.groups, like.groups)):
            if any(names.get(number, "") != name for number, name in then.items()):
                return None
        try:
            return Alike(self._trees.runs(like.tree), frame.spans())
        except (ChunkMissing, Corruption):
            return None

    def save_open(self) -> None:
        """Remembers what is known of directories that are not finished, for a run that is cut off."""
        if self._memo is not None:
            for frame in self.stack:
                remember_part(self._memo, frame, self._owners)
            self._memo.flush()
