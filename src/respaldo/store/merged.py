"""Objects that supersede others of their folder: how a client reads the fewest, and remembers which ones stand.

For segments and catalogues alike. An object that was read stands until another that was read supersedes it. Invariant:
what is passed over is repeated by something that was read, or its reader finds it elsewhere (packs by their footers,
manifests by themselves): a claim to supersede decides what is read, never what exists. Implements docs/format.md,
"Merging".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Generic, Protocol, TypeVar, cast

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import NAME_BYTES, parse_hash_leaf, parse_leaves
from respaldo.format import canonical
from respaldo.store.index import Index
from respaldo.store.several import AT_ONCE, read_several
from respaldo.store.tiers import Extent

_AT_ONCE_BYTES = 8 << 20
"""Of long objects, fewer are held at a time: reading one takes some three times its length for a moment."""
_LISTINGS_MAX = 5


class Superseding(Protocol):
    """Names objects of its kind whose content it repeats."""

    @property
    def supersedes(self) -> tuple[bytes, ...]: ...


N = TypeVar("N", bound=bytes)
O = TypeVar("O", bound=Superseding)  # noqa: E741 - an object


class Unread(Generic[N, O]):
    """Iterates over (name, object) of what is listed and not known, the fewest that repeat everything.

    Longest first: what supersedes is mostly longer. Lists again where something has vanished, because whoever deleted
    it did so for what supersedes it. What does not open is added to ``damaged``.
    """

    def __init__(
        self,
        listed: Callable[[], Mapping[N, int]],
        read: Callable[[N], O],
        known: Collection[N],
        damaged: list[RespaldoError],
    ) -> None:
        self._listed = listed
        self._read = read
        self._tried = set(known)
        self._damaged = damaged
        self.there: Mapping[N, int] = {}
        """What the last listing showed, with sizes."""
        self.superseded: set[bytes] = set()
        """What something that was read supersedes."""

    def __iter__(self) -> Iterator[tuple[N, O]]:
        for _ in range(_LISTINGS_MAX):
            self.there = self._listed()
            vanished = False
            waiting = sorted(self.there.keys() - self._tried, key=lambda name: (self.there[name], name))
            while wave := self._wave(waiting):
                for name, got in read_several(self._read, wave):
                    self._tried.add(name)
                    if isinstance(got, Corruption):
                        self._damaged.append(got)
                    elif isinstance(got, RespaldoError):
                        vanished = True
                    else:
                        self.superseded.update(got.supersedes)
                        yield name, got
                    del got  # what was read is not held while the next is read
            if not vanished:
                return

    def _wave(self, waiting: list[N]) -> list[N]:
        """Takes from the end of a list what is read together."""
        wave: list[N] = []
        length = 0
        while waiting and len(wave) < AT_ONCE:
            if waiting[-1] not in self.superseded:
                length += self.there[waiting[-1]]
                if wave and length > _AT_ONCE_BYTES:
                    break
                wave.append(waiting[-1])
            waiting.pop()
        return wave

    def passed_over(self) -> set[N]:
        """Returns what is there and superseded, read or not."""
        return {name for name in self.there if name in self.superseded}


def list_hashes(backend: Backend, folder: str) -> dict[bytes, int]:
    """Lists a folder whose objects are named by their hashes: sizes in bytes by hash; passes over other names."""
    listing = backend.list(folder)
    leaves = parse_leaves([name for name, _ in listing], NAME_BYTES)
    found = dict(zip(leaves, (length_bytes for _, length_bytes in listing), strict=True))
    found.pop(None, None)
    return cast("dict[bytes, int]", found)


def name_hashes(backend: Backend, folder: str) -> set[bytes]:
    """Lists such a folder without sizes."""
    return {leaf for leaf in parse_leaves(backend.names(folder), NAME_BYTES) if leaf is not None}


class Standing:
    """Remembers in the index which objects of a folder were read or passed over, and what those repeat that stand."""

    def __init__(self, index: Index, folder: str) -> None:
        self._index = index
        self._folder = folder

    def load(self) -> dict[bytes, Extent | None]:
        """Returns what is known by name: what it repeats, or None where another supersedes it."""
        found: dict[bytes, Extent | None] = {}
        for name, value in self._index.records(self._folder + "/"):
            leaf = parse_hash_leaf(name.partition("/")[2])
            if leaf is not None:
                found[leaf] = _extent(bytes(value), name)
        return found

    def extents(self, there: Collection[bytes] | None = None) -> dict[bytes, Extent]:
        """Returns what stands, of what is ``there``."""
        return {
            name: extent
            for name, extent in self.load().items()
            if extent is not None and (there is None or name in there)
        }

    def note(self, read: Mapping[N, Extent], passed_over: Collection[N] = (), gone: Collection[bytes] = ()) -> None:
        """Remembers what was read, then what was passed over, and forgets what is gone."""
        records = {self._object(name): canonical.pack(list(extent)) for name, extent in read.items()}
        records.update({self._object(name): b"" for name in passed_over})
        self._index.put_records(records, [self._object(name) for name in gone])

    def _object(self, name: bytes) -> str:
        return f"{self._folder}/{name.hex()}"


def _extent(value: bytes, name: str) -> Extent | None:
    try:
        match canonical.unpack(value, name) if value else None:
            case [int(items), int(length_bytes)]:
                return Extent(items, length_bytes)
    except Corruption:
        pass
    return None
