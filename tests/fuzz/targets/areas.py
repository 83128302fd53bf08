"""Targets: the area of a client that cannot read, in the hands of who has stolen that client's machine."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from respaldo.api.places import Places
from respaldo.backend.base import Backend
from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import Corruption
from respaldo.core.ids import PackName, parse_hash_leaf
from respaldo.format import canonical, frame, pack
from respaldo.format.snapshot import Outcome, Verdict
from respaldo.store.owned import OwnedArea
from respaldo.store.packs import read_footer
from respaldo.store.repo import Repo
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target
from tests.fuzz.targets.whole import SLOW_S, taken, use
from tests.store.owners import Place, backup
from tests.store.repositories import Clock, replica

_KINDS = {"pending": "manifest", "outcome": "outcome", "log": "log", "packs": "footer", "runs": "run"}


class _Area:
    """Is an area with one snapshot, whose client goes on writing what it likes."""

    def __init__(self) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
        self.place = Place(Path(self._room.name) / "place")
        self.place.write(one=b"one" * 100, long=random.Random(1).randbytes(50_000))
        self.client = self.place.client()
        self.client.runs.end = lambda: None  # type: ignore[method-assign] - whoever has stolen the machine keeps the keys
        backup(self.client, self.place.source)
        self.known = self.place.known()
        self.objects = self.place.area.snapshot()
        self.owner = self.place.opened(fresh=True)
        self.owner.synchronise()
        names = sorted(name for name in self.objects if name.partition("/")[0] in _KINDS)
        self.parts = [(name, raw) for name in names for raw in self._open(name)]

    def _open(self, name: str) -> Iterator[bytes]:
        """Yields what an object of the client says, nothing of one that its owner alone can open."""
        data, kind = self.objects[name], _KINDS[name.partition("/")[0]]
        try:
            if kind == "footer":
                leaf = PackName(parse_hash_leaf(name.partition("/")[2]) or b"")
                yield read_footer(replica(self.objects), self.owner.vault, leaf, len(data))[1]
            elif kind == "run":
                yield data
            else:
                yield self.owner.vault.open_record(kind, name, data)
        except Corruption:
            return

    def written(self, number: int, raw: bytes) -> MemoryBackend:
        """Returns the area with another content of one part, sealed by the client as its own are."""
        name, _ = self.parts[number % len(self.parts)]
        objects, kind, vault = dict(self.objects), _KINDS[name.partition("/")[0]], self.client.vault
        if kind == "footer":
            leaf = PackName(parse_hash_leaf(name.partition("/")[2]) or b"")
            whole = objects.pop(name)
            body = whole[: read_footer(replica(self.objects), self.owner.vault, leaf, len(whole))[0].body_length]
            head, squeezed = frame.squeeze(raw, vault.compressor)
            framed = frame.build(head, squeezed, len(head) + len(squeezed))
            trailer = pack.pack_trailer(len(body))
            sealed = vault.sealer.seal("footer", "", len(framed), framed)
            data = b"".join((body, *sealed, *vault.sealer.seal("trailer", "", len(trailer), trailer)))
            objects["packs/" + hashlib.sha256(data).hexdigest()] = data
            return replica(objects)
        objects[name] = raw if kind == "run" else vault.seal_record(kind, name, raw)
        if kind == "manifest":
            outcome = "outcome/" + name.partition("/")[2]
            said = Outcome(verdict=Verdict.COMMIT, pending_hash=hashlib.sha256(objects[name]).digest())
            objects[outcome] = vault.seal_record("outcome", outcome, said.encode())
        return replica(objects)

    def opened(self, backend: Backend, places: Places) -> Repo:
        """Opens the area as its owner has it, on a new machine."""
        return OwnedArea.open_area(
            backend,
            self.known,
            cache_dir=places.cache_dir,
            state_dir=places.state_dir,
            clock=Clock(),
            random=os.urandom,
        )


_AREAS: list[_Area] = []


def _area() -> _Area:
    if not _AREAS:
        _AREAS.append(_Area())
    return _AREAS[0]


def _owner(data: bytes) -> None:
    (number, *_), raw = taken(data)
    use(_area().written(number, raw), _area().opened)


def _seeds() -> Iterator[bytes]:
    for number, (_, raw) in enumerate(_area().parts):
        yield canonical.pack([number, raw])


TARGETS = [
    Target(
        name="area",
        parse=_owner,
        seeds=_seeds,
        form=Form.VALUE,
        modules=("respaldo.format",),
        slow_s=SLOW_S,
        corpus_max=10,
    ),
]
