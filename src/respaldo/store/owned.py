"""An area as its owner has it open: the repository of a client that cannot read, which the owner reads and collects.

What is known of the client is in sealed records of the owner's repository, never in the area. Implements
docs/format.md, "Clients that cannot read" (the owner's half).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

from respaldo.backend.base import Backend
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES, Sealer
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption, KeyRotated, ObjectMissing
from respaldo.core.ids import RANDOM_ID_BYTES, PackName, pack_object, parse_random_leaf
from respaldo.core.seams import Clock, Progress, Random
from respaldo.format.config import Config, parse_config
from respaldo.format.epoch import FOLDER as EPOCHS
from respaldo.format.epoch import parse_ended_name
from respaldo.format.header import HEADER, Header
from respaldo.format.notice import Notice, notice_name, parse_notice_name
from respaldo.format.pack import TRAILER_BYTES, parse_footer
from respaldo.format.runrecord import parse_run_name
from respaldo.format.segment import Listed
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.areas import Client
from respaldo.store.counted import Counted
from respaldo.store.epochs import Epoch
from respaldo.store.header import or_healed, read_header
from respaldo.store.notices import seal_notice
from respaldo.store.ownerrun import OwnersRing
from respaldo.store.packs import Finished
from respaldo.store.repo import Listing, Repo
from respaldo.store.rings import AreaRings
from respaldo.store.telling import Telling

MOVED_BYTES_MAX: Final = 16 << 20
"""So many bytes of footers a notice repeats: it is built in memory, and read in one piece by its client."""
_COMPARED: Final = "compared"
NOTICES_MAX: Final = 16
"""So many notices whose condemnations are gone are left; more become one."""


class OwnedArea(Repo):
    """Is the area of a client, open for its owner. A context manager; one thread."""

    area: AreaRings

    @classmethod
    def open_area(
        cls,
        backend: Backend,
        client: Client,
        *,
        cache_dir: Path,
        clock: Clock,
        random: Random,
        state_dir: Path | None = None,
    ) -> Self:
        """Opens an area with the key that the client's enrolment holds; raises `NotARepository`, `Corruption`."""
        return or_healed(partial(cls._open_area, client, cache_dir, clock, random, state_dir), backend)

    @classmethod
    def _open_area(
        cls, client: Client, cache_dir: Path, clock: Clock, random: Random, state_dir: Path | None, backend: Backend
    ) -> Self:
        header, enrolment = read_header(backend), client.enrolment
        if header.hash != enrolment.header_hash:
            raise Corruption(HEADER, "it is not the header of the area of this client")
        epoch = client.epoch()
        rings = AreaRings(tuple(epoch.rings.opening("", "")), client, backend, header)
        if enrolment.rights:
            now = client.keys(epoch.number)
            rings.sealing = OwnersRing(epoch.ring, now, backend, header, clock=clock, random=random)
        counted = Counted(backend, partial(_removed, rings, header, random))
        opened = cls(
            counted,
            header,
            epoch,
            cache_dir=cache_dir,
            clock=clock,
            random=random,
            state_dir=state_dir,
            rings=rings,
        )
        opened.area = rings
        counted.known = opened.index.lengths
        opened.telling = ClientTelling(opened)
        rings.recall(opened.vault, opened.index)
        return opened

    def _read_config(self) -> Config:
        """Reads the newest configuration that is the owner's: anybody who may write here can put one that is not."""
        names = sorted((name for name, _ in self.backend.list("config")), reverse=True)
        for name in names:
            with contextlib.suppress(Corruption, ObjectMissing):
                data = self.backend.get_whole(name, RECORD_BYTES_MAX)
                return parse_config(self.vault.open_record("config", name, data), name)
        return super()._read_config()

    def take_over(self, client: Client) -> None:
        """Reads on after a renewal, under the keys of the new epoch and of all before.

        Raises `KeyRotated` where those do not come from the present ones.
        """
        epoch = client.epoch()
        rings = {ring.epoch: ring for ring in epoch.rings.opening("", "")}
        if rings[self.epoch.number].check != self.ring.check:
            raise KeyRotated(epoch.number)
        self.area.take_over(tuple(rings.values()), client)
        self.epoch, self.ring = epoch, epoch.ring.naming_as(self.config.content_keys)
        if self.log is not None:
            self.log.take_over(self.ring, epoch.former)

    def close(self) -> None:
        """Keeps what was learned of the client's runs, and closes index and backend."""
        self.area.keep(self.vault, self.index)
        super().close()

    def require_newest(self, epoch: Epoch | None = None) -> None:
        """Raises `KeyRotated` where the client was renewed since its area was opened."""
        newest = self.newest_epoch()
        if newest > (epoch or self.epoch).number:
            raise KeyRotated(newest)

    def announce(self, verb: str, subjects: Sequence[bytes] = (), note: str = "") -> None:
        """Puts an entry into the log that says how far the client's goes now: so the time of what is in it is known.

        Raises `KeyRotated` where the client was renewed meanwhile: an owner in an older epoch speaks for nobody.
        """
        self.require_newest()
        if self.log is not None:
            self.log.follow()
        super().announce(verb, subjects, note)

    def newest_epoch(self) -> int:
        """Returns the epoch that follows the last of which a sign says that it has ended; storage could lie there."""
        ended = (parse_ended_name(name) for name in self.backend.names(EPOCHS))
        return max((number + 1 for number in ended if number is not None), default=0)

    def synchronise(self, progress: Progress | None = None, *, lenient: bool = False) -> Listing:
        """Brings the index up to date; what does not open may be of a run that has begun since the last time."""
        self.area.look_again()
        listing = super().synchronise(progress, lenient=lenient)
        self._find_lies()
        return listing

    def _find_lies(self) -> None:
        """Remembers which copies of chunks are none, where the lengths that packs give them differ.

        Whoever lays out a file that is to be restored goes by lengths. A copy of the right length that is none is found
        out when it is read, and passed over then.
        """
        packs = hashlib.sha256(b"".join(sorted(self.index.lengths()))).digest()
        if self.index.record(_COMPARED) == packs:
            return
        lies: defaultdict[PackName, int] = defaultdict(int)
        for copies in self.index.duplicates():
            if len({self.source.locate_row(*copy).length for copy in copies}) > 1:
                for number, row in copies:
                    pack = self.index.pack(number)
                    if pack is not None and not self.source.holds(number, row):
                        lies[pack.name] |= 1 << row
        self.spoilt.note(lies)
        self.index.put_records({_COMPARED: packs})


