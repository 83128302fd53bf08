"""A repository in which anything can stand: objects of every kind, sealed with the true key, with any bytes in them.

Who opens a repository that somebody else wrote gives that one the key: nothing in it is to be believed. Each method
puts one thing, from what an honest writer would have put down to the bare bytes of an object.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from respaldo.api import Places, Secret, init, open_repository
from respaldo.backend.open import open_backend
from respaldo.catalog.runs import put_tree
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import outcome_name, pending_name
from respaldo.codec.padding import SMALL_STEP_BYTES, padded
from respaldo.codec.seal import OVERHEAD_BYTES
from respaldo.codec.slots import STANDARD
from respaldo.core.ids import ChunkId, Kind, SnapshotId
from respaldo.core.seams import Silent
from respaldo.format import canonical, frame
from respaldo.format.columns import u32_array, u32_bytes
from respaldo.format.content import ROW
from respaldo.format.figures import Figures
from respaldo.format.header import close_object
from respaldo.format.pack import BLOCK_ROW, TRAILER_BYTES, BlockRow, Footer
from respaldo.format.snapshot import Manifest, Outcome, Verdict
from respaldo.format.tree import META, Leaf
from respaldo.store.slots import make as make_slot

KEY = bytes(range(32))
TIME_NS = 1_700_000_000_123_456_789
FILE, DIRECTORY, LINK, FIFO = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644
SESSION = b"forged by hand !"
OTHER = Secret(key=bytes(32))
CHUNK_ID_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Is a block to be put into a pack: its kind, its raw bytes, and how it lies; what is None is as it should be.

    ``message``: what is sealed instead of the raw bytes; ``raw_length``: what seal and footer say of them; ``ids`` and
    ``lengths``: what the footer says of the chunks.
    """

    raw: bytes
    kind: Kind = Kind.DATA
    message: bytes | None = None
    raw_length: int | None = None
    ids: bytes | None = None
    lengths: tuple[int, ...] | None = None


