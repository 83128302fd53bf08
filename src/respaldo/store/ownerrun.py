"""What the owner writes anew in the area of a client that has rights: sealed so that the rights open it, too.

A collector that copies chunks out of packs would otherwise take them out of the client's sight. Implements
docs/format.md, "Run" (author `owner`).
"""

from __future__ import annotations

import threading
from typing import Final

from respaldo.backend.base import Backend
from respaldo.codec.box import box_public
from respaldo.codec.keys import KeyRing, RunRing
from respaldo.codec.signing import Signer
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.core.seams import Clock, Random
from respaldo.format.enrolment import Enrolment
from respaldo.format.header import Header
from respaldo.format.runrecord import Author, run_name
from respaldo.store.runs import new_run

GRANTED_KINDS: Final = frozenset({"data", "tree", "list", "footer", "trailer", "segment"})
"""What a collector writes that a client may read. All else is under the area's own keys."""


class OwnersRing(KeyRing):
    """Seals what a client may read under a run of the owner's, which is put when the first of it is sealed.

    Everything else it seals as the area's own ring. Thread-safe.
    """

    def __init__(
        self, owner: KeyRing, enrolment: Enrolment, backend: Backend, header: Header, *, clock: Clock, random: Random
    ) -> None:
        super().__init__(owner.master, owner.header_hash, epoch=owner.epoch)
        self._enrolment = enrolment
        self._backend = backend
        self._header = header
        self._clock = clock
        self._random = random
        self._lock = threading.Lock()
        self._run: RunRing | None = None

    def _seal_key(self, kind: str) -> bytes:
        return self._begun().seal_key(kind) if kind in GRANTED_KINDS else super()._seal_key(kind)

    def _begun(self) -> RunRing:
        """Returns the ring of the run, which it puts first."""
        with self._lock:
            if self._run is None:
                ring, run = new_run(
                    author=Author.OWNER,
                    signer=Signer(self.admin_seed),
                    client=self._enrolment.client,
                    session=self._random(RANDOM_ID_BYTES),
                    owner_box=box_public(self.box_seed),
                    client_box=self._enrolment.box_public,
                    rights=self._enrolment.rights,
                    header=self._header,
                    time_ns=self._clock.now_ns(),
                    random=self._random,
                    epoch=self.epoch,
                )
                self._backend.put(run_name(run.session), [run.encode()])
                self._run = ring
            return self._run
