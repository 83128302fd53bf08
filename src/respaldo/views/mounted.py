"""The tree that a mount shows: numbers for nodes, and what each of them is. Knows nothing of FUSE.

A node's number says where it stands: those below 2^26 are made up (`respaldo.views.layout`), in all others the upper
bits number a directory of a snapshot that somebody looked into, the lower ones a row of it. So nothing is kept for a
file, and 44 bytes and a key for a directory, however much is listed. A number that was given means the same entry for
as long as the mount lives. Names of one hard-linked file have one inode number. Any number of threads.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Hashable, Sequence

from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.trees import Reader
from respaldo.core.errors import ChunkMissing, Corruption, NoSuchPath, NoSuchSnapshot, ObjectMissing, RespaldoError
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Clock
from respaldo.kernel.layout import META
from respaldo.store.blocks import Blocks
from respaldo.views.attributes import NAME_ALONE, Attributes, Batch, Item
from respaldo.views.contents import Contents, OpenFile
from respaldo.views.directories import Directories
from respaldo.views.inodes import Inodes
from respaldo.views.layout import Archive, ArchiveSum, Folder, Inside, Link, Spec, Text, seal_text
from respaldo.views.links import LinkCounts
from respaldo.views.made import NODES_MAX, MadeUp
from respaldo.views.sealed import Archives, Sealed
from respaldo.views.treeblocks import TreeBlocks
from respaldo.views.visited import Visited
from respaldo.views.walk import tree_of

_ROW_BITS = 26
_ROWS = NODES_MAX
LOOK_AGAIN_NS = 2_000_000_000
"""New snapshots are looked for when something is asked, and not again for so long."""


class Mounted:
    """Answers what a file system is asked."""

    def __init__(
        self,
        *,
        blocks: Blocks,
        reader: Reader,
        look: Callable[[], Sequence[Snapshot]],
        lay_out: Callable[[Sequence[Snapshot], Directories], Folder],
        clock: Clock,
        seals: dict[SnapshotId, str] | None = None,
        besides: Callable[[], Hashable] = lambda: None,
    ) -> None:
        """``look`` lists the snapshots, and sees to it that their chunks are found.

        ``seals`` takes the SHA-256 of archives that somebody reads: ``lay_out`` is called again then, and where
        ``besides``, what else it depends on as of the last look, is another.
        """
        self._lock = threading.RLock()
        self._trees = TreeBlocks(blocks, reader)
        self.directories = Directories(self._trees)
        self.contents = Contents(blocks, reader, self._lock)
        self._archives = Archives(self.directories, self._trees, self.contents, self._lock, self._sealed)
        self._look = look
        self._besides = besides
        self._besides_shown: Hashable = None
        self._lay_out = lay_out
        self._clock = clock
        self._looked_ns: int | None = None
        self._there: tuple[SnapshotId, ...] | None = None
        self._seals = {} if seals is None else seals
        self._made = MadeUp((os.geteuid(), os.getegid()))
        self._visited = Visited()
        self._inodes = Inodes(LinkCounts(self.directories))
        self.refresh()

    def close(self) -> None:
        """Stops all looking, for good: what the repository reads with is about to be closed."""
        self.contents.close()
        self._trees.close()
        self._lock.acquire()  # and never released: whoever still asks is cut off when the process ends

    def refresh(self, *, now: bool = False) -> None:
        """Looks for new snapshots, unless that was done just now. Where storage fails, what is known stays."""
        with self._lock:
            moment = self._clock.monotonic_ns()
            if not now and self._looked_ns is not None and moment - self._looked_ns < LOOK_AGAIN_NS:
                return
            try:
                snapshots = self._look()
            except RespaldoError:
                if self._there is None:
                    raise
                return
            finally:
                self._looked_ns = self._clock.monotonic_ns()
            there, besides = tuple(item.id for item in snapshots), (len(self._seals), self._besides())
            if there != self._there or besides != self._besides_shown:
                self._there, self._besides_shown = there, besides
                self._made.lay_out(self._lay_out(snapshots, self.directories), self._clock.now_ns())

    def _sealed(self, snapshot: SnapshotId, sha256: str) -> None:
        with self._lock:
            self._seals[snapshot] = sha256

    # --- nodes -----------------------------------------------------------------------------------------------------

    def lookup(self, parent: int, name: bytes) -> Item | None:
        """Returns the entry of a name; raises `NoSuchSnapshot` where its snapshot has gone, and what storage says."""
        item = self._lookup(parent, name)
        if item is not None and item.attributes.size < 0:
            return item._replace(attributes=self._measured(item.node, item.attributes))
        return item

    def _lookup(self, parent: int, name: bytes) -> Item | None:
        with self._lock, self._failing(parent):
            if parent < _ROWS:
                self.refresh()
                spec = self._made.spec(parent)
                if not isinstance(spec, Inside):
                    child = self._made.children(parent).get(name)
                    return None if child is None else self._item_made(parent, name, child)
            number = self._folder(parent)
            tree = self._visited.tree(number)
            found = None if tree is None else self.directories.find(tree, name)
            if found is None:
                return None
            row, entry = found
            return self._item(number, row, entry)

    def attributes(self, node: int) -> tuple[Attributes, bool]:
        """Returns what a node is, and whether that is so for ever; its sizes are known then."""
        found, lasting = self._attributes_of(node)
        return (self._measured(node, found) if found.size < 0 else found), lasting

    def _measured(self, node: int, attributes: Attributes) -> Attributes:
        """Returns the attributes of an archive with its length, which takes reading trees: others go on meanwhile."""
        with self._failing(node):
            archive = self._archive(node)
            length = 0 if archive is None else archive.length
            return attributes._replace(size=length, size_on_disk=length)

    def _archive(self, node: int) -> Sealed | None:
        with self._lock:
            spec = self._made.spec(node) if node < _ROWS else None
            return self._archives.of(spec.snapshot) if isinstance(spec, Archive) else None

    def _attributes_of(self, node: int) -> tuple[Attributes, bool]:
        with self._lock, self._failing(node):
            if node < _ROWS:
                self.refresh()
                spec = self._made.spec(node)
                if not isinstance(spec, Inside):
                    return self._attributes_made(node, spec), False
            entry = self._entry(node)
            found = self._inodes.of_entry(node, entry, self._snapshot_of(node))
            if found.size_on_disk is None:
                found = found._replace(size_on_disk=self.contents.data_bytes(entry))
            return found, node >= _ROWS

    def listing(self, node: int, first: int, count: int) -> list[Item]:
        """Returns up to so many of the entries of a directory from a position on."""
        with self._lock, self._failing(node):
            if node < _ROWS:
                self.refresh()
                if not isinstance(self._made.spec(node), Inside):
                    return self._listing_made(node, first, count)
            number = self._folder(node)
            tree = self._visited.tree(number)
            if tree is None:
                return []
            snapshot = self._visited.snapshot(number)
            base = number << _ROW_BITS | first
            return [
                Item(row[0], child, self._inodes.of_row(child, row, snapshot), True)  # noqa: FBT003 - by name it takes longer
                for child, row in enumerate(self.directories.rows(tree, first, count), base)
            ]

    def _listing_made(self, node: int, first: int, count: int) -> list[Item]:
        while True:
            children = sorted(self._made.children(node).items())[first : first + count]
            items = {name: self._item_listed(node, name, spec) for name, spec in children}
            missing = [name for name, item in items.items() if item is None]
            if not missing:
                return [item for item in items.values() if item is not None]
            for name in missing:  # and then again: positions are to mean the same the next time
                self._made.drop(node, name)

    def _item_listed(self, node: int, name: bytes, spec: Spec) -> Item | None:
        try:
            return self._item_made(node, name, spec)
        except (ChunkMissing, Corruption):  # its name, at least: what is beside it is no worse
            number = self._made.number(node, name, spec)
            return Item(name, number, NAME_ALONE._replace(ino=number), lasting=False)

    def batch(self, node: int, first: int, count: int) -> Batch | None:
        """Returns up to so many entries of a directory from a position on; None where they are made up."""
        with self._lock, self._failing(node):
            if node < _ROWS:
                self.refresh()
                if not isinstance(self._made.spec(node), Inside):
                    return None
            number = self._folder(node)
            tree = self._visited.tree(number)
            if tree is None:
                return Batch([], b"", 0, {}, True)  # noqa: FBT003 - by name it takes longer
            start, run, last = self.directories.run_at(tree, first)
            if run.has_directories and not first - start:
                self._trees.prepare(run.trees())
            base, low = number << _ROW_BITS | first, first - start
            high = min(low + count, len(run.names))
            odd: dict[int, Attributes] = {}
            if run.odd:
                snapshot = self._visited.snapshot(number)
                for row in run.odd[bisect_left(run.odd, low) : bisect_left(run.odd, high)]:
                    odd[row - low] = self._inodes.of_row(base + row - low, run.row(row), snapshot)
            meta = memoryview(run.meta)[low * META.size : high * META.size]
            return Batch(run.names[low:high], meta, base, odd, last and high == len(run.names))

    def parent(self, node: int) -> int:
        """Returns the directory that a node stands in."""
        with self._lock:
            if node < _ROWS:
                return self._made.parent(node)
            return self._visited.node(node >> _ROW_BITS)

    def changes(self, node: int) -> bool:
        """Whether the entries of a directory may change."""
        with self._lock:
            return node < _ROWS and not isinstance(self._made.spec(node), Inside)

    def entry(self, node: int) -> Entry | None:
        """Returns what is recorded of a node, None of one that is made up."""
        with self._lock, self._failing(node):
            if node < _ROWS and not isinstance(self._made.spec(node), Inside):
                return None
            return self._entry(node)

    def xattrs(self, node: int) -> tuple[tuple[bytes, bytes], ...]:
        """Returns the extended attributes of a node: of most it is known from columns that there are none."""
        if node >= _ROWS:
            with self._lock, self._failing(node):
                tree = self._visited.tree(node >> _ROW_BITS)
                if tree is None or not self.directories.has_xattrs(tree, node & (_ROWS - 1)):
                    return ()
        entry = self.entry(node)
        return () if entry is None else entry.xattrs

    def target(self, node: int) -> bytes:
        """Returns where a symbolic link leads."""
        with self._lock, self._failing(node):
            spec = self._made.spec(node) if node < _ROWS else None
            return spec.target if isinstance(spec, Link) else self._entry(node).target

    def open(self, node: int) -> OpenFile | Sealed | bytes:
        """Returns a file or an archive to read from, or the content of a file that is made up.

        Raises `Corruption` where its content was not read when the snapshot was made.
        """
        with self._failing(node):
            with self._lock:
                spec = self._made.spec(node) if node < _ROWS else None
                archive = self._archives.of(spec.snapshot) if isinstance(spec, ArchiveSum) else None
            if isinstance(spec, ArchiveSum) and archive is not None:  # others go on while it is read
                return seal_text(spec.sha256 or archive.sha256(), spec.name)
        with self._lock, self._failing(node):
            if isinstance(spec, Text):
                return spec.content
            if isinstance(spec, Archive):
                return self._archives.of(spec.snapshot)
            entry = self._entry(node)
            if not entry.is_regular or entry.mark in {Mark.UNREADABLE, Mark.LOST}:
                raise Corruption(f"content of {entry.name!r}", "it is not in the snapshot")
            return OpenFile(entry)

    def read(self, node: int, file: OpenFile | Sealed, offset: int, length: int) -> list[memoryview]:
        """Returns the bytes of a range, in parts."""
        with self._failing(node):
            if isinstance(file, Sealed):
                return file.read(offset, length)
            return self.contents.read(file, offset, length)

    # --- what is in made-up directories ----------------------------------------------------------------------------

    def _item_made(self, parent: int, name: bytes, spec: Spec) -> Item | None:
        """Returns an entry of a made-up directory, None where its snapshot lacks it after all."""
        node = self._made.number(parent, name, spec)
        if isinstance(spec, Inside):
            try:
                entry = self._entry(node)
            except NoSuchPath:
                return None
            return Item(name, node, self._inodes.of_entry(node, entry, self._snapshot_of(node)), lasting=False)
        return Item(name, node, self._attributes_made(node, spec), lasting=False)

    def _attributes_made(self, node: int, spec: Spec) -> Attributes:
        if isinstance(spec, Folder) and spec.like is not None:
            entry = self.directories.at(spec.like.snapshot, spec.like.path)
            if entry is not None:
                return Attributes(node, entry.mode, 1, entry.uid, entry.gid, entry.size, 0, entry.mtime_ns, 0)
        length = self._archives.known_length(spec.snapshot) if isinstance(spec, Archive) else 0
        return self._made.attributes(node, spec, length)

    def _entry_inside(self, node: int, spec: Inside) -> Entry:
        if spec.entry is not None:
            return spec.entry
        entry = self.directories.at(spec.snapshot, spec.path)
        if entry is None:
            raise NoSuchPath(spec.path, spec.snapshot.hex[:8])
        self._made.found(node, Inside(snapshot=spec.snapshot, path=spec.path, entry=entry))
        return entry

    # --- what is in snapshots --------------------------------------------------------------------------------------

    def _entry(self, node: int) -> Entry:
        if node < _ROWS:
            spec = self._made.spec(node)
            if isinstance(spec, Inside):
                return self._entry_inside(node, spec)
            raise NoSuchSnapshot(str(node))
        tree = self._visited.tree(node >> _ROW_BITS)
        if tree is None:
            raise NoSuchSnapshot(str(node))
        return self.directories.entry(tree, node & (_ROWS - 1))

    def _folder(self, node: int) -> int:
        """Returns the number of a directory, whose entries are about to be looked at."""
        number = self._visited.find(node)
        if number is None:
            tree = self._tree_of(node)
            snapshot = self._snapshot_of(node)
            number = self._visited.add(node, snapshot, tree)
        return number

    def _tree_of(self, node: int) -> ChunkId | None:
        """Returns the tree of a directory."""
        if node < _ROWS:
            return tree_of(self._entry(node))
        tree = self._visited.tree(node >> _ROW_BITS)
        return None if tree is None else self.directories.tree(tree, node & (_ROWS - 1))

    def _snapshot_of(self, node: int) -> int:
        """Returns the number of the snapshot that a node is in."""
        if node >= _ROWS:
            return self._visited.snapshot(node >> _ROW_BITS)
        spec = self._made.spec(node)
        if not isinstance(spec, Inside):
            raise NoSuchSnapshot(str(node))
        return self._inodes.number(spec.snapshot)

    def _item(self, number: int, row: int, entry: Entry) -> Item:
        node = number << _ROW_BITS | row
        return Item(entry.name, node, self._inodes.of_entry(node, entry, self._visited.snapshot(number)), lasting=True)

    def _failing(self, node: int) -> _Failing:
        return _Failing(self, node)

    def has_gone(self, node: int) -> bool:
        """Whether the snapshot that a node is in was forgotten; looks now."""
        self.refresh(now=True)
        with self._lock:
            try:
                if node < _ROWS and not isinstance(self._made.spec(node), Inside):
                    return False
                return self._inodes.snapshot(self._snapshot_of(node)).id not in (self._there or ())
            except (NoSuchSnapshot, IndexError):
                return True


class _Failing:
    """Tells what is gone with its snapshot from what is damaged: chunks that a forgotten snapshot needed may go."""

    __slots__ = ("_mounted", "_node")

    def __init__(self, mounted: Mounted, node: int) -> None:
        self._mounted = mounted
        self._node = node

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, value: object, trace: object) -> None:
        if isinstance(value, (ChunkMissing, ObjectMissing)) and self._mounted.has_gone(self._node):
            raise NoSuchSnapshot(str(self._node), "the snapshot has gone") from value
