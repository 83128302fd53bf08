"""Runs of clients: the root key that a session draws, its record, and who may open what it wrote.

Invariant: a run's keys are taken only from a record whose signature is right. The client's half: a ring for each
session, gone when that ends. Never writes a key anywhere but into a box. Implements docs/format.md, "Run".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from respaldo.backend.base import Backend
from respaldo.codec.box import box_public, open_box, seal_box
from respaldo.codec.keys import KEY_BYTES, LIST_KEYS_BYTES, RUN_KINDS, KeyRing, RunRing
from respaldo.codec.signing import Signer, client_of, is_signed
from respaldo.core.errors import ClientRemoved, Corruption, CredentialRenewed, ObjectMissing
from respaldo.core.seams import Clock, Random
from respaldo.format.credential import Credential
from respaldo.format.enrolment import LIST, RESTORE, SIGN_BYTES_MAX, SIGNATURE_BYTES, parse_removal_sign
from respaldo.format.epoch import FOLDER as EPOCHS
from respaldo.format.epoch import ended_name, removed_name
from respaldo.format.header import Header
from respaldo.format.runrecord import ROOT, RUN_BYTES_MAX, Author, Run, parse_run, run_name

PURPOSES: Final = {Author.CLIENT: b"run", Author.OWNER: b"run owner"}
"""What a run's signature is made for."""
REMOVAL_PURPOSE: Final = b"removal"


def is_removed(backend: Backend, client: bytes, epoch: int, owner: bytes, header_hash: bytes) -> bool:
    """Whether the sign that a client was removed is there, and signed under a public key of the area's owner.

    One that is not says nothing: whoever can write to storage can put such a one.
    """
    name = removed_name(epoch)
    try:
        sign = parse_removal_sign(backend.get(name, 0, SIGN_BYTES_MAX + 1), name)
    except (ObjectMissing, Corruption):
        return False
    return sign.client == client and is_signed(owner, sign.signature, REMOVAL_PURPOSE, header_hash, sign.signed())


def new_run(  # noqa: PLR0913 - what a record says, and whom it is for
    *,
    author: Author,
    signer: Signer,
    client: bytes,
    session: bytes,
    owner_box: bytes,
    client_box: bytes,
    rights: Iterable[str],
    header: Header,
    time_ns: int,
    random: Random,
    epoch: int = 0,
) -> tuple[RunRing, Run]:
    """Draws a run's root key; returns its ring and its record. The key itself is overwritten, as far as Python lets."""
    root = bytearray(random(KEY_BYTES))
    try:
        ring = RunRing(bytes(root), header.hash, epoch=epoch)

        def box(public: bytes, purpose: str, message: bytes | bytearray) -> bytes:
            return seal_box(
                public,
                purpose=purpose,
                header_hash=header.hash,
                name=run_name(session),
                message=message,
                random=random,
                suite=header.suite,
            )

        grants = [(right, box(client_box, right, root if right == RESTORE else ring.list_keys)) for right in rights]
        draft = Run(
            author=author,
            client=client,
            session=session,
            time_ns=time_ns,
            box=box(owner_box, ROOT, root),
            grants=tuple(grants),
            signature=bytes(SIGNATURE_BYTES),
        )
    finally:
        root[:] = bytes(KEY_BYTES)
    signature = signer.sign(PURPOSES[author], header.hash, draft.signed())
    return ring, Run(
        author=author,
        client=client,
        session=session,
        time_ns=time_ns,
        box=draft.box,
        grants=draft.grants,
        signature=signature,
    )


def read_signed(
    backend: Backend, session: bytes, client: bytes, header_hash: bytes, signers: Iterable[tuple[bytes, bytes]]
) -> tuple[Run, int]:
    """Reads a run's record; returns it, and the place of the pair of public keys of which one has signed it.

    ``signers``: pairs of a client's and an owner's. Raises `Corruption` where none has, `ObjectMissing`.
    """
    name = run_name(session)
    run = parse_run(backend.get(name, 0, RUN_BYTES_MAX + 1), name)
    signed, purpose = run.signed(), PURPOSES[run.author]
    for place, (of_client, of_owner) in enumerate(signers):
        public = of_client if run.author is Author.CLIENT else of_owner
        if run.client == client and is_signed(public, run.signature, purpose, header_hash, signed):
            return run, place
    raise Corruption(name, "it is not signed by whoever it says")