def _removed(rings: AreaRings, header: Header, random: Random) -> Sealer | None:
    """Returns what tells what runs wrote that came after their client was removed; None where there are none."""
    found = rings.removed()
    return None if found is None else Sealer(found, header.repository, random, header.suite)


class ClientTelling(Telling):
    """Tells the client of an area, in notices. What that client says of its packs is believed when it was read."""

    trusted = False

    def __init__(self, repo: OwnedArea) -> None:
        self._repo = repo

    def of_condemnation(self, leaf: bytes, packs: Sequence[PackName], moved: Sequence[Finished]) -> None:
        """Puts the notice of a condemnation; what of the moves does not fit into it goes into others, before it."""
        first, *more = list(_parts(map(_listed, moved))) or [()]
        for part in more:
            self._put(self._repo.random(RANDOM_ID_BYTES), moved=part)
        self._put(leaf, condemned=((leaf, tuple(packs)),), moved=first)

    def of_moves(self, moved: Iterable[Finished]) -> None:
        """Puts notices of moves alone."""
        for part in _parts(map(_listed, moved)):
            self._put(self._repo.random(RANDOM_ID_BYTES), moved=part)

    def merge(self) -> int:
        """Puts one notice, or a few, for many whose condemnations are gone, and deletes those; returns how many.

        It says where everything lies that a collector has moved and that is there, so that it is no longer than that,
        however many there were; of packs that are gone the listing tells. Should a condemnation of which the notice was
        deleted come after all, from a collector that is slow, it costs the client uploads, and no more.
        """
        repo = self._repo
        found = [leaf for leaf in map(parse_notice_name, repo.backend.names("notices")) if leaf is not None]
        standing = {parse_random_leaf(name.partition("/")[2]) for name in repo.backend.names("condemned")}
        over = [leaf for leaf in found if leaf not in standing]
        if len(over) <= NOTICES_MAX:
            return 0
        for part in _parts(self._moved()):
            self._put(repo.random(RANDOM_ID_BYTES), moved=part)
        return repo.backend.discard(map(notice_name, over))

    def anew(self) -> None:
        """Puts notices for the client's new credential, which opens none that is there, and deletes those.

        Whoever is cut off in between leaves the client without some, which costs it uploads, and no more.
        """
        repo = self._repo
        standing = set(repo.backend.names("condemned"))
        before = [leaf for leaf in map(parse_notice_name, repo.backend.names("notices")) if leaf is not None]
        for part in _parts(self._moved()) if before or standing else ():
            self._put(repo.random(RANDOM_ID_BYTES), moved=part)
        repo.backend.discard(map(notice_name, before))
        for name in sorted(standing):
            leaf = parse_random_leaf(name.partition("/")[2])
            record = repo.read_condemnation(name) if leaf else None
            if leaf and record is not None:
                self._put(leaf, condemned=((leaf, record.packs),))

    def _moved(self) -> Iterator[Listed]:
        """Yields the packs that are there and that no run of the client has written, which their ends show."""
        repo = self._repo
        listing = repo.list_packs()
        runs = {parse_run_name(name) for name in repo.backend.names("runs")}
        for pack in repo.index.packs():
            if listing.packs.get(pack.name) != pack.length_bytes or pack.name in listing.condemned:
                continue
            encoded = repo.index.footer(pack.number)
            what = pack_object(pack.name)
            if not encoded or parse_footer(encoded, what).session in runs:
                continue
            head = repo.backend.get(what, pack.length_bytes - TRAILER_BYTES, HEAD_BYTES)
            ring = repo.vault.sealer.ring_of("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, head)
            if ring is not None and repo.area.is_owners(ring):
                yield Listed(pack=pack.name, length_bytes=pack.length_bytes, footer=encoded)

    def _put(
        self,
        leaf: bytes,
        *,
        condemned: tuple[tuple[bytes, tuple[PackName, ...]], ...] = (),
        moved: tuple[Listed, ...] = (),
    ) -> None:
        repo = self._repo
        enrolment = repo.area.client.keys(repo.epoch.number)
        notice = Notice(client=enrolment.client, time_ns=repo.clock.now_ns(), condemned=condemned, moved=moved)
        name = notice_name(leaf)
        data = seal_notice(
            notice,
            name,
            owner=Signer(repo.ring.admin_seed),
            client_box=enrolment.box_public,
            header=repo.header,
            compressor=repo.vault.compressor,
            random=repo.random,
        )
        repo.backend.put(name, [data])


def _listed(item: Finished) -> Listed:
    return Listed(pack=item.name, length_bytes=item.length_bytes, footer=item.encoded)


def _parts(moved: Iterable[Listed]) -> Iterator[tuple[Listed, ...]]:
    """Deals packs out so that no part has much more than so many bytes of footers."""
    part: list[Listed] = []
    length = 0
    for item in moved:
        part.append(item)
        length += len(item.footer)
        if length >= MOVED_BYTES_MAX:
            yield tuple(part)
            part, length = [], 0
    if part:
        yield tuple(part)
