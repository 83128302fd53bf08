"""Archives of the model: what readers find in them, the same bytes every time, and what is left out for damage."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from contextlib import contextmanager
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.catalog.trees import ListBuilder, TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry, Mark
from respaldo.core.seams import Cancel, Silent
from respaldo.store import fetch
from respaldo.store.fetch import Fetcher
from respaldo.store.source import Location
from respaldo.views import ahead
from respaldo.views.ahead import Ahead
from respaldo.views.archive import Filled, fill
from respaldo.views.tar import Tar
from respaldo.views.zip import Zip
from tests.views.model import FOLDERS, Chunks, File, Folder, Node, put_folder, walk


class Blocks(Chunks):
    """Has every chunk in a block of its own. ``rotten``: those whose bytes are others."""

    at_once = 2

    def __init__(self) -> None:
        super().__init__()
        self.rotten: set[bytes] = set()
        self._numbers: list[bytes] = []
        self.opened = 0

    def locate(self, kind: Kind, chunk_id: ChunkId) -> Location:
        if chunk_id not in self.kept:
            raise ChunkMissing(kind.word, chunk_id)
        self._numbers.append(bytes(chunk_id))
        return Location(0, len(self._numbers) - 1, 0, len(self.kept[chunk_id]))

    def locate_each(self, ids: bytes) -> list[Location | None]:
        chunks = [ChunkId(ids[at : at + 32]) for at in range(0, len(ids), 32)]
        return [self.locate(Kind.DATA, chunk) if chunk in self.kept else None for chunk in chunks]

    def block(self, pack: int, block: int) -> bytes:
        self.opened += 1
        chunk = self._numbers[block]
        return bytes(len(self.kept[chunk])) if chunk in self.rotten else self.kept[chunk]

    def copy(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        if chunk_id in self.rotten:
            raise Corruption(kind.word, "no better copy")
        return self.kept[chunk_id]

    def damaged(self, pack: int, ids: list[ChunkId]) -> None:
        assert self.rotten.issuperset(ids)

    def refresh(self) -> None: ...


class Notes(Silent):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def note(self, level: int, text: str, path: bytes = b"") -> None:
        del level, text
        self.told.append(path)


def written(blocks: Blocks, top: Entry, form: str = "tar") -> tuple[bytes, Filled, list[bytes]]:
    out = io.BytesIO()
    notes = Notes()
    trees = TreeReader(blocks)
    with Fetcher(blocks, Cancel()) as fetcher:
        contents = Ahead(blocks, trees, blocks, fetcher)
        archive = Tar(out.write, contents) if form == "tar" else Zip(out.write, contents)
        filled = fill(archive, trees, contents, top, notes)
        assert len(fetcher._held) == 0, "a block is held for good"
    return out.getvalue(), filled, notes.told


def top_of(blocks: Blocks, tree: Folder) -> Entry:
    return Entry(name=b"top", mode=stat.S_IFDIR | 0o755, content=Content(ids=put_folder(blocks, tree)))


@contextmanager
def small():
    """Makes parts, batches and what is held small, so that a few files need many."""
    with (
        mock.patch.object(ahead, "PART_BYTES", 3),
        mock.patch.object(ahead, "_TOGETHER", 2),
        mock.patch.object(ahead, "_UNITS_MIN", 2),
        mock.patch.object(ahead, "_UNITS_MAX", 5),
        mock.patch.object(fetch, "HELD_BYTES", 1 << 21),
    ):
        yield


def members(raw: bytes) -> dict[bytes, tuple]:
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as archive:
        for item in archive:
            name = item.name.encode("utf-8", "surrogateescape").removeprefix(b".")
            file = archive.extractfile(item) if item.isfile() or item.islnk() else None
            content = file.read() if file else item.linkname.encode()
            found[name] = (item.mode, item.mtime, content if not item.isdir() else b"")
    return found


def expected(tree: Folder) -> dict[bytes, tuple]:
    firsts: dict[bytes, Node] = {}
    found: dict[bytes, tuple] = {b"": (0o755, 0, b"")}
    for path, node in walk(tree):
        first = node
        if isinstance(node, File) and node.link and node.kind == stat.S_IFREG:
            first = firsts.setdefault(node.link, node)  # a hard link is what its first name is
        content = first.content if isinstance(first, File) else b""
        found[path] = (node.mode, node.mtime / 10**9, content)
    return found


@given(FOLDERS, st.booleans())
def test_tar_holds_what_the_tree_holds(tree, few):
    """Python's own reader finds every entry with its content, mode and time; two runs write the same bytes."""
    blocks = Blocks()
    top = top_of(blocks, tree)
    if few:
        with small():
            raw, filled, told = written(blocks, top)
    else:
        raw, filled, told = written(blocks, top)
    found, wanted = members(raw), expected(tree)
    assert found.keys() == wanted.keys()
    for path, (mode, mtime, content) in wanted.items():
        assert found[path][0] == mode
        assert found[path][1] == pytest.approx(mtime, abs=1e-9)
        assert found[path][2] == content
    assert filled == Filled(members=len(wanted))
    assert told == []
    assert raw == written(blocks, top)[0]


