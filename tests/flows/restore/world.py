"""A snapshot in memory: chunks, blocks and trees that a restore reads, made entry by entry and bent at will.

Ids are honest (a hash of the bytes) unless a test makes them lie; a block holds a few chunks, so that files share it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections import Counter
from dataclasses import replace

from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry
from respaldo.flows.restore.begin import Restore
from respaldo.flows.restore.columns import leaf_of
from respaldo.flows.restore.run import plan_restore, run_restore
from respaldo.format.content import HOLE, Row
from respaldo.format.figures import Figures
from respaldo.format.snapshot import Manifest
from respaldo.fs.meta import read_flags, read_xattrs
from respaldo.store.source import Location, Run

TIME = 1_600_000_000_123_456_789
BLOCK_CHUNKS = 3
RUN_ENTRIES = 4000


class World:
    """Is a repository with one snapshot, in memory; fits Blocks and Trees."""

    def __init__(self):
        self.trees = {}
        self.lists = {}
        self.blocks = {}
        self.places = {}
        self.open_block = bytearray()
        self.open_chunks = 0
        self.decoded = Counter()
        self.refreshed = 0
        self.vanished = False
        self.spoilt = []
        self.copies = {}
        self.gone = set()
        self.bad = set()
        self.failing = {}
        self.lock = threading.Lock()
        self.manifest = None

    # --- made by tests ---

    def chunk(self, data):
        chunk_id = ChunkId(hashlib.sha256(data).digest())
        if chunk_id not in self.places:
            number = len(self.blocks)
            self.places[chunk_id] = Location(number // 4, number % 4, len(self.open_block), len(data))
            self.open_block += data
            self.open_chunks += 1
            if self.open_chunks == BLOCK_CHUNKS:
                self.flush()
        return chunk_id

    def flush(self):
        if self.open_block:
            number = len(self.blocks)
            self.blocks[number // 4, number % 4] = bytes(self.open_block)
            self.open_block = bytearray()
            self.open_chunks = 0

    def file(self, name, data=b"", *, chunk_bytes=1 << 16, pieces=None, **values):
        """Makes a regular file; ``pieces``: bytes, or lengths of holes, which make it refer to a list."""
        if pieces is not None:
            rows = [
                Row(HOLE, piece) if isinstance(piece, int) else Row(self.chunk(piece), len(piece)) for piece in pieces
            ]
            list_id = ChunkId(hashlib.sha256(repr(rows).encode()).digest())
            self.lists[list_id] = rows
            content = Content(level=1, ids=list_id)
            size = sum(row.length for row in rows)
        else:
            ids = [self.chunk(data[at : at + chunk_bytes]) for at in range(0, len(data), chunk_bytes)]
            content, size = Content(ids=b"".join(ids)), len(data)
        values = {"mode": stat.S_IFREG | 0o644, "size": size, "mtime_ns": TIME, "content": content} | ours() | values
        return Entry(name=name, **values)

    def directory(self, name, *entries, sort=True, **values):
        entries = sorted(entries, key=lambda entry: entry.name) if sort else list(entries)
        tree_id = ChunkId(hashlib.sha256(b"tree" + repr(entries).encode()).digest())
        self.trees[tree_id] = entries
        values = {"mode": stat.S_IFDIR | 0o755, "mtime_ns": TIME, "content": Content(ids=tree_id)} | ours() | values
        return Entry(name=name, **values)

    def capture(self, path):
        """Makes entries of a real directory, as a backup would."""
        return self._capture(os.fsencode(path), os.lstat(path), {})

    def _capture(self, path, found, groups):
        name = os.path.basename(path)
        mode = found.st_mode
        values = {"mode": mode, "uid": found.st_uid, "gid": found.st_gid, "mtime_ns": found.st_mtime_ns}
        values["xattrs"] = read_xattrs(path)
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            fd = os.open(path, os.O_RDONLY)
            values["attributes"] = read_flags(fd)
            os.close(fd)
        if not stat.S_ISDIR(mode) and found.st_nlink > 1:
            values["link_group"] = groups.setdefault(found.st_ino, hashlib.md5(b"%d" % found.st_ino).digest())  # noqa: S324
        if stat.S_ISDIR(mode):
            with os.scandir(path) as below:
                entries = [self._capture(item.path, item.stat(follow_symlinks=False), groups) for item in below]
            return self.directory(name, *entries, **values)
        if stat.S_ISREG(mode):
            with open(path, "rb") as file:
                return self.file(name, file.read(), **values)
        if stat.S_ISLNK(mode):
            return Entry(name=name, target=os.readlink(path), **values)
        device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
        rdev = os.major(found.st_rdev) << 32 | os.minor(found.st_rdev) if device else 0
        return Entry(name=name, rdev=rdev, **values)

    # --- Blocks ---

    def locate(self, kind, chunk_id):
        assert kind is Kind.DATA
        try:
            return self.places[chunk_id]
        except KeyError:
            raise ChunkMissing("data", chunk_id) from None

    def locate_runs(self, ids):
        runs = []
        for at in range(0, len(ids), 32):
            place = self.places.get(ids[at : at + 32])
            if place is None:
                runs.append(Run(-1, 0, [(0, 0)]))
            elif runs and runs[-1][:2] == (place.pack, place.block):
                runs[-1].spans.append((place.offset, place.length))
            else:
                runs.append(Run(place.pack, place.block, [(place.offset, place.length)]))
        return runs

    at_once = 2

    def block(self, pack, block):
        with self.lock:
            self.decoded[pack, block] += 1
        if pack in self.gone:
            raise ObjectMissing(f"packs/{pack}")
        if (pack, block) in self.failing:
            raise self.failing[pack, block]
        if (pack, block) in self.bad:
            raise Corruption(f"packs/{pack}", f"block {block} does not open")
        return self.blocks[pack, block]

    def check(self, kind, chunk_id, raw):
        assert kind is Kind.DATA
        if hashlib.sha256(raw).digest() != chunk_id:
            raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "its bytes do not have its id")

    def copy(self, kind, chunk_id):
        assert kind is Kind.DATA
        if chunk_id in self.copies:
            return self.copies[chunk_id]
        raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "no pack holds it sound")

    def still_there(self, error):
        if self.vanished:
            raise error

    def damaged(self, pack, ids):
        self.spoilt += [(pack, chunk_id) for chunk_id in ids]

    def refresh(self):
        self.refreshed += 1

    # --- Trees ---

    def leaves(self, tree_id):
        if tree_id not in self.trees:
            raise ChunkMissing("tree", tree_id)
        entries = self.trees[tree_id]
        for at in range(0, len(entries), RUN_ENTRIES):
            yield leaf_of(entries[at : at + RUN_ENTRIES])

    def list_rows(self, content):
        for chunk_id in content:
            if chunk_id not in self.lists:
                raise ChunkMissing("list", chunk_id)
            yield from self.lists[chunk_id]

    def data_bytes(self, content):
        return sum(length for chunk_id, length in self.list_rows(content) if chunk_id != HOLE)

    # --- restoring ---

    def manifest_of(self, **values):
        basis = {
            "session": bytes(16),
            "root": ChunkId(bytes(32)),
            "sources": (b"/source",),
            "time_ns": TIME,
            "started_ns": TIME,
            "ended_ns": TIME,
            "host": "host",
            "user": "user",
            "uid": 0,
            "figures": Figures(),
        }
        return Manifest(**(basis | values))

    def request(self, entry, target, options=None, *, path=b"/source", **manifest):
        self.flush()
        if entry.is_dir and not entry.name and path != b"/":
            entry = replace(entry, name=b"source")
        values = {} if options is None else {"options": options}
        return Restore(
            blocks=self,
            trees=self,
            manifest=self.manifest_of(**manifest),
            entry=entry,
            path=path,
            target=os.fsencode(target),
            **values,
        )

    def restore(self, entry, target, options=None, *, cancel=None, progress=None, **values):
        return run_restore(self.request(entry, target, options, **values), cancel=cancel, progress=progress)

    def plan(self, entry, target, options=None, **values):
        return plan_restore(self.request(entry, target, options, **values))


def ours():
    return {"uid": os.geteuid(), "gid": os.getegid()}


def picture(path, *, flags=True):
    """Returns everything that a restore is to give back, by path below a directory, and which names are one file."""
    seen = {}
    found = {}
    top = os.fsencode(path)
    stack = [(b"", top)]
    while stack:
        relative, full = stack.pop()
        status = os.lstat(full)
        what = [oct(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, read_xattrs(full)]
        if stat.S_ISREG(status.st_mode):
            with open(full, "rb") as file:
                what.append(hashlib.sha256(file.read()).hexdigest())
                what.append(read_flags(file.fileno()) if flags else 0)
        elif stat.S_ISLNK(status.st_mode):
            what.append(os.readlink(full))
        elif stat.S_ISDIR(status.st_mode):
            fd = os.open(full, os.O_RDONLY)
            what.append(read_flags(fd) if flags else 0)
            os.close(fd)
            stack += [(os.path.join(relative, name), os.path.join(full, name)) for name in os.listdir(full)]
        else:
            what.append(status.st_rdev)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            seen.setdefault(status.st_ino, []).append(relative)
        found[relative] = tuple(what)
    found["linked"] = sorted(sorted(names) for names in seen.values())
    return found
