"""A backend that gives every object that is put its parity, and mends in memory what is read and damaged.

Invariant: an object is durable before its sidecar is put, and a sidecar goes before its object; a sidecar that cannot
be put fails nothing. What is mended is mended for readers only: storage stays as it is, and `mended` says what was.
Keeps patches, not objects: so many bytes as were damaged, of the objects mended last.

Never: writes without a share, or mends an object of which nobody said that it is damaged, small ones aside, which are
compared with their hash whenever they are read whole.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from respaldo.backend.base import HEADER, Backend, Names, Stage, check_range
from respaldo.backend.wrap import Wrapper
from respaldo.codec import parity as code
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageError, StorageFailed, UsageError
from respaldo.core.ids import parse_hash_leaf
from respaldo.core.seams import Buffer
from respaldo.store.parity import (
    NAMED_BY_HASH,
    Read,
    Shards,
    damage_of,
    is_copied,
    is_sound,
    mend,
    read_around,
    sidecar_name,
)

PATCHES_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class _Patch:
    """Is what an object has to be read with: its length, and (from, bytes) in the place of what is stored."""

    length_bytes: int
    pieces: tuple[tuple[int, bytes], ...]

    @property
    def patch_bytes(self) -> int:
        return sum(len(piece) for _, piece in self.pieces)


class Mending(Wrapper):
    """Keeps parity for what is put where there is a share (in thousandths), and mends what is read. Thread-safe."""

    def __init__(self, inner: Backend, share: int = 0) -> None:
        super().__init__(inner)
        self.share = share
        self.mended: dict[str, str] = {}
        """What was damaged and could be read all the same: how much of it, by name."""
        self.without: int = 0
        """Objects that were put and have no parity, because the library is missing or storage took none."""
        self.able = not share or code.is_available()
        self._patches: OrderedDict[str, _Patch] = OrderedDict()
        self._hopeless: set[str] = set()
        self._lock = threading.Lock()

    # --- writing ---------------------------------------------------------------------------------------------------

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        if not self.share or sidecar_name(name) is None:
            self.inner.put(name, pieces)
            return
        pieces = [bytes(piece) for piece in pieces]
        self.inner.put(name, pieces)
        shards = Shards()
        for piece in pieces:
            shards.add(piece)
        self.protect(name, shards, hashlib.sha256(b"".join(pieces)).digest())

    def stage(self, folder: str) -> Stage:
        stage = self.inner.stage(folder)
        if not self.share or sidecar_name(f"{folder}/0") is None:
            return stage
        return _ProtectedStage(stage, self)

    def protect(self, name: str, shards: Shards, digest: bytes) -> None:
        """Puts the sidecar of an object that is durable."""
        beside = sidecar_name(name)
        if beside is None:
            return
        if not self.able and not is_copied(name, shards.length_bytes):
            self.without += 1
            return
        data = shards.sidecar(name, digest, self.share)
        try:
            try:
                self.inner.put(beside, [data])
            except ObjectExists:  # of a pack that is put a second time, or of an object that bore the name before
                if self.inner.get(beside, 0, len(data) + 1) != data:
                    self.inner.replace(beside, [data])
        except (StorageError, Corruption):
            self.without += 1

    def delete(self, name: str) -> None:
        self._forget([name])
        self.inner.delete(name)

    def discard(self, names: Iterable[str]) -> int:
        names = tuple(names)
        self._forget(names)
        return self.inner.discard(names)

    def _forget(self, names: Iterable[str]) -> None:
        """Deletes sidecars, before their objects: no copy of a key slot that was taken away is to outlive it."""
        beside = [sidecar for name in names if (sidecar := sidecar_name(name)) is not None]
        if self.share and beside:
            self.inner.discard(beside)

    def names(self, folder: str) -> Names:
        return self.inner.names(folder)

    # --- reading ---------------------------------------------------------------------------------------------------

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        patch = self._patches.get(name)
        if patch is None:
            return self.inner.get(name, offset, length)
        check_range(offset, length)
        end = patch.length_bytes if length is None else min(offset + length, patch.length_bytes)
        pieces: list[bytes] = []
        at = offset
        for start, piece in patch.pieces:
            if start + len(piece) <= at:
                continue
            if start >= end:
                break
            if start > at:
                pieces.append(self._exactly(name, at, start - at))
                at = start
            pieces.append(piece[at - start : end - start])
            at = min(start + len(piece), end)
        if at < end:
            pieces.append(self._exactly(name, at, end - at))
        return b"".join(pieces)

    def _exactly(self, name: str, offset: int, length: int) -> bytes:
        data = self.inner.get(name, offset, length)
        if len(data) != length:
            raise StorageFailed(name, "it got shorter while it was read")
        return data

    def get_whole(self, name: str, length_max: int) -> bytes:
        if sidecar_name(name) is None:
            return super().get_whole(name, length_max)
        try:
            data = super().get_whole(name, length_max)
        except (Corruption, StorageFailed):
            if not self.mend(name):
                raise
            return super().get_whole(name, length_max)
        if not is_sound(name, data) and self.mend(name):
            data = super().get_whole(name, length_max)
        return data

    def exists(self, name: str) -> int | None:
        patch = self._patches.get(name)
        length = self.inner.exists(name)
        return patch.length_bytes if patch is not None and (length is not None or name == HEADER) else length

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        self.inner.replace(name, pieces)
        with self._lock:
            self._patches.pop(name, None)
            self._hopeless.discard(name)

    def mend(self, name: str) -> bool:
        """Mends an object in memory; returns whether it was damaged and reads well from now on."""
        with self._lock:
            if name in self._patches:
                return True
            if name in self._hopeless:
                return False
            patch = self._patch(name)
            if patch is None:
                self._hopeless.add(name)
                return False
            self._patches[name] = patch
            while sum(item.patch_bytes for item in self._patches.values()) > PATCHES_BYTES_MAX:
                if len(self._patches) == 1:
                    break
                self._patches.popitem(last=False)
            return True

    def _patch(self, name: str) -> _Patch | None:
        if not self.able:
            return None
        try:
            sound = mend(self.inner, name)
        except UsageError:  # the library is missing: whoever opened the repository was told
            return None
        if sound is None:
            return None
        try:
            stored = read_around(self.inner, name, len(sound))
        except ObjectMissing:
            stored = Read(b"", frozenset(), 0)
        ranges = damage_of(stored, sound)
        if not ranges and stored.length_bytes == len(sound):
            return None
        self.mended[name] = say(stored, sound)
        return _Patch(len(sound), tuple((start, sound[start:end]) for start, end in ranges))


def say(stored: Read, sound: bytes) -> str:
    """Returns what was wrong with an object, for a person."""
    length_bytes = sum(end - start for start, end in damage_of(stored, sound))
    if stored.length_bytes == len(sound):
        return f"{length_bytes} of {len(sound)} bytes lie in damaged sectors"
    return f"it is {stored.length_bytes} bytes long, not {len(sound)}"


class _ProtectedStage(Stage):
    """Keeps the sectors of what it hands on, until their parity is made."""

    def __init__(self, inner: Stage, backend: Mending) -> None:
        self._inner = inner
        self._backend = backend
        self._shards = Shards()

    def write(self, piece: Buffer) -> None:
        self._inner.write(piece)
        if self._backend.able:
            self._shards.add(piece)

    def commit(self, name: str) -> None:
        self._inner.commit(name)
        if not self._backend.able:
            self._backend.without += 1
            return
        shards, self._shards = self._shards, Shards()
        folder, _, leaf = name.partition("/")
        digest = parse_hash_leaf(leaf) if folder in NAMED_BY_HASH else None
        if digest is None:
            digest = hashlib.sha256(b"".join((*shards.sectors, shards.rest))).digest()
        self._backend.protect(name, shards, digest)

    def discard(self) -> None:
        self._inner.discard()
        self._shards = Shards()


def healed(backend: Backend) -> Mending | None:
    """Returns a backend that reads what opening takes with its parity; None where none of that can be mended."""
    mending = Mending(backend)
    names = [HEADER]
    try:
        for folder in ("keys", "config"):
            names += sorted(name for name, _ in backend.list(folder))
    except StorageError:
        return None
    for name in names:
        mending.mend(name)
    return mending if mending.mended else None


def with_parity(backend: Backend, share: int) -> Mending:
    """Returns a backend that keeps parity."""
    if not isinstance(backend, Mending):
        return Mending(backend, share)
    backend.share = share
    backend.able = code.is_available()
    return backend