@given(FOLDERS, st.data())
def test_tar_goes_on_past_damage(tree, data):
    """What is damaged or gone is left out and told, by name; all else is in the archive."""
    blocks = Blocks()
    top = top_of(blocks, tree)
    nodes = [(path, node) for path, node in walk(tree) if not isinstance(node, File) or not node.link]
    files = sorted({node.content for _, node in nodes if isinstance(node, File) and node.kind == stat.S_IFREG} - {b""})
    harmed = data.draw(st.sets(st.sampled_from(files))) if files else set()
    how = data.draw(st.sampled_from(["rot", "gone"]))
    for content in harmed:
        chunk = Chunks().put(content)
        if how == "rot":
            blocks.rotten.add(chunk)
        else:
            del blocks.kept[chunk]
    with small():
        raw, filled, told = written(blocks, top)
    found = members(raw)
    out = {
        path
        for path, node in walk(tree)
        if isinstance(node, File) and node.kind == stat.S_IFREG and node.content in harmed and not node.link
    }
    linked = {path for path, node in walk(tree) if isinstance(node, File) and node.link and node.kind == stat.S_IFREG}
    assert out.isdisjoint(found)
    assert {path for path in expected(tree) if path not in out | linked} <= found.keys()
    assert {path.removeprefix(b".") for path in told} >= out
    assert filled.damaged == len(told)
    assert filled.left_out == 0


def test_tar_goes_on_past_a_directory_that_is_gone():
    """A directory that is damaged, and one that a repair has given up, are in the archive, empty, and told."""
    blocks = Blocks()
    lost, damaged = Folder({b"x": File()}, mark=Mark.LOST), Folder({b"y": File()})
    top = top_of(blocks, Folder({b"a": damaged, b"b": lost, b"c": Folder({b"z": File()})}))
    for folder in (lost, damaged):
        del blocks.kept[put_folder(Chunks(), folder)]
    raw, filled, told = written(blocks, top)
    assert sorted(members(raw)) == [b"", b"/a", b"/b", b"/c", b"/c/z"]
    assert told == [b"./a", b"./b"]
    assert filled == Filled(members=5, left_out=1, damaged=1)


class Sink:
    """Stores what a list builder stores."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def put(self, kind: Kind, raw: bytes) -> ChunkId:
        assert kind is Kind.LIST
        return self._blocks.put(bytes(raw))


def long_file(blocks: Blocks, pieces: list[bytes | int]) -> Entry:
    builder = ListBuilder(Sink(blocks))
    for piece in pieces:
        if isinstance(piece, int):
            builder.hole(piece)
        else:
            builder.add(blocks.put(piece), len(piece))
    return Entry(name=b"long", mode=stat.S_IFREG | 0o644, size=builder.length, content=builder.finish())


@pytest.mark.parametrize("form", ["tar", "zip"])
def test_long_files_are_read_part_by_part(form):
    """A file of many pieces and holes comes out as it is, in parts, however little may be held."""
    source = random.Random(1)
    pieces: list[bytes | int] = [source.randbytes(700) if number % 5 else 4096 for number in range(1, 200)]
    blocks = Blocks()
    entry = long_file(blocks, pieces)
    with small():
        raw, filled, _ = written(blocks, entry, form)
    whole = b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            assert archive.read("long") == whole
    else:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            assert archive.extractfile("long").read() == whole
    assert filled == Filled(members=1)


def test_damage_in_the_middle_of_a_long_file_ends_it():
    """What is written of it cannot be taken back: it is an error, not an archive that lies."""
    source = random.Random(1)
    pieces: list[bytes | int] = [source.randbytes(700) for _ in range(200)]
    blocks = Blocks()
    entry = long_file(blocks, pieces)
    blocks.rotten.add(Chunks().put(pieces[150]))
    with small(), pytest.raises(Corruption):
        written(blocks, entry)
