"""The contract between the repository and the place it lies in.

Owns `Backend` and `Stage`, the names that objects may have, and slow but correct defaults.

Invariant: an object is put once, whole, and never changes afterwards; a listing is complete or an error, never
silently short, because a collector that believes a short listing deletes what it did not see.

Never: locks, retries, caches, looks into an object, or knows what a name means beyond its folder.
"""

from __future__ import annotations

import contextlib
import mmap
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import IO, Final, Self

from respaldo.core.errors import Corruption, ObjectMissing, StorageDenied, StorageFailed
from respaldo.core.seams import Buffer

# The name of a method of `Backend` would hide the built-in `list` from the annotations that follow it.
Listing = list[tuple[str, int]]
Names = list[str]
Litter = list[tuple[str, int, int]]

HEADER: Final = "header"
FOLDERS: Final = frozenset(
    (
        *("packs", "segments", "pending", "outcome", "condemned", "sessions", "keys", "config", "pins", "trash"),
        *("ballast", "log", "catalogue", "lost+found", "parity", "verified", "sums", "epochs"),
        *("enrolled", "runs", "notices"),
    )
)
AREAS: Final = "clients"
"""Holds the areas of clients, each a repository of its own; no object lies in it, and it is none of the folders."""
LOST_FOUND: Final = "lost+found"
"""Holds what a repair took away, under names of its own; nothing that is in it is an object any more."""

_COPY_BYTES: Final = 4 << 20

_HELD_BYTES: Final = 4 << 20
"""Of an object whose end has not come, at most so much is held in memory."""

# No upper case (file systems that fold it), no separator, no leading dot (temporaries, "." and "..").
_LEAF: Final = re.compile(r"[a-z0-9-][a-z0-9.-]{0,127}", re.ASCII)


def is_leaf(leaf: str) -> bool:
    """Tells whether the last part of an object's name is well-formed."""
    return _LEAF.fullmatch(leaf) is not None


def check_folder(folder: str) -> str:
    """Returns a folder's name, or raises ValueError where there is no such folder."""
    if folder not in FOLDERS:
        raise ValueError(f"not a folder of a repository: {folder!r}")
    return folder


def check_name(name: str) -> tuple[str, str]:
    """Splits an object's name into folder ("" for the header) and leaf, or raises ValueError.

    Every method of a backend that takes a name calls it first, so that no name that came out of a hostile object
    reaches a file system or a server.
    """
    if name == HEADER:
        return "", HEADER
    folder, separator, leaf = name.partition("/")
    if not separator or folder not in FOLDERS or not is_leaf(leaf):
        raise ValueError(f"not the name of an object: {name!r}")
    return folder, leaf


def check_range(offset: int, length: int | None) -> None:
    """Raises ValueError for a range that no object can have."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"not a range: offset {offset}, length {length}")


def flat(piece: Buffer) -> memoryview:
    """Returns a piece's bytes as a contiguous view of single bytes; copies only what is scattered in memory."""
    view = memoryview(piece)
    if view.nbytes == 0:
        return memoryview(b"")
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


