"""The rings of an area as its owner opens it: the area's own, and one for each run of its client that counts.

Invariant: a run's ring opens nothing but what a session may write (`RUN_KINDS`); what is named by a snapshot opens
under the run of that name and the area's own ring alone. A run counts if its record is signed by the client, or by the
owner, and is among those that a removal of the client lists, where there is one: the keys of no other are ever taken.
Runs are read when something does not open without them. Implements docs/format.md, "Run".
"""

from __future__ import annotations

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from respaldo.backend.base import Backend
from respaldo.codec.keys import KEY_BYTES, RUN_KINDS, KeyRing, RunRing
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES, parse_random_leaf
from respaldo.format import canonical
from respaldo.format.header import Header
from respaldo.format.runrecord import Author, parse_run_name, run_name
from respaldo.store.areas import KIND, Client
from respaldo.store.index import Index
from respaldo.store.runs import owners_ring, read_signed
from respaldo.store.several import read_several
from respaldo.store.vault import Vault

BY_SNAPSHOT: Final = frozenset({"manifest", "outcome", "marker"})
"""Kinds of what is named by its snapshot, which has the id of its session."""
_KEPT: Final = "runs"
_LOOKS: Final = 64
"""So often runs are listed for things that do not open, between two times that packs are listed."""


class Known(NamedTuple):
    """Is a run that counts: when it began by its author's clock, its root key, whether it is the owner's, its epoch."""

    time_ns: int
    root: bytes
    by_owner: bool
    epoch: int = 0


class RunRings(ABC):
    """Says which rings open what lies in an area, for whoever has a way to the keys of its runs. Thread-safe."""

    def __init__(self, own: Sequence[KeyRing], backend: Backend, header: Header) -> None:
        self._own = own
        """What opens without any run."""
        self.refused: dict[bytes, str] = {}
        """Runs that do not count, and why not, of those that were looked at."""
        self._grown = False
        """Whether runs were read since they were last kept."""
        self._backend = backend
        self._header = header
        self._known: dict[bytes, Known] = {}
        """By session, the newest last."""
        self._rings: dict[bytes, KeyRing] = {}
        self._last: bytes | None = None
        """The run that something was last opened under."""
        self._lock = threading.RLock()
        self._looks = _LOOKS

    _kinds = RUN_KINDS
    """What the keys of runs are taken for."""

    @abstractmethod
    def _read(self, session: bytes) -> Known:
        """Reads one run; raises `Corruption` where it does not count, `ObjectMissing`."""

    def _ring_from(self, known: Known) -> KeyRing:
        return RunRing(known.root, self._header.hash, by_owner=known.by_owner, epoch=known.epoch)

    def opening(self, kind: str, name: str) -> Iterator[KeyRing]:
        """Yields the rings that an object may have been sealed under, the likeliest first.

        The one at which the caller stops is tried first the next time.
        """
        yield from self._own
        if kind not in self._kinds:
            return
        if kind in BY_SNAPSHOT:
            ring = self._named(name)
            if ring is not None:
                yield ring
            return
        yield from self._each()

    def is_owners(self, ring: KeyRing) -> bool:
        """Whether what opens under a ring was written by the area's owner."""
        with self._lock:
            session = self.run_of(ring)
            return ring in self._own or (session is not None and self._known[session].by_owner)

    def run_of(self, ring: KeyRing | None) -> bytes | None:
        """Returns the session whose ring one is; None of the area's own."""
        with self._lock:
            return next((session for session, item in self._rings.items() if item is ring), None)

    def look_again(self) -> None:
        """Says that storage is looked at anew: what does not open may be of a run that has begun since."""
        with self._lock:
            self._looks = _LOOKS

    def known(self) -> dict[bytes, int]:
        """Lists all runs that count, and when they began."""
        with self._lock:
            self._take(self._listed())
            return {session: item.time_ns for session, item in self._known.items()}

    # --- reading -----------------------------------------------------------------------------------------------------

    def _named(self, name: str) -> KeyRing | None:
        session = parse_random_leaf(name.partition("/")[2].partition(".")[0])
        if session is None:
            return None
        with self._lock:
            if session not in self._known and session not in self.refused:
                self._take([session])
            return self._ring(session)

    def _ring(self, session: bytes) -> KeyRing | None:
        """Returns the ring of a run that counts."""
        ring = self._rings.get(session)
        known = self._known.get(session)
        if ring is None and known is not None:
            ring = self._rings[session] = self._ring_from(known)
        return ring

    def _each(self) -> Iterator[KeyRing]:
        """Yields all rings, from the one that fitted last to those that are further and further from it.

        What is read one after the other was mostly written so. Then those that have come meanwhile, the newest first.
        """
        tried: set[bytes] = set()
        last = self._last
        if last is not None:
            yield from self._one(last, tried)
        while True:
            with self._lock:
                left = self._nearest(last, tried)
            for session in left:
                yield from self._one(session, tried)
            with self._lock:
                if self._looks <= 0:
                    return
                self._looks -= 1
                if not self._take(self._listed()):
                    return

    def _nearest(self, last: bytes | None, tried: Collection[bytes]) -> list[bytes]:
        """Returns the runs that were not tried, those that began next to one first, or the newest first."""
        sessions = list(self._known)
        if last not in self._known or len(tried) > 1:
            return [session for session in reversed(sessions) if session not in tried]
        at = sessions.index(last)
        newer, older = sessions[at + 1 :], sessions[:at][::-1]
        both = min(len(newer), len(older))
        woven = [session for pair in zip(newer, older, strict=False) for session in pair]
        return woven + newer[both:] + older[both:]

    def _one(self, session: bytes, tried: set[bytes]) -> Iterator[KeyRing]:
        tried.add(session)
        with self._lock:
            ring = self._ring(session)
        if ring is None:
            return
        try:
            yield ring
        except GeneratorExit:
            self._last = session
            raise

    def _listed(self) -> list[bytes]:
        """Lists the runs that were not looked at."""
        found = (parse_run_name(name) for name in self._backend.names("runs"))
        return [item for item in found if item is not None and item not in self._known and item not in self.refused]

    def _take(self, sessions: list[bytes]) -> bool:
        """Reads the records of runs, and takes the keys of those that count; returns whether there were any."""
        taken: list[tuple[Known, bytes]] = []
        for session, got in read_several(self._read, sessions):
            if isinstance(got, Corruption):
                self.refused[session] = got.reason
            elif isinstance(got, Known):
                taken.append((got, session))
        for known, session in sorted(taken):
            self._known[session] = known
        self._grown = self._grown or bool(taken)
        return bool(taken)


