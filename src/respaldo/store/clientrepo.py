"""An area as its client has it open: it writes, and reads nothing that an earlier session wrote.

Invariant: it relies on no pack that it has not written itself or that a notice of the owner calls moved, nor on one
that a condemnation may name which no notice speaks of. Implements docs/format.md, "Writing without reading".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

from respaldo.backend.base import Backend
from respaldo.codec.keys import access_seed
from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import RANDOM_ID_BYTES, PackName, pack_object, parse_random_leaf
from respaldo.core.seams import Clock, Random
from respaldo.format.credential import Credential
from respaldo.format.header import Header
from respaldo.format.notice import Notice, parse_notice_name
from respaldo.format.pack import parse_footer
from respaldo.format.segment import Listed
from respaldo.format.snapshot import Condemnation, parse_condemnation
from respaldo.store.clientlog import ClientLog
from respaldo.store.epochs import Epoch, EpochRings
from respaldo.store.merged import list_hashes
from respaldo.store.notices import read_notice
from respaldo.store.ownpacks import OwnPacks
from respaldo.store.ownsource import OwnSource
from respaldo.store.packrow import Entering
from respaldo.store.packs import Finished
from respaldo.store.recollection import Recollection, client_path
from respaldo.store.repo import Listing, Repo
from respaldo.store.runs import ClientRuns, naming_ring

_NOBODY = bytes(RANDOM_ID_BYTES)
_UNKNOWN = "unknown/"
"""Before the name of a condemnation that no notice speaks of: what was listed when it was first seen."""


class ClientRepo(Repo):
    """Is an area open for its client. A context manager; one thread."""

    runs: ClientRuns

    def __init__(
        self,
        backend: Backend,
        header: Header,
        credential: Credential,
        *,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        state_dir: Path | None = None,
    ) -> None:
        self.runs = ClientRuns(credential, header, clock, random)
        self._credential = credential
        ring = naming_ring(credential, header)
        super().__init__(
            backend,
            header,
            Epoch(number=credential.epoch, rings=EpochRings([ring])),
            cache_dir=cache_dir / "clients",
            clock=clock,
            random=random,
            rings=self.runs,
            config=credential.config,
        )
        self.access_seeds = (access_seed(credential.box_seed),)
        self.source = OwnSource(
            backend=self.backend,
            vault=self.vault,
            index=self.index,
            id_keys=ring.id_keys,
            reload=self._reload,
            session=lambda: self.runs.session,
        )
        # A damaged cache is thrown away whole: what this client has noted lies beside it.
        self.own = OwnPacks(self.cache_dir.with_name(self.cache_dir.name + "-own"), random)
        self._forgot = not self.index.lengths()
        """Whether the index knows of no pack, and is to be told of those that this client has noted."""
        if state_dir is not None:
            place = self.recollection = Recollection(client_path(state_dir, header.repository), random)
            self.log = ClientLog(backend=self.backend, vault=self.vault, ring=ring, clock=clock, recollection=place)

    def list_packs(self, *, lenient: bool = False) -> Listing:  # noqa: ARG002 - nobody but a writer lists here
        """Lists condemnations, then notices, *then* packs; enters what notices call moved.

        A condemnation that no notice speaks of condemns all that is listed when it is first seen.
        """
        names = [name for name in self.backend.names("condemned") if parse_random_leaf(name.partition("/")[2])]
        moved = self.apply_notices()
        packs = cast("dict[PackName, int]", list_hashes(self.backend, "packs"))
        if self._forgot:
            self._enter(self.own, packs)
            self._forgot = False
        self._enter(moved, packs)
        condemned: set[PackName] = set()
        for name in names:
            record = self.read_condemnation(name)
            if record is None:
                record = Condemnation(collector=_NOBODY, time_ns=self.clock.now_ns(), packs=tuple(packs))
                self.index.put_records({_UNKNOWN + name: record.encode()})
            condemned.update(record.packs)
        return Listing(packs=packs, condemned=frozenset(condemned))

    def read_condemnation(self, name: str) -> Condemnation | None:
        """Returns what a notice said that a condemnation names, or what it may name; None where it is new."""
        raw = self.index.record(name) or self.index.record(_UNKNOWN + name)
        return None if raw is None else parse_condemnation(raw, name)

    def apply_notices(self) -> list[Listed]:
        """Reads the notices that are new and remembers what they say; returns the packs that they call moved."""
        moved: list[Listed] = []
        for name in self.backend.names("notices"):
            if parse_notice_name(name) is None or self.index.record(name) is not None:
                continue
            try:
                notice = read_notice(
                    self.backend,
                    name,
                    credential=self._credential,
                    client=self.runs.client,
                    header=self.header,
                    decompressor=self.vault.decompressor,
                )
            except ObjectMissing:
                continue
            except Corruption as error:
                self.damaged.append(error)
                continue
            self._remember(name, notice)
            moved += notice.moved
        return moved

    def _remember(self, name: str, notice: Notice) -> None:
        if self.log is not None:
            self.log.give_up(notice.retired)
        records = {
            f"condemned/{leaf.hex()}": Condemnation(collector=_NOBODY, time_ns=notice.time_ns, packs=packs).encode()
            for leaf, packs in notice.condemned
        }
        self.index.put_records({**records, name: b""})

    def put_segments(self, session: bytes, packs: Iterable[Finished]) -> None:
        """Notes durable packs for this client itself; puts no segment, which its owner would not believe."""
        with contextlib.suppress(OSError):  # a full disk here undoes nothing there
            self.own.add(session, packs)
            self.own.gather(self.index.lengths())

    def _enter(self, listed: Iterable[Listed], packs: dict[PackName, int]) -> None:
        """Enters packs that are there as they are listed."""

        def entering() -> Iterator[Entering]:
            known = set(self.index.lengths())
            for item in listed:
                if item.pack in known or packs.get(item.pack) != item.length_bytes:
                    continue
                try:
                    footer = parse_footer(item.footer, pack_object(item.pack))
                except Corruption as error:
                    self.damaged.append(error)
                    continue
                known.add(item.pack)
                yield item.pack, item.length_bytes, footer, item.footer

        self.index.add_packs(entering())
