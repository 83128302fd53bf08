"""Trees as plain dicts: snapshots that are made up, kept in a dict of chunks, and what a naive reader says of them."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Mark
from respaldo.format.tree import META, Branch, Leaf
from respaldo.store.source import Location

RUN = 3
"""A directory that is longer stands in runs of so many entries."""
USERS = {0: "root", 1000: "ana"}


@dataclass(frozen=True)
class File:
    """Is whatever is no directory. ``content`` is the target of a link."""

    content: bytes = b"x"
    kind: int = stat.S_IFREG
    mode: int = 0o644
    mtime: int = 1
    uid: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    link: bytes = b""
    mark: Mark = Mark.NONE


@dataclass(frozen=True)
class Folder:
    """Is a directory."""

    children: dict[bytes, Node] = field(default_factory=dict)
    mode: int = 0o755
    mtime: int = 1
    uid: int = 0
    mark: Mark = Mark.NONE


Node = File | Folder


class Chunks:
    """Keeps chunks in a dict, and is source, index and reader of them."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.read: list[bytes] = []
        self.asked: list[bytes] = []

    def put(self, raw: bytes) -> ChunkId:
        chunk_id = ChunkId(hashlib.sha256(raw).digest())
        self.kept[chunk_id] = bytes(raw)
        return chunk_id

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        self.read.append(bytes(chunk_id))
        try:
            return self.kept[chunk_id]
        except KeyError:
            raise ChunkMissing(kind.word, chunk_id) from None

    def has(self, chunk_id: ChunkId) -> bool:
        return chunk_id in self.kept

    def locate(self, kind: Kind, chunk_id: ChunkId) -> Location:
        if chunk_id not in self.kept:
            raise ChunkMissing(kind.word, chunk_id)
        return Location(0, 0, 0, len(self.kept[chunk_id]))

    def locate_each(self, ids: bytes) -> list[Location | None]:
        return [None] * (len(ids) // 32)

    def block(self, pack: int, block: int) -> bytes:
        raise AssertionError((pack, block))

    def check(self, kind: Kind, chunk_id: ChunkId, raw: bytes) -> None:
        if hashlib.sha256(raw).digest() != chunk_id:
            raise Corruption(kind.word, "not its bytes")

    def entry(self, number: int) -> None:
        raise AssertionError(number)


def put_folder(chunks: Chunks, folder: Folder) -> ChunkId:
    """Stores a directory with all that is in it."""
    items = sorted(folder.children.items())
    if len(items) <= RUN:
        return chunks.put(_leaf(chunks, items).encode())
    runs = [items[at : at + RUN] for at in range(0, len(items), RUN)]
    return chunks.put(Branch(tuple((chunks.put(_leaf(chunks, run).encode()), len(run)) for run in runs)).encode())


def leaf_of(folder: Folder) -> Leaf:
    """Returns a directory as one leaf, however long it is."""
    return _leaf(Chunks(), sorted(folder.children.items()))


def runs_of(folder: Folder) -> set[ChunkId]:
    """Returns the runs that a tree has anywhere."""
    folders = [folder, *(node for _, node in walk(folder) if isinstance(node, Folder))]
    longer = [sorted(one.children.items()) for one in folders if len(one.children) > RUN]
    return {
        Chunks().put(_leaf(Chunks(), items[at : at + RUN]).encode())
        for items in longer
        for at in range(0, len(items), RUN)
    }


def _leaf(chunks: Chunks, items: list[tuple[bytes, Node]]) -> Leaf:
    meta, content, targets = [], [], []
    xattrs, links, marks = {}, {}, {}
    for row, (name, node) in enumerate(items):
        del name
        if node.mark:
            marks[row] = int(node.mark)
        if isinstance(node, Folder):
            meta.append(META.pack(stat.S_IFDIR | node.mode, node.uid, 0, 0, 0, node.mtime, 7))
            content.append(put_folder(chunks, node))
            continue
        meta.append(META.pack(node.kind | node.mode, node.uid, 0, 0, len(node.content), node.mtime, row))
        if node.kind == stat.S_IFLNK:
            targets.append(node.content + b"\0")
        elif node.kind == stat.S_IFREG and node.content:
            content.append(chunks.put(node.content))
        if node.xattrs:
            xattrs[row] = node.xattrs
        if node.link:
            links[row] = node.link
    return Leaf(
        names=b"".join(name + b"\0" for name, _ in items),
        meta=b"".join(meta),
        content=b"".join(content),
        targets=b"".join(targets),
        xattrs=xattrs,
        links=links,
        marks=marks,
        users={number: name for number, name in USERS.items() if any(node.uid == number for _, node in items)},
    )


def walk(folder: Folder, above: bytes = b""):
    """Yields (path, node) of all that is in a directory."""
    for name, node in sorted(folder.children.items()):
        path = above + b"/" + name
        yield path, node
        if isinstance(node, Folder):
            yield from walk(node, path)


def find(folder: Folder, path: bytes) -> Node | None:
    """Returns what stands at a path."""
    return dict(walk(folder)).get(path)


# --- what is drawn ---------------------------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"b", b"c.txt", b"d.txt", b"\xff", b"e", b"f"])
FILES = st.builds(
    File,
    content=st.sampled_from([b"", b"x", b"y", b"longer"]),
    mode=st.sampled_from([0o644, 0o600]),
    mtime=st.integers(1, 3),
    uid=st.sampled_from([0, 1000]),
    xattrs=st.sampled_from([(), (), ((b"user.a", b"b"),)]),
    link=st.sampled_from([b"", b"", b"g" * 16]),
)
LINKS = st.builds(File, content=st.sampled_from([b"t", b"target"]), kind=st.just(stat.S_IFLNK), mtime=st.integers(1, 2))
FOLDERS = st.recursive(
    st.builds(Folder, children=st.dictionaries(NAMES, FILES | LINKS, max_size=7), mtime=st.integers(1, 2)),
    lambda inner: st.builds(Folder, children=st.dictionaries(NAMES, FILES | inner, max_size=7)),
    max_leaves=12,
)


@st.composite
def histories(draw, most: int = 6) -> list[Folder]:
    """Draws a tree and what became of it: files written, taken away, moved, their attributes changed."""
    made = [draw(FOLDERS)]
    for _ in range(draw(st.integers(0, most - 1))):
        tree = made[-1]
        for _ in range(draw(st.integers(0, 3))):
            tree = _changed(draw, tree)
        made.append(tree)
    return made


def _changed(draw, tree: Folder) -> Folder:
    paths = [b"", *(path for path, node in walk(tree) if isinstance(node, Folder))]
    above = draw(st.sampled_from(paths))
    what = draw(st.sampled_from(["write", "remove", "move", "touch", "chmod", "folder"]))
    folder = tree if above == b"" else find(tree, above)
    assert isinstance(folder, Folder)
    children = dict(folder.children)
    if what == "write":
        children[draw(NAMES)] = draw(FILES | LINKS)
    elif what == "folder":
        children[draw(NAMES)] = draw(FOLDERS)
    elif children:
        name = draw(st.sampled_from(sorted(children)))
        if what == "remove":
            del children[name]
        elif what == "move":
            children[draw(NAMES)] = children.pop(name)
        elif what == "touch":
            children[name] = replace(children[name], mtime=children[name].mtime + 1)
        else:
            children[name] = replace(children[name], mode=children[name].mode ^ 0o11)
    return with_children(tree, above, children)


def with_children(tree: Folder, path: bytes, children: dict[bytes, Node]) -> Folder:
    """Returns a tree in which the directory at a path holds something else."""
    if path in {b"", b"/"}:
        return replace(tree, children=children)
    name, _, rest = path[1:].partition(b"/")
    inner = tree.children[name]
    assert isinstance(inner, Folder)
    changed = with_children(inner, b"/" + rest if rest else b"", children)
    return replace(tree, children={**tree.children, name: changed})
