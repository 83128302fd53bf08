"""An area as its owner has it open: the repository of a client that cannot read, which the owner reads and collects.

What is known of the client is in sealed records of the owner's repository, never in the area. Implements
docs/format.md, "Clients that cannot read" (the owner's half).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Self

from respaldo.backend.base import Backend
from respaldo.codec.keys import KeyRing
from respaldo.core.errors import Corruption
from respaldo.core.seams import Clock, Progress, Random
from respaldo.format.header import HEADER
from respaldo.store.header import or_healed, read_header
from respaldo.store.repo import Listing, Repo
from respaldo.store.rings import Area, AreaRings


class OwnedArea(Repo):
    """Is the area of a client, open for its owner. A context manager; one thread."""

    area: AreaRings

    @classmethod
    def open_area(
        cls,
        backend: Backend,
        area: Area,
        *,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        state_dir: Path | None = None,
    ) -> Self:
        """Opens an area with the key that the client's enrolment holds; raises `NotARepository`, `Corruption`."""
        return or_healed(partial(cls._open_area, area, cache_dir, clock, random, state_dir), backend)

    @classmethod
    def _open_area(
        cls, area: Area, cache_dir: Path, clock: Clock, random: Random, state_dir: Path | None, backend: Backend
    ) -> Self:
        header, enrolment = read_header(backend), area.enrolment
        if header.hash != enrolment.header_hash:
            raise Corruption(HEADER, "it is not the header of the area of this client")
        ring = KeyRing(enrolment.master, header.hash)
        rings = AreaRings(ring, area, backend, header)
        opened = cls(
            backend, header, ring, cache_dir=cache_dir, clock=clock, random=random, state_dir=state_dir, rings=rings
        )
        opened.area = rings
        rings.recall(opened.vault, opened.index)
        return opened

    def close(self) -> None:
        """Keeps what was learned of the client's runs, and closes index and backend."""
        self.area.keep(self.vault, self.index)
        super().close()

    def synchronise(self, progress: Progress | None = None, *, lenient: bool = False) -> Listing:
        """Brings the index up to date; what does not open may be of a run that has begun since the last time."""
        self.area.look_again()
        return super().synchronise(progress, lenient=lenient)
