"""An area as a client reads it that was given a right: what its own runs wrote, as far as the right goes.

Never writes. Implements docs/format.md, "Run"
(grants).
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from respaldo.backend.base import Backend
from respaldo.codec.keys import LIST_KINDS, RUN_KINDS, KeyRing, ListRing, access_seed
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption, NotEntitled, Refused
from respaldo.core.ids import PackName
from respaldo.core.seams import Clock, Random
from respaldo.format.credential import Credential
from respaldo.format.enrolment import LIST, RESTORE
from respaldo.format.header import Header
from respaldo.format.runrecord import Author, run_name
from respaldo.store.epochs import Epoch
from respaldo.store.merged import list_hashes
from respaldo.store.recollection import Recollection, client_path
from respaldo.store.repo import Listing, Repo
from respaldo.store.rings import Known, RunRings
from respaldo.store.runs import granted_root, id_of, naming_ring, read_signed


def need_rights(credential: Credential) -> None:
    """Raises `NotEntitled` for a client that was given none."""
    if not credential.rights:
        raise NotEntitled(credential.name, LIST)


class GrantedRings(RunRings):
    """Is the rings of an area for its client, by the highest right that it has."""

    def __init__(self, credential: Credential, backend: Backend, header: Header) -> None:
        super().__init__((), backend, header)
        self._credentials = (credential, *credential.former)
        self._right = RESTORE if RESTORE in credential.rights else LIST
        self._kinds = RUN_KINDS if self._right == RESTORE else LIST_KINDS
        self._signers = [(Signer(item.sign_seed).public, item.owner_sign) for item in self._credentials]
        self._client = id_of(credential)
        self._lacks = len({item.epoch for item in self._credentials}) <= credential.epoch
        """Whether there were credentials before of which this client has not kept all."""
        self.earlier: set[bytes] = set()
        """Runs that nothing here has signed, where they may be of a credential that was not kept."""

    @property
    def sealing(self) -> KeyRing:
        """None: raises `Refused`."""
        raise Refused(
            "a client that reads its area cannot write meanwhile: what is there cannot be put away first",
            hint="restore into a directory that is not there yet, or use --no-safety",
        )

    def _ring_from(self, known: Known) -> KeyRing:
        if self._right == RESTORE:
            return super()._ring_from(known)
        return ListRing(known.root, self._header.hash, epoch=known.epoch)

    def _read(self, session: bytes) -> Known:
        try:
            run, place = read_signed(self._backend, session, self._client, self._header.hash, self._signers)
        except Corruption:
            if self._lacks:
                self.earlier.add(session)
            raise
        credential = self._credentials[place]
        root = granted_root(run, self._right, credential.box_seed, self._header)
        if root is None:
            raise Corruption(run_name(session), f"it does not give the right to {self._right}")
        return Known(run.time_ns, root, run.author is Author.OWNER, credential.epoch)


class GrantedRepo(Repo):
    """Is an area open for a client that may read. A context manager; one thread."""

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
        self.granted = GrantedRings(credential, backend, header)
        super().__init__(
            backend,
            header,
            Epoch.only(naming_ring(credential, header)),
            cache_dir=cache_dir / "granted",
            clock=clock,
            random=random,
            rings=self.granted,
            config=credential.config,
        )
        self.access_seeds = tuple(access_seed(item.box_seed) for item in (credential, *credential.former))
        if state_dir is not None:
            self.recollection = Recollection(client_path(state_dir, header.repository), random)

    def list_packs(self, *, lenient: bool = False) -> Listing:  # noqa: ARG002 - a reader needs no condemnations
        """Lists packs; condemnations, which are the owner's, mean nothing to who only reads."""
        self.granted.look_again()
        packs = cast("dict[PackName, int]", list_hashes(self.backend, "packs"))
        return Listing(packs=packs, condemned=frozenset())
