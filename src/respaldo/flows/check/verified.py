"""When each pack was last verified, remembered locally, so that checks of a part go on where the last one stopped.

Disposable: a client that remembers nothing begins at the beginning. Never remembers a pack that is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from respaldo.core.ids import PackName
from respaldo.flows.check.options import Subset
from respaldo.store.local import Environment

LAYOUT = "verified 1"
_TIME = struct.Struct("<q")


class Verified:
    """Remembers times (ns since the epoch) by pack. A context manager; one thread."""

    def __init__(self, path: Path) -> None:
        self._environment = Environment(path, layout=LAYOUT, databases={"packs": False})
        self._packs = self._environment.dbs["packs"]

    def times(self) -> dict[PackName, int]:
        """Returns what is remembered."""
        with self._environment.read() as txn:
            found = {PackName(bytes(name)): bytes(time) for name, time in txn.cursor(db=self._packs)}
        if any(len(time) != _TIME.size for time in found.values()):
            raise lmdb.CorruptedError("a time at which a pack was verified is not what was noted")
        return {name: _TIME.unpack(time)[0] for name, time in found.items()}

    def note(self, sound: Iterable[PackName], time_ns: int, forget: Iterable[PackName] = ()) -> None:
        """Remembers packs as verified now, and forgets others."""

        def note(txn: lmdb.Transaction) -> None:
            for name in sound:
                txn.put(name, _TIME.pack(time_ns), db=self._packs)
            for name in forget:
                txn.delete(name, db=self._packs)

        self._environment.write(note)

    def close(self) -> None:
        """Makes it durable."""
        self._environment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def choose(packs: Mapping[PackName, int], times: Mapping[PackName, int], subset: Subset | None) -> list[PackName]:
    """Returns the packs to read, never or longest ago verified first; all for a subset by time."""
    ordered = sorted(packs, key=lambda name: (name in times, times.get(name, 0), name))
    if subset is None or subset.duration_s:
        return ordered
    if subset.part is not None:
        number, parts = subset.part
        return [name for name in ordered if int.from_bytes(name, "big") % parts == number - 1]
    limit = subset.length_bytes or subset.share * sum(packs.values())
    chosen: list[PackName] = []
    length = 0
    for name in ordered:
        if chosen and length + packs[name] > limit:
            break
        chosen.append(name)
        length += packs[name]
    return chosen
