"""Whoever has stolen a client's machine: its credential, cache and state, and full control of its area's storage."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import replace

from respaldo.codec.box import box_public
from respaldo.codec.keys import RUN_KINDS, KeyRing, RunRing
from respaldo.codec.seal import associated_data, seal_with
from respaldo.codec.signing import Signer, client_of
from respaldo.core.ids import ChunkId, Kind, PackName, SnapshotId
from respaldo.format import frame
from respaldo.format.figures import Figures
from respaldo.format.header import close_object
from respaldo.format.runrecord import Author, run_name
from respaldo.format.snapshot import Manifest, Outcome, Verdict
from respaldo.store.header import read_header
from respaldo.store.packs import PackWriter, seal_block
from respaldo.store.runs import new_run
from respaldo.store.vault import Vault, make_vault
from tests.store.owners import Place


class Thief:
    """Draws runs as the client would, and writes under them whatever it likes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.area = place.area
        self.credential = place.credential
        self.signer = Signer(self.credential.sign_seed)
        self.client = client_of(self.signer.public)

    def run(self, session: bytes = b"", *, time_ns: int = 0) -> Run:
        """Begins a run; one of that name, if there is, is written over."""
        session = session or os.urandom(16)
        ring, record = new_run(
            author=Author.CLIENT,
            signer=self.signer,
            client=self.client,
            session=session,
            owner_box=self.credential.owner_box,
            client_box=box_public(self.credential.box_seed),
            rights=(),
            header=self.place.header,
            time_ns=time_ns,
            random=os.urandom,
        )
        self.area.damage(run_name(session), record.encode())
        return Run(self, session, ring)

    def names(self, folder: str) -> list[str]:
        """Lists a folder of the area."""
        return sorted(name for name in self.area.snapshot() if name.startswith(folder + "/"))

    @property
    def keys(self) -> set[bytes]:
        """All 32 bytes in a row that the credential holds: what a key could be made of."""
        credential = self.credential
        fields = (credential.header_hash, credential.sign_seed, credential.box_seed, credential.owner_box)
        content = credential.content_keys
        return {*fields, credential.owner_sign, *(content[at : at + 32] for at in range(0, len(content), 32))}

    def rings(self) -> list[KeyRing]:
        """Every ring that could be made of the keys, for the area and for the owner's repository."""
        hashes = [self.place.header.hash, read_header(self.place.owner_backend).hash]
        return [make(key, header) for key in self.keys for header in hashes for make in (KeyRing, RunRing)]


class Run:
    """Is a run of the thief's."""

    def __init__(self, thief: Thief, session: bytes, ring: RunRing) -> None:
        self.thief = thief
        self.session = session
        self.ring = ring
        self.vault: Vault = make_vault(ring, thief.place.header, 3, os.urandom)
        self.ids = KeyRing(bytes(32), ring.header_hash).naming_as(thief.credential.content_keys).id_keys

    def pack(self, chunks: Iterable[tuple[Kind, ChunkId, bytes]], *, session: bytes = b"") -> PackName:
        """Puts a pack that says to hold chunks of these ids, whatever is in them."""
        with PackWriter(self.thief.area, self.vault, session or self.session) as writer:
            for kind, chunk_id, raw in chunks:
                writer.add(seal_block(self.vault, kind, raw, chunk_id, struct.pack("<I", len(raw))))
            return writer.finish().name

    def record(self, kind: str, name: str, raw: bytes) -> None:
        """Puts a record, of a kind that a run's ring seals, over whatever bears that name."""
        self.thief.area.damage(name, self.vault.seal_record(kind, name, raw))

    def forge(self, kind: str, name: str, raw: bytes) -> None:
        """Puts a record of any kind, under the key that the run would have for it."""
        head, body = frame.squeeze(raw, self.vault.compressor)
        length = 4096 - 72 - 32
        header = self.thief.place.header
        aad = associated_data(0, header.repository, kind, name, length, header.suite)
        key = self.ring.seal_key(kind) if kind in RUN_KINDS else self.ring._purpose("seal " + kind)
        sealed = seal_with(key, self.ring.hedge, aad, frame.build(head, body, length), os.urandom, header.suite)
        self.thief.area.damage(name, close_object(b"".join(sealed)))

    def snapshot(self, root: ChunkId, *, name: bytes = b"", **fields: object) -> SnapshotId:
        """Puts a manifest and its commit."""
        snapshot = SnapshotId(name or self.session)
        now = self.thief.place.clock.now
        manifest = Manifest(
            session=self.session,
            root=root,
            sources=(os.fsencode(self.thief.place.source),),
            time_ns=now,
            started_ns=now,
            ended_ns=now,
            host="web",
            user="root",
            uid=0,
            figures=Figures(),
        )
        self.record("manifest", f"pending/{snapshot.hex()}", replace(manifest, **fields).encode())
        data = self.thief.area.get(f"pending/{snapshot.hex()}")
        outcome = Outcome(verdict=Verdict.COMMIT, pending_hash=hashlib.sha256(data).digest())
        self.record("outcome", f"outcome/{snapshot.hex()}", outcome.encode())
        return snapshot