class AreaRings(RunRings):
    """Is the rings of an area for its owner: one for each epoch of the area, and those of runs."""

    def __init__(self, owner: Sequence[KeyRing], client: Client, backend: Backend, header: Header) -> None:
        super().__init__(owner, backend, header)
        self.sealing: KeyRing = owner[0]
        self._removed: dict[bytes, RunRing] = {}
        """Runs of the client that do not count because it had been removed, or had another credential."""
        self.take_over(owner, client)

    def take_over(self, owner: Sequence[KeyRing], client: Client) -> None:
        """Goes on with the rings of more epochs, and with what is known of the client now."""
        with self._lock:
            self.client = client
            self._signers = [(client.keys(ring.epoch).sign_public, Signer(ring.admin_seed).public) for ring in owner]
            self._own = owner
            self.refused.clear()
            self._looks = _LOOKS

    @property
    def late(self) -> int:
        """How many such runs were met."""
        return len(self._removed)

    def removed(self) -> RemovedRings | None:
        """Returns what opens what runs wrote that do not count, whoever signed them; None where there are none."""
        if self.client.removal is None and not self.client.renewals:
            return None
        self.known()
        return RemovedRings(dict(self._removed)) if self._removed else None

    def _read(self, session: bytes) -> Known:
        """Reads one run; raises `Corruption` where it does not count, `ObjectMissing`."""
        client = self.client.enrolment.client
        run, place = read_signed(self._backend, session, client, self._header.hash, self._signers)
        by_owner, own = run.author is Author.OWNER, self._own[place]
        ring = owners_ring(run, own.box_seed, self._header, epoch=own.epoch)
        why = "" if by_owner else self._why_not(session, own.epoch)
        if why:
            self._removed[session] = ring
            raise Corruption(run_name(session), why)
        return Known(run.time_ns, ring.master, by_owner, own.epoch)

    def _why_not(self, session: bytes, epoch: int) -> str:
        """Returns why a run that the client has signed in an epoch does not count, nothing where it does."""
        removal, renewals = self.client.removal, self.client.renewals
        if removal is not None and session not in removal.runs:
            return "its client had been removed when it came"
        if epoch < len(renewals) and session not in renewals[epoch].runs:
            return "its client had another credential when it came"
        return ""

    # --- what was read is kept ---------------------------------------------------------------------------------------

    def keep(self, vault: Vault, index: Index) -> None:
        """Keeps the runs that are known in the index, sealed: reading thousands takes time. One thread."""
        if not self._grown:
            return
        with self._lock:
            self._grown = False
            rows = [[session, *item[:2], int(item.by_owner), item.epoch] for session, item in self._known.items()]
        index.put_records({_KEPT: vault.seal_record(KIND, _KEPT, canonical.pack([2, rows]))})

    def recall(self, vault: Vault, index: Index) -> None:
        """Takes what was kept, as far as it counts still. One thread."""
        kept = index.record(_KEPT)
        rows: Sequence[object] = []
        with contextlib.suppress(Corruption):
            match canonical.unpack(vault.open_record(KIND, _KEPT, kept), _KEPT) if kept else None:
                case [2, list(found)]:
                    rows = found
        for row in rows:
            match row:
                case [bytes(session), int(time_ns), bytes(root), int(by_owner), int(epoch)] if (
                    len(session) == RANDOM_ID_BYTES and len(root) == KEY_BYTES
                ):
                    if by_owner or not self._why_not(session, epoch):
                        self._known[session] = Known(time_ns, root, bool(by_owner), epoch)


class RemovedRings:
    """Opens what runs wrote that do not count, so that it can be told from what is damaged. Seals nothing."""

    def __init__(self, rings: Mapping[bytes, RunRing]) -> None:
        self._rings = rings

    @property
    def sealing(self) -> KeyRing:
        """None: ValueError."""
        msg = "nothing is sealed under a run that does not count"
        raise ValueError(msg)

    def opening(self, kind: str, name: str) -> Iterable[KeyRing]:
        """Returns the rings that an object may have been sealed under."""
        if kind in BY_SNAPSHOT:
            session = parse_random_leaf(name.partition("/")[2].partition(".")[0])
            ring = None if session is None else self._rings.get(session)
            return () if ring is None else (ring,)
        return self._rings.values()