class Stage(ABC):
    """Takes the bytes of one object whose name is known only at their end. For one thread.

    A context manager: leaving the block without `commit`, or after one that failed, discards what was written.
    After `commit` was called, whatever came of it, the stage takes nothing more (ValueError).
    """

    @abstractmethod
    def write(self, piece: Buffer) -> None:
        """Appends bytes, which the caller may overwrite once this has returned. Errors as of `Backend.put`."""

    @abstractmethod
    def commit(self, name: str) -> None:
        """Puts what was written under a name in the stage's folder; promises and errors as of `Backend.put`."""

    @abstractmethod
    def discard(self) -> None:
        """Forgets what was written and was not committed; may be called again; raises nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class Backend(ABC):
    """Keeps immutable objects under names "folder/leaf", and one called "header". Thread-safe, `close` aside.

    Names that are malformed are a ValueError everywhere. Errors are those of `respaldo.core.errors`: ``StorageError``
    and, for a thing that is no object where an object should be, ``Corruption``. Only ``retryable`` ones are worth a
    retry.
    """

    location: str
    """Where this is, for messages."""

    @property
    def distant(self) -> bool:
        """Whether a call waits for an answer from afar, so that many are to be under way at once."""
        return False

    @abstractmethod
    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        """Stores an object that must not exist yet: whole or absent where the medium allows, durable on return.

        A listing that starts after the return shows it. Of several that put one name at once, one wins and the others
        get ObjectExists; what they lost to is as durable by then as if they had put it. Any other error leaves it
        open whether the object is there (a connection that breaks after the last byte), but never a part of it, save
        on media without an atomic step, where a crash can leave a torn object behind.

        Raises ObjectExists, StorageFull, StorageDenied, StorageFailed.
        """

    def stage(self, folder: str) -> Stage:
        """Begins an object of a folder whose name comes with its last byte; this default holds it until then."""
        return _BufferedStage(self, check_folder(folder))

    @abstractmethod
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Returns exactly the bytes asked for; a range beyond the end is cut short, as slicing does.

        Memory for `length` bytes (all of the object where it is None) may be allocated before the first one is read:
        whoever does not trust the storage asks `exists` for the size first. Raises ObjectMissing.
        """

    def get_whole(self, name: str, length_max: int) -> bytes:
        """Returns all bytes of an object; one that is longer than it may be is `Corruption`, and not read on."""
        data = self.get(name, 0, length_max + 1)  # one call, where asking first would be two
        if len(data) > length_max:
            length = self.exists(name) or len(data)
            raise Corruption(name, f"it is {length} bytes long, more than such an object can be")
        return data

    @abstractmethod
    def list(self, folder: str) -> Listing:
        """Returns (full name, size in bytes) of every object of a folder, in no particular order, each once.

        Objects that are there from the start of the call to its end are in it; ones put or deleted meanwhile may be.
        A crash neither takes away what a listing showed nor brings back what it showed to be gone: its caller relies on
        both. A folder that was never written to is empty. Complete or an error: a repository that is missing or out of
        reach is StorageFailed, never an empty listing. A thing that is no object where one should be is Corruption;
        among the key slots, each of which serves alone, it is listed with a size of 0.
        """

    def names(self, folder: str) -> Names:
        """Returns the names of the objects of a folder; promises and errors as of `list`.

        For whoever needs no sizes, which a medium may have to look up one by one.
        """
        return [name for name, _ in self.list(folder)]

    @abstractmethod
    def delete(self, name: str) -> None:
        """Deletes an object, durably on return. Raises ObjectMissing where there is none."""

    def copy(self, name: str, target: str) -> None:
        """Puts an object's bytes under another name too; promises and errors as of `put`, and ObjectMissing.

        This default reads and puts them. A medium may do it without: then it costs no space, and bytes that cannot be
        read are no obstacle.
        """
        length = self.exists(name)
        if length is None:
            raise ObjectMissing(name)
        with self.stage(check_name(target)[0]) as stage:
            for at in range(0, length, _COPY_BYTES):
                stage.write(self.get(name, at, min(_COPY_BYTES, length - at)))
            stage.commit(target)

    def discard(self, names: Iterable[str]) -> int:
        """Deletes the objects that are there, in no particular order, durably on return; returns how many it deleted.

        For sweeping many: a medium may make them durable together. After an error any part of them may be deleted.
        """
        deleted = 0
        for name in names:
            try:
                self.delete(name)
            except ObjectMissing:
                continue
            deleted += 1
        return deleted

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:  # noqa: ARG002
        """Puts the bytes that an object had in the place of it, in one step: at any time one or the other is there.

        For what has decayed, and for sidecars, which are made out of objects: nothing else is ever overwritten. Durable
        on return. Raises ObjectMissing where there is no such object, or errors as of `put`; after one of those the
        object is as it was, or replaced. This default knows no such step, and refuses.
        """
        raise StorageDenied(name, "this storage cannot replace an object")

    def mend(self, name: str) -> bool:  # noqa: ARG002
        """Tries to get an object's damaged bytes back; returns whether what is read from now on is worth a second look.

        This default has nothing to get them from.
        """
        return False

    @abstractmethod
    def exists(self, name: str) -> int | None:
        """Returns an object's size in bytes, or None where there is none."""

    def misplaced(self) -> Listing:
        """Returns (name, 0) of what is no object and stands where one should be; none where a medium has no such."""
        return []

    def arrivals(self, folder: str) -> Mapping[str, int]:  # noqa: ARG002
        """Returns when the objects of a folder were put, by full name, in ns by the medium's clock.

        Advice: whoever can write to the medium can bend it. Objects whose time the medium cannot tell are left out;
        this default knows none.
        """
        return {}

    def now_ns(self) -> int | None:
        """Returns what the medium's clock says, which is the one of `arrivals` and `litter`; None where it cannot tell.

        Leaves nothing behind. The clock of this machine is another, and may be wrong by years; this default knows none.
        """
        return None

    def space(self) -> tuple[int, int] | None:
        """Returns the free and the total space in bytes, or None where the medium cannot tell."""
        return None

    def litter(self) -> Litter:
        """Returns (place, size in bytes, ns when it was last written to) of every temporary, of runs at work and dead.

        Where a medium has none, as in this default, there are none.
        """
        return []

    def sweep_litter(self, before_ns: int) -> int:  # noqa: ARG002 - for those that have temporaries
        """Deletes temporaries that were last written to before a time (ns since the epoch); returns how many."""
        return 0

    def close(self) -> None:
        """Lets go of descriptors and connections; may be called again; nothing else may be called after it."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _BufferedStage(Stage):
    """Collects an object and puts it at the end: in memory, and beyond some megabytes in a file without a name."""

    __slots__ = ("_backend", "_file", "_folder", "_length", "_pieces")

    def __init__(self, backend: Backend, folder: str) -> None:
        self._backend = backend
        self._folder = folder
        self._pieces: list[bytes] | None = []
        self._length = 0
        self._file: IO[bytes] | None = None

    def write(self, piece: Buffer) -> None:
        if self._pieces is None:
            raise ValueError("the stage was committed or discarded")
        view = flat(piece)
        self._length += view.nbytes
        if self._file is None and self._length <= _HELD_BYTES:
            self._pieces.append(bytes(view))
            return
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `discard`
                for held in self._pieces:
                    self._file.write(held)
                self._pieces.clear()
            self._file.write(view)
        except OSError as error:
            raise StorageFailed("a temporary file", error.strerror or str(error)) from error

    def commit(self, name: str) -> None:
        check_stage(self._folder, name)
        if self._pieces is None:
            raise ValueError("the stage was committed or discarded")
        pieces: Sequence[Buffer] = self._pieces
        self._pieces = None
        if self._file is not None:
            try:
                self._file.flush()
                pieces = [memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))]
            except OSError as error:
                raise StorageFailed("a temporary file", error.strerror or str(error)) from error
        try:
            self._backend.put(name, pieces)
        finally:
            self.discard()

    def discard(self) -> None:
        self._pieces = None
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def check_stage(folder: str, name: str) -> str:
    """Returns the leaf of a name that a stage of this folder may be committed under, or raises ValueError."""
    found, leaf = check_name(name)
    if found != folder:
        raise ValueError(f"a stage of {folder!r} cannot be committed as {name!r}")
    return leaf
