"""A whole operation of one machine at a chosen call of another's, through the library's own face.

Both are as users have them: opening, following the log, the work, closing. Storage is in memory and everything runs in
one thread, so that the k-th call of the first operation is the same one every time. What an operation did it tells the
world (`made`, `going`, `gone`), which looks in the end whether that is what there is, and whether anybody who opens the
repository meets a finding, a damage or a loss: nobody who is honest may look like an attacker.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from respaldo import api
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.core.errors import NotARepository
from respaldo.core.seams import Cancel, Silent
from tests.protocol.scene import Kept

SECRET = api.Secret(key=bytes(32))
REPOSITORY, OTHER = "/nowhere/repository", "/nowhere/other"
LONG_NS = 10**15
FIRST, SAME, ELSE, NEW = "first", "same", "else", "new"
"""Who opens it: the first's machine; another process there; another machine that knows it; one that never saw it."""


class Waits(BaseException):
    """Whoever comes between would wait for its turn, which is the first one's: between these calls nobody comes."""


def take_turn(file: int, how: int) -> None:
    """Locks, or says that somebody else would have to let go first."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Waits from None


class Counting(Wrapper):
    """Tells of each call before it is made; stays open, as the world's storage does."""

    def __init__(self, inner, tell: Callable[[str], None]) -> None:
        super().__init__(inner)
        self._tell = tell

    def put(self, name, pieces):
        self._tell(f"put {name}")
        self.inner.put(name, pieces)

    def get(self, name, offset=0, length=None):
        self._tell(f"get {name}")
        return self.inner.get(name, offset, length)

    def list(self, folder):
        self._tell(f"list {folder}")
        return self.inner.list(folder)

    def delete(self, name):
        self._tell(f"delete {name}")
        self.inner.delete(name)

    def discard(self, names):
        names = list(names)
        self._tell(f"discard {names[:1]}")
        return self.inner.discard(names)

    def replace(self, name, pieces):
        self._tell(f"replace {name}")
        self.inner.replace(name, pieces)

    def exists(self, name):
        self._tell(f"exists {name}")
        return self.inner.exists(name)

    def close(self):
        pass