def owners_ring(run: Run, seed: bytes, header: Header, *, epoch: int = 0) -> RunRing:
    """Returns the ring of a run that the area's owner opens; raises `Corruption`."""
    return RunRing(_opened(run, run.box, ROOT, seed, header), header.hash, epoch=epoch)


def granted_root(run: Run, right: str, seed: bytes, header: Header) -> bytes | None:
    """Returns what a right gives the client of a run: for `RESTORE` its root key, for `LIST` the keys that list.

    None where the run does not give it; raises `Corruption`.
    """
    box = dict(run.grants).get(right)
    return None if box is None else _opened(run, box, right, seed, header)


def _opened(run: Run, box: bytes, purpose: str, seed: bytes, header: Header) -> bytes:
    name = run_name(run.session)
    opened = open_box(seed, box, purpose=purpose, header_hash=header.hash, name=name, suite=header.suite)
    if len(opened) != (LIST_KEYS_BYTES if purpose == LIST else KEY_BYTES):
        raise Corruption(name, "what is in its box is no key")
    return opened


def naming_ring(credential: Credential, header: Header) -> KeyRing:
    """Returns a client's ring of its area: it seals and opens nothing, and says how content is cut and named."""
    ring = KeyRing(bytes(KEY_BYTES), header.hash, kinds=frozenset(), epoch=credential.epoch)
    return ring.naming_as(credential.content_keys)


def id_of(credential: Credential) -> bytes:
    """Returns the id of the client of a credential, whichever it has been given since it was enrolled."""
    return credential.client or client_of(Signer(credential.sign_seed).public)


class ClientRuns:
    """Is the rings of a client that writes: the one of the session at work, and none else. One thread begins and ends.

    Implements `respaldo.codec.keys.Rings`.
    """

    def __init__(self, credential: Credential, header: Header, clock: Clock, random: Random) -> None:
        self.name = credential.name
        self._credential = credential
        self._header = header
        self._clock = clock
        self._random = random
        self._signer = Signer(credential.sign_seed)
        self.client = id_of(credential)
        self.session = b""
        """The session at work, empty where there is none."""
        self._ring: RunRing | None = None

    @property
    def sealing(self) -> KeyRing:
        """The ring of the session at work; ValueError where there is none."""
        if self._ring is None:
            msg = "no session has begun"
            raise ValueError(msg)
        return self._ring

    def opening(self, kind: str, name: str) -> Iterable[KeyRing]:  # noqa: ARG002 - the protocol's signature
        """Returns the ring of the session at work, for what it wrote itself."""
        return () if self._ring is None or kind not in RUN_KINDS else (self._ring,)

    def begin(self, session: bytes, backend: Backend) -> None:
        """Draws the keys of a session and puts its record, before anything else is sealed under them.

        *Then* it looks whether the credential was renewed, or the client removed: a run that goes on was there before
        the sign, and so before whoever put that listed the runs that count. For a removal it looks before, too, so
        that a machine that nobody has told leaves nothing behind. Raises `CredentialRenewed`, `ClientRemoved`.
        """
        self._heed_removal(backend)
        ring, run = new_run(
            author=Author.CLIENT,
            signer=self._signer,
            client=self.client,
            session=session,
            owner_box=self._credential.owner_box,
            client_box=box_public(self._credential.box_seed),
            rights=self._credential.rights,
            header=self._header,
            time_ns=self._clock.now_ns(),
            random=self._random,
            epoch=self._credential.epoch,
        )
        backend.put(run_name(session), [run.encode()])
        if ended_name(self._credential.epoch) in self._heed_removal(backend):
            raise CredentialRenewed(self.name)
        self._ring, self.session = ring, session

    def _heed_removal(self, backend: Backend) -> set[str]:
        """Raises `ClientRemoved` where the owner has signed that; returns which signs of his there are else."""
        credential, names = self._credential, set(backend.names(EPOCHS))
        if removed_name(credential.epoch) in names and is_removed(
            backend, self.client, credential.epoch, credential.owner_sign, self._header.hash
        ):
            raise ClientRemoved(self.name)
        return names

    def end(self) -> None:
        """Lets go of the keys. Copies that Python has made stay in memory until it is used for something else."""
        self._ring, self.session = None, b""