class Forger:
    """Writes a repository with the product's own lower layers, of parts that no honest client would put together.

    A context manager. ``place`` holds ``repository``, ``key`` and ``cache``, as `tests.fidelity.product` has them.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.location = place / "repository"
        self.places = Places(cache_dir=place / "forger" / "cache", state_dir=place / "forger" / "state")

    def __enter__(self):
        self.place.mkdir(exist_ok=True)
        (self.place / "key").write_bytes(KEY)
        if not (self.location / "header").exists():
            init(str(self.location), Secret(key=KEY), places=self.places)
        self._opened = open_repository(str(self.location), Secret(key=KEY), places=self.places, writes=True)
        self.repo = self._opened.__enter__()._repo
        self.vault, self.sealer, self.ring = self.repo.vault, self.repo.vault.sealer, self.repo.ring
        self.session = Session(self.repo, Silent()).__enter__()
        self.session.begin()
        return self

    def __exit__(self, *error):
        self.session.__exit__(*error)
        self._opened.__exit__(*error)
        shutil.rmtree(self.place / "forger")

    # --- what an honest writer would have written ---

    def chunk(self, raw, kind=Kind.DATA):
        """Stores a chunk of any kind and content; returns its id."""
        return self.session.sink.put(kind, raw)

    def leaf(self, *rows, **more):
        """Returns a directory of rows in the order given: name, mode, and content, target or link group.

        Content is bytes, or a size and the ids that stand for it.
        """
        content, targets, metas, links = b"", b"", b"", {}
        for number, (_, mode, what, *group) in enumerate(rows):
            size = 0
            if isinstance(what, tuple):
                size, ids = what
                content += ids
            elif stat.S_ISREG(mode):
                size = len(what)
                content += self.chunk(what) if what else b""
            elif stat.S_ISDIR(mode):
                content += what
            elif stat.S_ISLNK(mode):
                size = len(what)
                targets += what + b"\0"
            if group:
                links[number] = group[0]
            metas += META.pack(mode, os.geteuid(), os.getegid(), 0, size, TIME_NS, 0)
        names = b"".join(name + b"\0" for name, *_ in rows)
        return Leaf(**{"names": names, "meta": metas, "content": content, "targets": targets, "links": links} | more)

    def tree(self, *rows, **more):
        """Stores a directory of such rows."""
        return put_tree(self.session.sink, self.leaf(*rows, **more), self.ring.name_order)

    def node(self, *rows):
        """Stores a node of a list: rows of id and length."""
        return self.chunk(b"".join(ROW.pack(*row) for row in rows), Kind.LIST)

    def root(self, tree, source=b"/source"):
        """Stores the way to a source, whose tree is given."""
        return self.tree((source.strip(b"/"), DIRECTORY, tree))

    def manifest(self, root, **changes):
        """Returns the manifest of a snapshot."""
        now = self.repo.clock.now_ns()
        honest = Manifest(
            session=self.session.id,
            root=root,
            sources=(b"/source",),
            time_ns=now,
            started_ns=now,
            ended_ns=now,
            host="host",
            user="user",
            uid=0,
            figures=Figures(files=1, directories=1),
        )
        return replace(honest, **changes)

    def commit(self, tree, source=b"/source", **changes):
        """Commits a snapshot of one source by the protocol; the tree is that source's."""
        manifest = self.manifest(self.root(tree, source), sources=(source,), **changes)
        self.save()
        return self.session.commit(manifest, set())

    def save(self):
        """Makes durable and lists what was stored so far."""
        self.session.save()

    # --- objects of any kind, sealed as they should be, with any bytes in them ---

    def put(self, name, data):
        """Puts the bytes of an object, in the place of those that are there."""
        with open_backend(str(self.location)) as backend:
            backend.discard([name])
            backend.put(name, [data])
        return name

    def get(self, name):
        """Returns the bytes of an object."""
        return self.repo.backend.get(name)

    def names(self, folder):
        """Lists a folder."""
        return sorted(name for name, _ in self.repo.backend.list(folder))

    def delete(self, *names):
        """Deletes objects."""
        self.repo.backend.discard(names)

    def record(self, kind, name, raw):
        """Puts a sealed record of any content."""
        return self.put(name, self.vault.seal_record(kind, name, raw))

    def framed(self, kind, name, message):
        """Puts a record whose sealed message is given, frame and all."""
        sealed = b"".join(self.sealer.seal(kind, name, len(message), message))
        return self.put(name, close_object(sealed))

    def committed(self, raw, snapshot=None, verdict=Verdict.COMMIT):
        """Puts the bytes of a manifest, whatever they are, and the outcome that makes it a snapshot; returns its id."""
        snapshot = snapshot or SnapshotId(os.urandom(16))
        self.record("manifest", pending_name(snapshot), raw)
        self.outcome(snapshot, verdict)
        return snapshot

    def outcome(self, snapshot, verdict=Verdict.COMMIT):
        """Puts the outcome of the manifest that is there."""
        pending_hash = hashlib.sha256(self.get(pending_name(snapshot))).digest()
        outcome = Outcome(verdict=verdict, pending_hash=pending_hash)
        return self.record("outcome", outcome_name(snapshot), outcome.encode())

    def segment(self, raw):
        """Puts a sealed segment of any content."""
        name, data = self.vault.seal_segment(raw)
        return self.put("segments/" + name.hex(), data)

    def catalogue(self, raw):
        """Puts a sealed catalogue of any content."""
        name, data = self.vault.seal_catalogue(raw)
        return self.put("catalogue/" + name.hex(), data)

    def header(self, raw):
        """Puts a header of any content, closed as it should be."""
        return self.put("header", close_object(raw))

    def slot(self, name, secret=OTHER, **more):
        """Puts a key slot of any name, label and use."""
        arguments = {"label": "", "now_ns": 1 << 62, "random": os.urandom} | more
        return self.put(name, make_slot(name, self.ring, secret, STANDARD, self.vault, **arguments))

    # --- packs ---

    def pack(self, *blocks, footer=None, message=None, offset=None):
        """Puts a pack of blocks; returns the ids of its chunks.

        ``footer``: makes of the true one the encoded one that is put. ``message``: makes of that one's frame the
        message that is sealed. ``offset``: where the trailer says that the footer is.
        """
        body, rows, ids, lengths = b"", [], b"", []
        for block in blocks:
            raw_length = len(block.raw) if block.raw_length is None else block.raw_length
            message_of = block.raw if block.message is None else block.message
            sealed = b"".join(self.sealer.seal(block.kind.word, "", raw_length, message_of))
            held = block.lengths or (len(block.raw),)
            named = block.ids or self.session.sink.name(block.kind, block.raw)
            rows.append(BlockRow(int(block.kind), len(sealed), raw_length, len(held), sealed[24:56]))
            body += sealed
            ids += named
            lengths += held
        true = Footer(
            session=SESSION,
            body_hash=hashlib.sha256(body).digest(),
            blocks=tuple(rows),
            ids=ids,
            lengths=u32_array(struct.pack(f"<{len(lengths)}I", *lengths)),
        )
        encoded = true.encode() if footer is None else footer(true)
        head, content = frame.squeeze(encoded, self.vault.compressor)
        around = len(body) + OVERHEAD_BYTES + TRAILER_BYTES
        built = frame.build(head, content, padded(around + len(head) + len(content), SMALL_STEP_BYTES) - around)
        built = built if message is None else message(built)
        data = body + b"".join(self.sealer.seal("footer", "", len(built), built))
        trailer = struct.pack("<QQ", len(body) if offset is None else offset, 0)
        data += b"".join(self.sealer.seal("trailer", "", len(trailer), trailer))
        self.put("packs/" + hashlib.sha256(data).hexdigest(), data)
        return [ChunkId(ids[at : at + CHUNK_ID_BYTES]) for at in range(0, len(ids), CHUNK_ID_BYTES)]


def encoded_footer(true, **changes):
    """Returns a footer that says something else than the true one, in columns that no validation has looked at."""
    columns = {
        "session": true.session,
        "body_hash": true.body_hash,
        "rows": b"".join(BLOCK_ROW.pack(*block) for block in true.blocks),
        "ids": true.ids,
        "lengths": u32_bytes(true.lengths),
    } | changes
    return canonical.pack([1, *columns.values()])
