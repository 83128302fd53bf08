"""Targets: whole repositories, whose author has the key and means ill, or whose storage does.

Everything is done with them that reads: listing, walking, finding, comparing, exporting, checking, restoring. Whatever
is wrong is one of the project's own errors, or damage that is counted; nothing is written outside of what a restore is
told to write to.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from blake3 import blake3

from respaldo.api.history import Rollback
from respaldo.api.places import Places, Uses
from respaldo.api.repository import Repository
from respaldo.backend.base import Backend
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import ReadOnly
from respaldo.catalog.protection import pin, trash_name
from respaldo.catalog.snapshots import load, pending_name
from respaldo.catalog.sums import put_sums
from respaldo.catalog.trees import TreeReader
from respaldo.catalog.verification import note_verified
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import ChunkId, Kind, PackName, catalogue_object, parse_hash_leaf, segment_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.restore.options import RestoreOptions
from respaldo.format import canonical, frame, pack
from respaldo.format.header import close_object, unclose_object
from respaldo.format.protection import Trashed
from respaldo.format.snapshot import Outcome, Verdict
from respaldo.format.verification import How, WasWhole
from respaldo.store.packs import PackWriter, read_footer, seal_block
from respaldo.store.repo import Repo
from respaldo.views.criteria import Criteria
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target
from tests.store.repositories import SECRET, SESSION, Clock, Tape, initialise, replica

_SET_FLAGS = 0x40086602
SLOW_S = 6.0


class _Base:
    """Is a sound repository of two snapshots, and how its author changes what stands in it."""

    def __init__(self) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
        place = Path(self._room.name)
        top = place / "source"
        (top / "deep").mkdir(parents=True)
        (top / "deep" / "long").write_bytes(random.Random(1).randbytes(80_000))
        with (top / "deep" / "holes").open("wb") as file:
            file.write(b"x" * 5000)
            file.seek(1 << 20)
            file.write(b"y" * 9000)
        (top / "deep" / "link").symlink_to("../../outside")
        (top / "deep" / "one").write_bytes(b"one")
        os.link(top / "deep" / "one", top / "deep" / "two")
        os.mkfifo(top / "fifo")
        with contextlib.suppress(OSError):  # not every file system has them
            os.setxattr(top / "deep" / "one", "user.note", b"x")
        backend, tape = MemoryBackend(), Tape()
        initialise(backend, random=tape)
        self.repo = Repo.open(
            backend, SECRET, cache_dir=place / "cache", state_dir=place / "state", clock=Clock(), random=tape
        )
        for number in range(2):
            options = BackupOptions(recorded_as=b"/home/ana", host="granja", user="ana")
            run_backup(self.repo, [bytes(top)], options, progress=Silent(), cancel=Cancel())
            self.repo.clock.now += 10**9  # type: ignore[attr-defined]
            (top / "deep" / "new").write_bytes(b"new" * (number + 1))
        snapshots = load(self.repo).snapshots
        pin(self.repo, snapshots[0].id, "why not")
        put_sums(self.repo, {b"k" * 48: b"d" * 32})
        note_verified(
            self.repo,
            [WasWhole(snapshot=item.id, root=item.manifest.root, time_ns=5, how=How.VERIFY) for item in snapshots],
        )
        record = Trashed(time_ns=1, until_ns=self.repo.clock.now_ns() + 10**18)
        self._put("trash", trash_name(snapshots[0].id), record.encode())
        self.objects = backend.snapshot()
        self.snapshot = snapshots[-1]
        self.names = sorted(self.objects)
        self.parts = self._chunks() + [(name, self._open(name)) for name in self.names if self._kind(name)]

    def _put(self, kind: str, name: str, raw: bytes) -> None:
        self.repo.backend.put(name, [self.repo.vault.seal_record(kind, name, raw)])

    # --- what stands in it -----------------------------------------------------------------------------------------

    @staticmethod
    def _kind(name: str) -> str:
        """Returns the kind of a record, empty for what is none."""
        folder = name.partition("/")[0]
        kinds = {"pending": "manifest", "pins": "pin", "markers": "marker", "condemned": "condemnation"}
        if folder in {"header", "keys", "tmp", "ballast", "parity", "packs"}:
            return "footer" if folder == "packs" else ""
        return kinds.get(folder, folder)

    def _open(self, name: str) -> bytes:
        data, kind, vault = self.objects[name], self._kind(name), self.repo.vault
        match kind:
            case "footer":
                leaf = PackName(parse_hash_leaf(name.partition("/")[2]) or b"")
                return read_footer(replica(self.objects), vault, leaf, len(data))[1]
            case "segments":
                return vault.open_segment(data, name)
            case "catalogue":
                return vault.open_catalogue(data, name)
        return vault.open_record(kind, name, data)

    def _chunks(self) -> list[tuple[str, bytes]]:
        """Returns the trees from the root down to a directory, and a list, the lowest first."""
        trees = TreeReader(self.repo.source)
        found: list[tuple[str, bytes]] = []
        self.ids: list[ChunkId] = []
        tree = self.snapshot.manifest.root
        for name in (b"home", b"ana", b"deep", b""):
            found.append(("tree", self.repo.source.get(Kind.TREE, tree)))
            self.ids.append(tree)
            entries = {entry.name: entry for entry in trees.entries(tree)}
            if name:
                tree = ChunkId(entries[name].content.ids)
            lists = [entry.content.ids for entry in entries.values() if entry.content.level]
        node = ChunkId(lists[0])
        found.append(("list", self.repo.source.get(Kind.LIST, node)))
        self.ids.append(node)
        return found

    # --- what its author makes of it -------------------------------------------------------------------------------

    def authored(self, number: int, raw: bytes) -> MemoryBackend:
        """Returns a repository with another content in the place of one part; what refers to it is changed along."""
        name, _ = self.parts[number % len(self.parts)]
        objects = dict(self.objects)
        if name in {"tree", "list"}:
            return self._with_chunks(number % len(self.parts), raw)
        vault, kind = self.repo.vault, self._kind(name)
        match kind:
            case "footer":
                data = self._with_footer(name, raw)
                del objects[name]
                objects["packs/" + hashlib.sha256(data).hexdigest()] = data
            case "segments" | "catalogue":
                del objects[name]
                if kind == "segments":
                    segment, data = vault.seal_segment(raw)
                    objects[segment_object(segment)] = data
                else:
                    roll, data = vault.seal_catalogue(raw)
                    objects[catalogue_object(roll)] = data
            case "manifest":
                return self._with_manifest(objects, name, raw)
            case _:
                objects[name] = vault.seal_record(kind, name, raw)
        return replica(objects)

    def _with_manifest(self, objects: dict[str, bytes], name: str, raw: bytes) -> MemoryBackend:
        vault = self.repo.vault
        objects[name] = vault.seal_record("manifest", name, raw)
        outcome = "outcome/" + name.partition("/")[2]
        said = Outcome(verdict=Verdict.COMMIT, pending_hash=hashlib.sha256(objects[name]).digest())
        objects[outcome] = vault.seal_record("outcome", outcome, said.encode())
        for other in [other for other in objects if other.startswith("catalogue/")]:
            del objects[other]
        return replica(objects)

    def _with_chunks(self, number: int, raw: bytes) -> MemoryBackend:
        """Puts a chunk in the place of another one, and what leads to it, up to the manifest, beside the old."""
        backend = MemoryBackend()
        vault = self.repo.vault
        with PackWriter(backend, vault, SESSION) as writer:
            below, fresh = b"", b""
            for at in range(number, -1, -1):
                name, was = self.parts[at]
                changed = raw if at == number else was.replace(below, fresh)
                kind = Kind.LIST if name == "list" else Kind.TREE
                chunk_id = blake3(changed, key=self.repo.ring.id_keys[kind]).digest()
                if changed:
                    writer.add(seal_block(vault, kind, changed, chunk_id, len(changed).to_bytes(4, "little")))
                below, fresh = self.ids[at], chunk_id
            writer.finish()
        objects = {**self.objects, **backend.snapshot()}
        name = pending_name(self.snapshot.id)
        return self._with_manifest(objects, name, self._open(name).replace(below, fresh))

    def _with_footer(self, name: str, raw: bytes) -> bytes:
        vault, data = self.repo.vault, self.objects[name]
        leaf = PackName(parse_hash_leaf(name.partition("/")[2]) or b"")
        body = data[: read_footer(replica(self.objects), vault, leaf, len(data))[0].body_length]
        head, squeezed = frame.squeeze(raw, vault.compressor)
        framed = frame.build(head, squeezed, len(head) + len(squeezed))
        trailer = pack.pack_trailer(len(body))
        sealed = vault.sealer.seal("footer", "", len(framed), framed)
        return b"".join((body, *sealed, *vault.sealer.seal("trailer", "", len(trailer), trailer)))

    def stored(self, op: int, number: int, at: int, raw: bytes) -> MemoryBackend:
        """Returns a repository with one object as a storage that means ill would give it."""
        objects = dict(self.objects)
        name = self.names[number % len(self.names)]
        other = self.names[at % len(self.names)]
        data = objects[name]
        match op % 8:
            case 0:
                objects[name] = raw
            case 1:
                del objects[name]
            case 2:
                objects[name] = objects[other]
            case 3:
                objects[name] = data[: at % (len(data) + 1)]
            case 4:
                at %= len(data)
                objects[name] = data[:at] + raw + data[at + len(raw) :]
            case 5:
                with contextlib.suppress(Corruption):
                    at %= len(data)
                    body = unclose_object(data, name)
                    objects[name] = close_object(body[:at] + raw + body[at + len(raw) :])
            case 6:
                objects[name] = data + raw
            case _:
                folder = name.partition("/")[0]
                objects[f"{folder}/{hashlib.sha256(raw).hexdigest()[: len(name) - len(folder) - 1]}"] = data
        return replica(objects)


_BASES: list[_Base] = []


def _base() -> _Base:
    if not _BASES:
        _BASES.append(_Base())
    return _BASES[0]


def _freed(path: str) -> None:
    """Takes away what keeps a file from being deleted."""
    with contextlib.suppress(OSError):
        if not os.path.islink(path):
            os.chmod(path, 0o700)
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            fcntl.ioctl(fd, _SET_FLAGS, struct.pack("l", 0))
            os.fchmod(fd, 0o700)
        finally:
            os.close(fd)


def _clear(place: str) -> None:
    try:
        shutil.rmtree(place)
    except OSError:
        for folder, folders, files in os.walk(place):
            for name in (*folders, *files):
                _freed(os.path.join(folder, name))
        shutil.rmtree(place, ignore_errors=True)


def _doing(*actions: Callable[[], object]) -> None:
    """Does one thing after another, whatever is wrong with the one before."""
    for action in actions:
        with contextlib.suppress(RespaldoError):
            action()


def _opened(backend: Backend, places: Places) -> Repo:
    return Repo.open(
        backend,
        SECRET,
        cache_dir=places.cache_dir,
        state_dir=places.state_dir,
        clock=Clock(),
        random=os.urandom,
    )


def use(backend: MemoryBackend, opened: Callable[[Backend, Places], Repo] = _opened) -> None:
    """Does everything with a repository that only reads it, as a new client."""
    place = tempfile.mkdtemp(prefix="respaldo-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    os.mkdir(f"{place}/outside")
    os.mkdir(f"{place}/a")
    target = f"{place}/a/target".encode()
    places = Places(cache_dir=Path(place) / "cache", state_dir=Path(place) / "state")
    try:
        with contextlib.suppress(RespaldoError):
            repo = opened(ReadOnly(backend), places)
            with Repository(repo, Uses(places, bytes(16)), pinned=True, rollback=Rollback.REPORT) as repository:
                _look(repository, target)
        assert os.listdir(f"{place}/outside") == [], "a restore wrote outside of its target"
        assert set(os.listdir(f"{place}/a")) <= {"target"}, "a restore wrote beside its target"
        assert set(os.listdir(place)) <= {"outside", "a", "cache", "state"}, "a restore wrote above its target"
    finally:
        _clear(place)


def _look(repository: Repository, target: bytes) -> None:
    silent, cancel = Silent(), Cancel()

    def nowhere(_: object) -> None:
        return None

    _doing(
        repository.history.follow,
        repository.history.entries,
        lambda: repository.history.check(repository.history.head()),
        repository.snapshots,
        repository.verified,
        lambda: repository.stats(silent),
        lambda: repository.verify(VerifyOptions(read_data=True), progress=silent, cancel=cancel),
    )
    snapshots = repository.looking.snapshots()
    found = [repository.find(item.hex) for item in snapshots]
    for item in found[-2:]:
        _doing(
            lambda item=item: list(repository.ls(item, recursive=True)),  # type: ignore[misc]
            lambda item=item: repository.looking.export(item, "tar", nowhere, progress=silent),  # type: ignore[misc]
            lambda item=item: repository.restore(  # type: ignore[misc]
                item, target, RestoreOptions(delete=True, check_space=True), progress=silent, cancel=cancel
            ),
        )
    _doing(
        lambda: list(repository.looking.find(snapshots, Criteria(pattern="*o*")).run()),
        lambda: list(repository.looking.history(snapshots, b"/home/ana/deep/new")),
        lambda: [list(repository.looking.diff(one, other).changes) for one, other in pairwise(found)],
        lambda: repository.find("latest:/home/ana/deep"),
    )


def taken(data: bytes) -> tuple[list[int], bytes]:
    """Returns the numbers and the bytes of an input, whatever became of its form: there is always something to do."""
    value = canonical.unpack(data, "x")
    parts = value if isinstance(value, list) else [value]
    numbers = [max(part, 0) for part in parts if isinstance(part, int)]
    return [*numbers, 0, 0, 0], next((part for part in parts if isinstance(part, bytes)), b"")


def _author(data: bytes) -> None:
    (number, *_), raw = taken(data)
    use(_base().authored(number, raw))


def _authors() -> Iterator[bytes]:
    for number, (_, raw) in enumerate(_base().parts):
        yield canonical.pack([number, raw])


def _storage(data: bytes) -> None:
    (op, number, at, *_), raw = taken(data)
    use(_base().stored(op, number, at, raw))


def _storages() -> Iterator[bytes]:
    for number, name in enumerate(_base().names):
        yield canonical.pack([4, number, 77, b"x"])
        if name == "header" or name.startswith("keys/"):
            yield canonical.pack([0, number, 0, _base().objects[name]])


TARGETS = [
    Target(
        name="author",
        parse=_author,
        seeds=_authors,
        form=Form.VALUE,
        modules=("respaldo.format",),
        slow_s=SLOW_S,
        corpus_max=10,
    ),
    Target(name="storage", parse=_storage, seeds=_storages, form=Form.VALUE, slow_s=SLOW_S, corpus_max=10),
]
