"""The repository, opened: keys, configuration, index and the lists of what is there.

Invariant: the hash of the header is pinned by the caller. Implements docs/format.md, "Repository", "Key slots" and the
readers' half of "Protocol".
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from respaldo.backend.base import Backend
from respaldo.codec.box import box_public
from respaldo.codec.compress import LEVEL
from respaldo.codec.keys import Rings, access_seed
from respaldo.codec.slots import Opened, Secret
from respaldo.core.errors import (
    CacheDamaged,
    ChunkMissing,
    Corruption,
    ObjectMissing,
    RespaldoError,
    StorageError,
    StorageFailed,
)
from respaldo.core.ids import PackName, SegmentName, pack_object, parse_random_leaf
from respaldo.core.seams import Clock, Progress, Random
from respaldo.format.config import Config
from respaldo.format.enrolment import Removal
from respaldo.format.header import HEADER, Header
from respaldo.format.pack import Footer
from respaldo.format.segment import Segment
from respaldo.format.snapshot import RECORD_BYTES_MAX, Condemnation, parse_condemnation
from respaldo.store.ballast import with_ballast
from respaldo.store.configuration import change_config, read_config
from respaldo.store.epochs import Epoch, newest_listed, open_newest, packs_under, require_newest
from respaldo.store.header import or_healed, read_header
from respaldo.store.index import Index
from respaldo.store.local import DAMAGED
from respaldo.store.logbook import Logbook
from respaldo.store.merged import list_hashes
from respaldo.store.packrow import Entering, Indexed
from respaldo.store.packs import Finished, read_footer
from respaldo.store.recollection import Recollection, recollection_path
from respaldo.store.segments import Segments
from respaldo.store.several import read_several
from respaldo.store.source import ChunkSource
from respaldo.store.spoilt import Spoilt
from respaldo.store.telling import Telling
from respaldo.store.vault import make_vault

if TYPE_CHECKING:
    from respaldo.store.runs import ClientRuns

_LOOKS = 3
_ENTERED_TOGETHER = 256
"""So many footers at most are read again where a run is cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Is what storage said it holds, condemnations listed before packs: sizes of packs by name, and the condemned."""

    packs: dict[PackName, int]
    condemned: frozenset[PackName]


class Repo:
    """Is an open repository. A context manager; one thread, except where a part says otherwise.

    Left with an error of a damaged local cache, it drops the cache and raises `CacheDamaged`. Left with damage where
    the key was rotated since it was opened, it raises `KeyRotated`: what others have sealed anew looks like that.
    """

    runs: ClientRuns | None = None  # of a client that cannot read what earlier sessions wrote
    telling = Telling()
    keep_up: Callable[[], object] = staticmethod(lambda: None)  # see `respaldo.store.succession`

    def __init__(
        self,
        backend: Backend,
        header: Header,
        epoch: Epoch,
        *,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        state_dir: Path | None = None,
        slot: str = "",
        rings: Rings | None = None,
        config: Config | None = None,
    ) -> None:
        self.slot = slot
        """The key slot that it was opened with."""
        self.backend = backend
        self.header = header
        self.clock = clock
        self.random = random
        self.cache_dir = cache_dir / header.repository.hex()
        self.epoch = epoch
        """The epoch that counted when it was opened; what is written is sealed under it."""
        self._first = epoch
        """The same, also where who only reads has gone on in another one."""
        rings = rings or epoch.rings
        self.vault = make_vault(rings, header, LEVEL, random)
        self.config = config or self._read_config()
        self.ring = ring = epoch.ring.naming_as(self.config.content_keys)
        if self.config.parity:
            from respaldo.store.mending import with_parity  # noqa: PLC0415 - start-up time

            self.backend = backend = with_parity(backend, self.config.parity)
        self.vault = make_vault(rings, header, self.config.level, random)
        self.index = Index(self.cache_dir / "index")
        self.source = ChunkSource(
            backend=backend, vault=self.vault, index=self.index, id_keys=ring.id_keys, reload=self._reload
        )
        self.damaged: list[RespaldoError] = []
        """What could not be read while the index was brought up to date."""
        self.segments = Segments(self)
        self.spoilt = Spoilt(self.index)
        self._epochs: dict[PackName, int] = {}
        self.access_seeds: tuple[bytes, ...] = (access_seed(ring.content_keys + header.hash),)
        """What opens this client's access log, the one that it is sealed to first."""
        self.recollection: Recollection | None = None
        """None where there is no place to remember anything in, as is `log`."""
        self.log: Logbook | None = None
        if state_dir is not None:
            place = self.recollection = Recollection(recollection_path(state_dir, header.repository), random)
            place.remember_access_key(self.access_seeds[0], box_public)
            self.log = Logbook(
                backend=self.backend, vault=self.vault, ring=ring, clock=clock, recollection=place, former=epoch.former
            )

    @property
    def removals(self) -> Mapping[bytes, Removal]:
        """Removals of clients with areas that the log has spoken of; none where it is not followed."""
        return {} if self.log is None else self.log.removals()

    def announce(self, verb: str, subjects: Sequence[bytes] = (), note: str = "") -> None:
        """Puts an entry into the log, before what it says is done; on a full disk in the place of the ballast.

        Raises `KeyRotated` where the key was rotated meanwhile: no old key speaks for all any more.
        """
        self.require_newest()
        if (log := self.log) is not None:
            with_ballast(self.backend, lambda: log.append(verb, subjects, note))

    def require_newest(self, epoch: Epoch | None = None) -> None:
        """Raises `KeyRotated` where an epoch, that of this repository unless told, is not the newest any more."""
        require_newest(self.backend, epoch or self.epoch)

    @classmethod
    def open(
        cls,
        backend: Backend,
        secret: Secret | Opened,
        *,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        pinned: bytes = b"",
        header: Header | None = None,
        state_dir: Path | None = None,
    ) -> Self:
        """Opens a repository; raises `WrongSecret`, `NotARepository`, `Corruption`.

        What was opened before (`Opened`) opens it again as long as the slot is there. ``pinned`` is the header's hash
        as this client knows it; another header is `Corruption`. ``header``: where it was read already. ``state_dir``:
        where this client remembers the log, without which it writes none.
        """
        return or_healed(partial(cls._open, secret, cache_dir, clock, random, pinned, header, state_dir), backend)

    @classmethod
    def _open(
        cls,
        secret: Secret | Opened,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        pinned: bytes,
        header: Header | None,
        state_dir: Path | None,
        backend: Backend,
    ) -> Self:
        header = header or read_header(backend)
        if pinned and pinned != header.hash:
            raise Corruption(HEADER, "it is not the header that this client has seen at this place")
        for look in range(_LOOKS):
            epoch, found = open_newest(backend, header, secret, random)
            try:
                return cls(
                    backend,
                    header,
                    epoch,
                    cache_dir=cache_dir,
                    clock=clock,
                    random=random,
                    state_dir=state_dir,
                    slot=found.slot,
                )
            except Corruption:  # or the configuration was sealed under a key that has come since
                if look + 1 == _LOOKS or newest_listed(backend) <= epoch.number:
                    raise
        raise AssertionError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if isinstance(value, Corruption | ChunkMissing):
                with contextlib.suppress(StorageError):  # then that is what happened
                    self.require_newest(self._first)
        finally:
            self.close()
        if isinstance(value, DAMAGED):
            shutil.rmtree(self.cache_dir, ignore_errors=True)
            raise CacheDamaged(
                str(self.cache_dir),
                f"local cache: {value}",
                hint="the damaged cache was thrown away; run the command again, and it is made anew",
            ) from value

    def close(self) -> None:
        """Closes index and backend."""
        self.index.close()
        self.backend.close()

    def _read_config(self) -> Config:
        return read_config(self.backend, self.vault, lenient=self.epoch.number > 0)

    def configure(self, change: Callable[[Config], Config]) -> None:
        """Puts a new configuration, made of the one that counts; for the parts of this client, open it anew."""
        self.config = change_config(self.backend, self.vault, change, self._read_config)

    # --- what is there ---------------------------------------------------------------------------------------------

    def list_packs(self, *, lenient: bool = False) -> Listing:
        """Lists condemnations, *then* packs: a pack that is condemned after the first listing is still in the second.

        Packs of an epoch that is retiring count as condemned: its key is about to be destroyed.
        A condemnation that does not open is `Corruption`, because whoever writes must know what is condemned.
        ``lenient``, for those who only read: it is added to `damaged`, and every pack counts as condemned.
        """
        condemned: set[PackName] = set()
        unknown = False
        retiring = self.epoch.retiring(self.backend)
        for name, _ in self.backend.list("condemned"):
            if parse_random_leaf(name.partition("/")[2]) is None:
                continue
            try:
                record = self.read_condemnation(name)
            except Corruption as error:
                if not lenient:
                    raise
                self.damaged.append(error)
                unknown = True
                continue
            if record is not None:
                condemned.update(record.packs)
        packs = cast("dict[PackName, int]", list_hashes(self.backend, "packs"))
        if retiring:
            condemned |= packs_under(retiring, self.backend, self.vault, packs, self._epochs)
        return Listing(packs=packs, condemned=frozenset(packs if unknown else condemned))

    def read_condemnation(self, name: str) -> Condemnation | None:
        """Returns a condemnation, from the cache where it was read before; None where it has gone meanwhile."""
        raw = self.index.record(name)
        if raw is None:
            try:
                raw = self.vault.open_record("condemnation", name, self.backend.get_whole(name, RECORD_BYTES_MAX))
            except ObjectMissing:
                return None
            self.index.put_records({name: raw})
        return parse_condemnation(raw, name)

    def synchronise(self, progress: Progress | None = None, *, lenient: bool = False) -> Listing:
        """Brings the index up to date with what is there; `damaged` says what could not be read (see `list_packs`)."""
        if lenient:  # that is, for those who only read
            self.keep_up()
        self.damaged.clear()
        entered = dict(self.index.lengths())  # before the listing: what another process enters meanwhile is not gone
        listing = self.list_packs(lenient=lenient)
        if entered != listing.packs:
            gone = {name for name, length in entered.items() if listing.packs.get(name) != length}
            if gone:
                self.index.forget_packs([pack for pack in self.index.packs() if pack.name in gone])
                self.source.forget_positions()
        if self.runs is None:
            self.segments.apply(listing.packs, progress)
            self._read_footers(listing, sorted(listing.packs.keys() - self.index.lengths().keys()))
        self.index.use(listing.packs, listing.condemned)
        self.spoilt.apply()
        return listing

    def _reload(self) -> None:
        before = dict(self.index.lengths())
        self.synchronise(lenient=True)
        if self.runs is None and before == self.index.lengths() and self.segments.doubt():  # nothing has moved
            self.synchronise(lenient=True)

    def _read_footers(self, listing: Listing, names: list[PackName]) -> None:
        """Enters packs that no segment lists, from their own footers; many together, since each time costs as much."""
        read = partial(self._read_footer, listing)

        def entering(part: list[PackName]) -> Iterator[Entering]:
            for name, got in read_several(read, part):
                if isinstance(got, Corruption):
                    self.damaged.append(got)
                elif not isinstance(got, RespaldoError):
                    yield name, listing.packs[name], *got

        for first in range(0, len(names), _ENTERED_TOGETHER):
            self.index.add_packs(entering(names[first : first + _ENTERED_TOGETHER]))

    def _read_footer(self, listing: Listing, name: PackName) -> tuple[Footer, bytes]:
        try:
            return read_footer(self.backend, self.vault, name, listing.packs[name])
        except (Corruption, StorageFailed):
            what = pack_object(name)
            if not self.backend.mend(what):
                raise
            listing.packs[name] = self.backend.exists(what) or listing.packs[name]
            return read_footer(self.backend, self.vault, name, listing.packs[name])

    # --- segments --------------------------------------------------------------------------------------------------

    def read_segment(self, name: SegmentName) -> Segment:
        """Reads a segment; raises `Corruption`."""
        return self.segments.read(name)

    def put_segments(self, session: bytes, packs: Iterable[Finished]) -> None:
        """Lists durable packs in segments of bounded size and makes those durable."""
        self.segments.put(session, packs)

    def superseded_segments(self) -> frozenset[SegmentName]:
        """Returns the segments that a collector may delete: superseded by a sound one, or without packs."""
        return self.segments.superseded()

    def unlisted(self) -> list[Indexed]:
        """Returns the packs that stand in no segment that is there: what an interrupted session left."""
        listed = self.segments.packs_listed()
        return [pack for pack in self.index.packs() if pack.name not in listed]
