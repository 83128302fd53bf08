"""The log of a repository: the entries that this client signs and adds.

Invariant: an entry that takes something away (forget, prune) is put before it is taken; one that says that a snapshot
was committed, after, and is owed from before it, so that a run that is cut off in between leaves it to the next entry.
A client writes its entries one after the other, however many processes it has. Implements docs/format.md, "Log".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from respaldo.backend.base import Backend
from respaldo.codec.keys import KeyRing
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageError
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.core.seams import Clock
from respaldo.format.epoch import Former
from respaldo.format.logbook import (
    ENTRIES_MAX,
    FIRST,
    Entry,
    Head,
    encode_object,
    first_number,
    object_name,
    parse_entry,
)
from respaldo.format.snapshot import Verdict
from respaldo.store.again import LOOKS
from respaldo.store.applied import apply_commit, apply_forget, apply_removal
from respaldo.store.authority import (
    ADMIN_PURPOSE,
    ADMIN_VERBS,
    COMMIT,
    ENTRY_PURPOSE,
    FORGET,
    REMOVE,
)
from respaldo.store.following import Follower
from respaldo.store.outcomes import read_outcome
from respaldo.store.recollection import Known, Memory, Recollection
from respaldo.store.vault import Vault

_REPEATED_BYTES_MAX: Final = 8 << 20
HEADS_TOLD: Final = 256


class Logbook(Follower):
    """Reads and writes the log of one repository for one client. One thread."""

    def __init__(
        self,
        *,
        backend: Backend,
        vault: Vault,
        ring: KeyRing,
        clock: Clock,
        recollection: Recollection,
        former: Sequence[Former] = (),
    ) -> None:
        super().__init__(backend, vault, ring, recollection, former)
        self._epoch = ring.epoch
        self._clock = clock
        self._owing: set[bytes] = set()
        """Snapshots of which this process has remembered that they are owed."""

    def take_over(self, ring: KeyRing, former: Sequence[Former]) -> None:
        """Goes on in another epoch."""
        self._former, self._epoch = former, ring.epoch
        self.admin = Signer(ring.admin_seed)

    def owe(self, snapshot: bytes, pending_hash: bytes) -> None:
        """Remembers, before a snapshot is committed, that an entry will have to say so."""
        with contextlib.suppress(OSError, Corruption), self.recollection.turn():
            memory = self.recollection.load()
            memory.owed[snapshot] = pending_hash
            self.recollection.save(memory)
            self._owing.add(snapshot)

    def committed(self, snapshot: bytes, pending_hash: bytes) -> bool:
        """Says in the log that a snapshot was committed; returns whether that could be written.

        Another process of this client may have said so since it was owed: it is not said twice, because it may have
        been forgotten in between, and would count as committed again.
        """
        return self.append(COMMIT, [snapshot + pending_hash])

    def append(
        self,
        verb: str,
        subjects: Sequence[bytes] = (),
        note: str = "",
        check: Callable[[], object] = lambda: None,
    ) -> bool:
        """Adds an entry; returns whether it was possible to say who writes it (a state directory that is read-only).

        What was not possible stands in `unwritten`. ``check`` is called just before it is put, when this process has
        its turn, and may raise: what an admin key signs after its epoch has ended is believed by nobody. Raises
        `StorageError`.
        """
        try:
            with self.recollection.turn():
                self._append(verb, tuple(subjects), note, check)
        except (OSError, Corruption) as error:
            self.remembers = False
            self.unwritten.append((verb, (isinstance(error, OSError) and error.strerror) or str(error)))
            return False
        return True

    def put_object(self, name: str, entries: Sequence[bytes]) -> None:
        """Puts an object of encoded entries."""
        self._backend.put(name, [self._vault.seal_record("log", name, encode_object(entries))])

    def _append(self, verb: str, subjects: tuple[bytes, ...], note: str, check: Callable[[], object]) -> None:
        memory = self.recollection.load()
        signer = self.recollection.signer() or self.recollection.new_signer()
        self._settle(memory, signer)
        if verb == COMMIT:
            done = {subject[:RANDOM_ID_BYTES] for subject in subjects}
            subjects = tuple(item for item in subjects if not self._is_said(memory, item[:RANDOM_ID_BYTES]))
            subjects += self._owed(memory, done)
            if not subjects:
                self.recollection.save(memory)
                return
        for _ in range(LOOKS):
            entry = self._entry(memory, signer, verb, subjects, note)
            check()
            memory.intent = entry.encode()
            self.recollection.save(memory)
            name = object_name(entry.client, entry.number)
            first, entries = self._repeated(memory, entry)
            try:
                if self._epoch and (entry.client, entry.number) in self.list_names():
                    raise ObjectExists(name)  # it was sealed anew, under another name
                self.put_object(name, entries)
            except ObjectExists:
                # This machine or its state directory has a double, which goes on under the name of both: from here on
                # this one is another client.
                signer = self.recollection.new_signer()
                memory.tail.clear()
                memory.told.clear()
                continue
            self._wrote(memory, entry, signer.public)
            self.recollection.save(memory)
            if first < entry.number:
                with contextlib.suppress(StorageError):
                    self._backend.discard(self._names(entry.client, range(first, entry.number)))
            return
        raise ObjectExists(name, "storage takes no entry of the log")

    def _names(self, client: bytes, numbers: range) -> list[str]:
        if not self._epoch:
            return [object_name(client, number) for number in numbers]
        listed = self.list_names().items()
        return [name for (other, number), names in listed if other == client and number in numbers for name in names]

    def _settle(self, memory: Memory, signer: Signer) -> None:
        """Finds out whether an entry that was about to be put when a run was cut off is there."""
        if not memory.intent:
            return
        entry = parse_entry(memory.intent, "memory")
        if entry.client == client_of(signer.public):
            try:
                if self._epoch:
                    self.list_names()
                if self.read_numbered(entry.client, entry.number)[-1] == entry:
                    self._wrote(memory, entry, signer.public)
            except ObjectMissing:
                pass
            except Corruption:  # what was put is torn: a repair can put it again
                self.recollection.keep([memory.intent])
        memory.intent = b""

    def _owed(self, memory: Memory, done: set[bytes]) -> tuple[bytes, ...]:
        """Returns what is owed to the log of earlier commits; forgets those that came to nothing."""
        more = []
        for snapshot, pending_hash in tuple(memory.owed.items()):
            if snapshot in done:
                continue
            try:
                if self._is_committed(snapshot, pending_hash):
                    more.append(snapshot + pending_hash)
                else:
                    del memory.owed[snapshot]
            except (ObjectMissing, Corruption):
                if self._backend.exists(f"pending/{snapshot.hex()}") is None:
                    del memory.owed[snapshot]  # else it is not decided yet
        return tuple(more)

    def _is_said(self, memory: Memory, snapshot: bytes) -> bool:
        """Whether another process of this client has said of a snapshot what this one owed."""
        return snapshot in self._owing and snapshot not in memory.owed

    def _is_committed(self, snapshot: bytes, pending_hash: bytes) -> bool:
        outcome = read_outcome(self._backend, self._vault, snapshot)
        return outcome.verdict is Verdict.COMMIT and outcome.pending_hash == pending_hash

    def _entry(self, memory: Memory, signer: Signer, verb: str, subjects: tuple[bytes, ...], note: str) -> Entry:
        client = client_of(signer.public)
        own = memory.known.get(client)
        heads = [
            Head(other, item.number, item.hash)
            for other, item in sorted(memory.known.items())
            if other != client and memory.told.get(other, -1) < item.number
        ][:HEADS_TOLD]
        entry = Entry(
            client=client,
            number=own.number + 1 if own else 0,
            previous=own.hash if own else FIRST,
            key=b"" if own else signer.public,
            time_ns=self._clock.now_ns(),
            heads=tuple(heads),
            verb=verb,
            subjects=subjects,
            note=note,
            access=self.recollection.access.head(),
        )
        message, header = entry.signed(), self._header_hash
        admin = self.admin.sign(ADMIN_PURPOSE, header, message) if verb in ADMIN_VERBS or verb == REMOVE else b""
        return replace(entry, admin=admin, signature=signer.sign(ENTRY_PURPOSE, header, message))

    def _repeated(self, memory: Memory, entry: Entry) -> tuple[int, list[bytes]]:
        """Returns the entries that the object of one holds, and the number of the first."""
        count = entry.number - first_number(entry.number)
        tail = memory.tail[-count:] if count else []
        whole = len(tail) == count and sum(map(len, tail)) <= _REPEATED_BYTES_MAX
        tail = tail if whole else []
        return entry.number - len(tail), [*tail, memory.intent]

    def _wrote(self, memory: Memory, entry: Entry, key: bytes) -> None:
        """Remembers that the entry that was intended is there."""
        memory.known[entry.client] = Known(entry.number, entry.hash, key)
        memory.told.update({head.client: head.number for head in entry.heads})
        memory.tail.append(memory.intent)
        self.recollection.keep([memory.intent])
        if (entry.number + 1) % ENTRIES_MAX == 0:
            memory.tail.clear()
        memory.intent = b""
        if entry.verb == COMMIT:
            apply_commit(memory, entry)
        elif entry.verb == FORGET:
            apply_forget(memory, entry)
        elif entry.verb == REMOVE:
            apply_removal(memory, entry)
            self._removed |= memory.removed