class World:
    """Is a repository with four snapshots, one of them in the trash, and an empty one that it is copied to.

    ``rotated``: its key was rotated once, nothing was carried over, and a snapshot was made since.
    """

    def __init__(self, folder: Path, monkeypatch, *, rotated: bool) -> None:
        self.folder, self.rotated = folder, rotated
        self._stores: dict[str, MemoryBackend] = {}
        self._tell: Callable[[str], None] | None = None
        self._rng = random.Random(0)
        for module in ("opening", "making"):
            monkeypatch.setattr(f"respaldo.api.{module}.open_backend", self._backend)
            monkeypatch.setattr(f"respaldo.api.{module}.system_random", self._random)
        turns = SimpleNamespace(flock=take_turn, LOCK_EX=fcntl.LOCK_EX)
        monkeypatch.setattr("respaldo.store.recollection.fcntl", turns)
        self.made: set[str] = set()
        self.going: set[str] = set()
        self.gone: set[str] = set()
        self._make()
        self.known = set(self.made)
        self._objects = {location: store.snapshot() for location, store in self._stores.items()}
        shutil.copytree(folder / "now", folder / "then")

    def _random(self, length_bytes: int, /) -> bytes:
        return self._rng.randbytes(length_bytes)

    def _backend(self, location: str, *, create: bool = False):
        if create:
            self._stores.setdefault(location, MemoryBackend(location))
        if location not in self._stores:
            raise NotARepository(location, "nothing there")
        store = self._stores[location]
        return Kept(store) if self._tell is None else Counting(store, self._tell)

    def _make(self) -> None:
        for location in (REPOSITORY, OTHER):
            api.init(location, SECRET, places=self._places(FIRST))
        for label in ("one", "two", "binned"):
            backup(self, FIRST, label)
        backup(self, ELSE, "three")
        with self.open(ELSE) as opened:
            opened.forget(["binned"], grace_ns=LONG_NS, cancel=Cancel())
        self.made.discard("binned")
        if self.rotated:
            rotate(self, FIRST)
            backup(self, FIRST, "four")
        for who in (FIRST, SAME, ELSE):
            with self.open(who) as opened:
                opened.snapshots()
                self.head = opened.history.head()

    def reset(self, seed: int) -> None:
        """Makes all as it was, but for what chance will bring."""
        self._rng.seed(seed + 1)
        self._stores.clear()
        for location, objects in self._objects.items():
            store = self._stores[location] = MemoryBackend(location)
            for name, content in objects.items():
                store.put(name, [content])
        shutil.rmtree(self.folder / "now")
        shutil.copytree(self.folder / "then", self.folder / "now")
        self.made, self.going, self.gone = set(self.known), set(), set()

    def _places(self, who: str) -> api.Places:
        state = FIRST if who == SAME else who
        return api.Places(cache_dir=self.folder / "now" / f"cache {who}", state_dir=self.folder / "now" / f"of {state}")

    def open(self, who: str, *, writes: bool = True, location: str = REPOSITORY) -> api.Repository:
        """Opens the repository on somebody's machine."""
        return api.open_repository(location, SECRET, places=self._places(who), writes=writes)

    def source(self, label: str) -> bytes:
        """Returns a directory with files that are like those of no other label."""
        folder = self.folder / "sources" / label
        if not folder.exists():
            folder.mkdir(parents=True)
            rng = random.Random(label)
            for number in range(3):
                (folder / f"file{number}").write_bytes(rng.randbytes(3000))
        return os.fsencode(folder)

    @contextlib.contextmanager
    def heard(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Tells of each call of whoever opens the repository meanwhile."""
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    @contextlib.contextmanager
    def unheard(self) -> Iterator[None]:
        """Keeps quiet about whoever opens the repository meanwhile."""
        tell, self._tell = self._tell, None
        try:
            yield
        finally:
            self._tell = tell

    def check(self) -> None:
        """Looks whether what was made is there and whole, what is gone is not, and nobody meets a finding."""
        for who in (FIRST, ELSE, NEW):
            with self.open(who, writes=False) as opened:
                found = {item.manifest.label for item in opened.snapshots().snapshots}
                assert self.made - self.going <= found, "lost"
                assert not self.gone & found, "forgotten, and there"
                assert not opened.damaged
                check_log(opened)
                if who == NEW:
                    check_content(opened)


Operation = Callable[[World, str], None]


def check_log(opened: api.Repository) -> None:
    """Looks whether the log, and the one of accesses, raise no suspicion."""
    assert opened.history.survey() == (), "suspicion"
    findings, _ = opened.history.accesses.check(opened.history.signed())
    assert not findings, "suspicion"


def check_content(opened: api.Repository) -> None:
    """Reads everything."""
    result = opened.verify(api.VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
    assert not result.damages


def backup(world: World, who: str, label: str = "") -> None:
    """Makes a snapshot."""
    label = label or f"of {who}"
    with world.open(who) as opened:
        opened.backup([world.source(label)], api.BackupOptions(label=label), progress=Silent(), cancel=Cancel())
    world.made.add(label)


def prune(world: World, who: str) -> None:
    """Collects, and packs anew what holds any garbage."""
    with world.open(who) as opened:
        opened.prune(api.PruneOptions(repack_below=1.0), progress=Silent(), cancel=Cancel())


def forget(world: World, who: str, grace_ns: int = 0) -> None:
    """Forgets a snapshot."""
    world.going.add("two")
    with world.open(who) as opened:
        went = opened.forget(["two"], grace_ns=grace_ns, cancel=Cancel())
    world.gone.update(item.manifest.label for item in went)


def bin_one(world: World, who: str) -> None:
    """Puts a snapshot into the trash."""
    forget(world, who, LONG_NS)


def forget_and_prune(world: World, who: str) -> None:
    """Takes a snapshot's content away."""
    forget(world, who)
    prune(world, who)


def pin(world: World, who: str) -> None:
    """Pins the snapshot that others forget."""
    with world.open(who) as opened:
        opened.pin(["two"])
    world.going.discard("two")


def undo(world: World, who: str) -> None:
    """Brings a snapshot back."""
    with world.open(who) as opened:
        opened.undo(["binned"])
    world.made.add("binned")


def rewrite(world: World, who: str) -> None:
    """Makes a snapshot of another, with another label."""
    with world.open(who) as opened:
        options = api.RewriteOptions(label="rewritten")
        result = opened.rewrite(["one"], options, forget=False, progress=Silent(), cancel=Cancel())
    assert result.items[0].snapshot is not None
    world.made.add("rewritten")


def rotate(world: World, who: str) -> None:
    """Rotates the key, after it has finished what another began."""
    with world.open(who) as opened:
        unfinished = opened.slots.unfinished
        if unfinished:
            opened.slots.finish_rotation()
        else:
            opened.slots.rotate(opened.slots.plan_rotation(None))
    if unfinished:
        rotate(world, who)


def reencrypt(world: World, who: str) -> None:
    """Carries over what is left under older keys."""
    with world.open(who) as opened:
        opened.slots.reencrypt(progress=Silent(), cancel=Cancel())


def rotate_and_write(world: World, who: str) -> None:
    """Rotates the key, and uses the new one."""
    rotate(world, who)
    backup(world, who)
    forget_and_prune(world, who)


def rotate_and_reencrypt(world: World, who: str) -> None:
    """Rotates the key and destroys the one before."""
    rotate(world, who)
    reencrypt(world, who)


def announce_much(world: World, who: str) -> None:
    """Fills the log with so many entries that they are gathered."""
    with world.open(who) as opened:
        for _ in range(17):
            opened.within.announce("prune", note="again")


def copy(world: World, who: str) -> None:
    """Brings the other repository into line with this one."""
    with world.unheard():
        target = world.open(who, location=OTHER)
    with target, world.open(who) as source:
        assert api.sync(source, target, delete=True, progress=Silent(), cancel=Cancel()).copy.complete


def add_slot(world: World, who: str) -> None:
    """Adds a key."""
    with world.open(who) as opened:
        opened.slots.add(api.Secret(key=bytes(31) + bytes([len(who)])), label=who)


def repair(world: World, who: str) -> None:
    """Looks what there is to repair, which is nothing."""
    with world.open(who) as opened:
        assert not opened.prepare_repair(api.RepairOptions(), progress=Silent(), cancel=Cancel()).plan.faults


def verify(world: World, who: str) -> None:
    """Reads everything."""
    with world.open(who, writes=False) as opened:
        check_content(opened)


def read_log(world: World, who: str) -> None:
    """Compares the log with a head that was noted."""
    with world.open(who, writes=False) as opened:
        assert not opened.history.check(world.head).findings, "suspicion"
        check_log(opened)


def look(world: World, who: str) -> None:
    """Lists snapshots, what is in one, and keys."""
    with world.open(who, writes=False) as opened:
        assert {"one", "three"} <= {item.manifest.label for item in opened.snapshots().snapshots}
        assert sum(1 for _ in opened.ls(opened.find("one"), recursive=True)) > 3
        assert opened.slots.listed()[1] == []
        assert opened.clients.listed()[1] == []


def restore(world: World, who: str) -> None:
    """Restores a snapshot."""
    target = world.folder / "now" / f"restored {who}"
    with world.open(who, writes=False) as opened:
        result = opened.restore(
            opened.find("one"), os.fsencode(target), api.RestoreOptions(), progress=Silent(), cancel=Cancel()
        )
    assert not result.failed
    assert not result.damaged
