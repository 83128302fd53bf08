"""Trees out of a spool: directories by depth, the deepest first, names sorted.

A directory that no member stands for is marked as one above a source: what is not recorded of it is nobody's to change
or to delete when it is restored.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping

from blake3 import blake3

from respaldo.catalog.runs import put_tree
from respaldo.catalog.trees import Sink
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel
from respaldo.flows.importing.spool import ROOT, Child, Spool
from respaldo.format.leafcheck import LINK_GROUP_BYTES, validate
from respaldo.format.tree import META, Leaf

_IMPLIED = META.pack(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0)
_DEVICE = (0).to_bytes(4, "little")
_INODE_BYTES = 8


class Planter:
    """Makes trees; counts what is in them."""

    def __init__(
        self,
        spool: Spool,
        sink: Sink,
        *,
        name_order: bytes,
        link_group: bytes,
        users: Mapping[int, str],
        groups: Mapping[int, str],
        cancel: Cancel,
    ) -> None:
        self._spool = spool
        self._sink = sink
        self._name_order = name_order
        self._link_group = link_group
        self._users = users
        self._groups = groups
        self._cancel = cancel
        self.files = 0
        self.directories = 0
        self.others = 0
        self.length_bytes = 0

    def plant(self, above: Collection[int]) -> ChunkId:
        """Returns the root's tree. ``above``: directories that are to be marked as above a source all the same."""
        tree = ChunkId(b"")
        for level in self._spool.levels():
            for node in level:
                self._cancel.check()
                tree = put_tree(self._sink, self._leaf(node, above), self._name_order)
                if node != ROOT:
                    self._spool.set_tree(node, tree)
        return tree

    def _leaf(self, node: int, above: Collection[int]) -> Leaf:
        names, meta, content, targets = bytearray(), bytearray(), bytearray(), bytearray()
        levels: dict[int, tuple[int, int]] = {}
        links: dict[int, bytes] = {}
        xattrs: dict[int, tuple[tuple[bytes, bytes], ...]] = {}
        marks: dict[int, int] = {}
        uids: set[int] = set()
        gids: set[int] = set()
        for row, child in enumerate(self._spool.children(node)):
            names += child.name + b"\0"
            inode = child.inode
            packed = inode.meta if inode is not None else _IMPLIED
            meta += packed
            mode, uid, gid, _, size, _, _ = META.unpack(packed)
            if inode is None or child.node in above:
                marks[row] = Mark.PARTIAL
            elif inode.mark:
                marks[row] = inode.mark
            uids.add(uid)
            gids.add(gid)
            if inode is not None and inode.xattrs:
                xattrs[row] = inode.xattrs
            if child.is_dir:
                content += child.tree
                self.directories += 1
                continue
            if inode is None:
                continue
            content += inode.ids
            if inode.level or len(inode.ids) > CHUNK_ID_BYTES:
                levels[row] = (inode.level, len(inode.ids) // CHUNK_ID_BYTES)
            if stat.S_ISLNK(mode):
                targets += inode.target + b"\0"
            if child.names > 1:
                links[row] = self._group(child)
            if stat.S_ISREG(mode):
                self.files += 1
                self.length_bytes += size
            else:
                self.others += 1
        leaf = Leaf(
            names=bytes(names),
            meta=bytes(meta),
            content=bytes(content),
            targets=bytes(targets),
            levels=levels,
            links=links,
            xattrs=xattrs,
            marks=marks,
            users={uid: self._users[uid] for uid in uids if uid in self._users},
            groups={gid: self._groups[gid] for gid in gids if gid in self._groups},
        )
        validate(leaf, "a directory of the archive")
        return leaf

    def _group(self, child: Child) -> bytes:
        """Returns a hard-link group: of its first name, so that it is the same in the next archive of a series."""
        if child.shared:
            return child.shared
        first = blake3(self._spool.first_name(child.number)).digest(_INODE_BYTES)
        group = blake3(_DEVICE + first, key=self._link_group).digest(LINK_GROUP_BYTES)
        self._spool.set_shared(child.number, group)
        return group
