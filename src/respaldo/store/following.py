"""Following the log of a repository: what every client wrote, from where this one left off, and what is not there.

Invariant: what was seen once is never silently unseen: a log that has become shorter, that has changed, or that lacks
what another client says it saw, is a finding. Never writes to the repository. Implements docs/format.md, "Log".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from respaldo.backend.base import Backend
from respaldo.codec.keys import KeyRing
from respaldo.codec.signing import Signer, client_of, is_signed
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.format.enrolment import Removal
from respaldo.format.epoch import Former
from respaldo.format.logbook import (
    ENTRIES_MAX,
    FIRST,
    Entry,
    Head,
    first_number,
    object_name,
    parse_name,
    parse_object,
)
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.again import LOOKS, look_again
from respaldo.store.applied import apply_commit, apply_forget, apply_removal
from respaldo.store.authority import ADMIN_VERBS, COMMIT, ENTRY_PURPOSE, FORGET, REMOVE, admin_signed
from respaldo.store.header import still_there
from respaldo.store.logloss import LOST, Gap, Losses
from respaldo.store.recollection import Known, Memory, Recollection
from respaldo.store.several import read_several
from respaldo.store.vault import Vault


@dataclass(slots=True, kw_only=True)
class Followed:
    """Is what following the log gave: the memory brought up to date, new entries, findings."""

    memory: Memory
    fresh: list[Entry] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


class Follower:
    """Reads the log of one repository for one client. One thread."""

    def __init__(
        self,
        backend: Backend,
        vault: Vault,
        ring: KeyRing,
        recollection: Recollection,
        former: Sequence[Former] = (),
    ) -> None:
        self._former = former
        self._backend = backend
        self._vault = vault
        self._header_hash = ring.header_hash
        self.admin = Signer(ring.admin_seed)
        self.recollection = recollection
        self._twice: dict[tuple[bytes, int], list[str]] = {}
        self.remembers = True
        """Whether what was seen could be written down."""
        self.forgot = False
        """Whether what was remembered turned out damaged: what is seen then is trusted, as at the first time."""
        self.unwritten: list[tuple[str, str]] = []
        """What this client did and could not say in the log: verbs, and why."""
        self._removed: dict[bytes, Removal] = {}
        """What was learned of removals, where that cannot be remembered."""

    def follow(self, *, accept: bool = False) -> Followed:
        """Follows every client's log to its end; returns what is new, and what should be there and is not.

        ``accept``: what is found is taken for the truth from now on. Raises `StorageError` where it cannot be read.
        """
        memory = self.memory()
        for look in range(LOOKS):
            try:
                followed = self._follow(memory, Losses(), accept=False)
                losses = self.losses() if followed.findings else Losses()
                if losses.gaps:
                    followed = self._follow(memory, losses, accept=False)
            except ObjectMissing:  # an object that another one has just taken the place of
                if look + 1 == LOOKS:
                    raise
                continue
            if not followed.findings:
                break
        if followed.findings and accept:
            findings = followed.findings
            followed = self._follow(memory, losses, accept=True)
            followed.findings = findings
        if accept:
            followed.memory.tail.clear()
        self._removed |= followed.memory.removed
        if followed.memory != memory and (accept or not followed.findings):
            self._save(followed.memory, followed.fresh)
        return followed

    def missing(self, there: Iterable[bytes], again: Callable[[], Iterable[bytes]]) -> set[bytes]:
        """Returns the snapshots that were committed and not forgotten, and are not among those that are there.

        ``again`` lists those that are there once more: another process of this client may have remembered, since they
        were listed, what was committed since. What was there, and is gone when it is listed after that, somebody has
        said that he forgets, or it is missing.
        """
        lost = self.memory().live - set(there)
        if lost:
            lost -= set(again())
        return lost & self.follow().memory.live if lost else set()

    def give_up(self, snapshots: Iterable[bytes]) -> None:
        """Remembers snapshots no longer: that they are gone was accepted."""
        with contextlib.suppress(OSError), self.recollection.turn():
            memory = self.recollection.load()
            memory.live -= set(snapshots)
            self.recollection.save(memory)

    def removals(self) -> Mapping[bytes, Removal]:
        """Returns the removals of clients with areas that the log has spoken of, as far as it was followed ever."""
        return self.memory().removed | self._removed

    def read_all(self) -> list[Entry]:
        """Reads every entry of every client that is there and opens, by time; none is compared with the memory."""
        return look_again(self._read_all)

    def _read_all(self) -> list[Entry]:
        found: list[Entry] = []
        for client, numbers in self.listed().items():
            by_number: dict[int, Entry] = {}
            for _, entries in self._read(client, numbers):
                if not isinstance(entries, Corruption):
                    by_number.update({entry.number: entry for entry in entries})
            found += by_number.values()
        return sorted(found, key=lambda entry: (entry.time_ns, entry.client, entry.number))

    def losses(self) -> Losses:
        """Returns what any entry that is there, and that an admin key has signed, says to be lost for good."""
        return Losses(entry for entry in self.read_all() if entry.verb == LOST and self.is_admin(entry))

    def hash_at(self, client: bytes, number: int) -> bytes:
        """Returns the hash of an entry that is there, empty where it is not; raises `Corruption`."""
        return look_again(lambda: self._hash_at(client, number), is_whole=bool)

    def _hash_at(self, client: bytes, number: int) -> bytes:
        for last in self.listed().get(client, []):
            if last >= number:
                entries = self.read_numbered(client, last)
                return next((entry.hash for entry in entries if entry.number == number), b"")
        return b""

    def memory(self) -> Memory:
        """Returns what this client remembers; empty where that cannot be read."""
        try:
            return self.recollection.load()
        except (OSError, Corruption) as error:
            self.remembers = False
            self.forgot = self.forgot or isinstance(error, Corruption)
            return Memory()

    def _save(self, memory: Memory, fresh: Sequence[Entry]) -> None:
        try:
            with self.recollection.turn():
                if self.recollection.is_current:  # or another process has seen as much, and says so itself
                    self.recollection.save(memory)
                    self.recollection.keep([entry.encode() for entry in fresh])
        except OSError:
            self.remembers = False

    def listed(self) -> dict[bytes, list[int]]:
        """Returns the numbers of all objects by client, ascending."""
        listed: dict[bytes, list[int]] = {}
        for client, number in self.list_names():
            listed.setdefault(client, []).append(number)
        for numbers in listed.values():
            numbers.sort()
        return listed

    def list_names(self) -> dict[tuple[bytes, int], list[str]]:
        """Lists the objects of the log, by client and number: of one that was sealed anew there may be two."""
        found: dict[tuple[bytes, int], list[str]] = {}
        for name in self._backend.names("log"):
            parsed = parse_name(name)
            if parsed is not None:
                found.setdefault(parsed, []).append(name)
        self._twice = {key: names for key, names in found.items() if names != [object_name(*key)]}
        return found

    def _read(self, client: bytes, numbers: Sequence[int]) -> Iterator[tuple[int, tuple[Entry, ...] | Corruption]]:
        """Yields the entries of objects, by number; leaves out those that a later one repeats."""
        found: dict[int, tuple[Entry, ...] | Corruption] = {}
        wanted = [
            number
            for place, number in enumerate(numbers)
            if not any(first_number(later) <= number for later in numbers[place + 1 : place + 1 + ENTRIES_MAX])
        ]
        while wanted:
            for number, got in read_several(lambda number: self.read_numbered(client, number), wanted):
                if isinstance(got, ObjectMissing):
                    raise got
                found[number] = got
            # One that was to repeat others and does not, or cannot be read, leaves them where they are.
            bare = [
                range(first_number(number), number if isinstance(got, Corruption) else got[0].number)
                for number, got in found.items()
            ]
            wanted = [number for number in numbers if number not in found and any(number in part for part in bare)]
        yield from sorted(found.items())

    def read_numbered(self, client: bytes, number: int) -> tuple[Entry, ...]:
        """Reads the entries of the object of a number, as last listed; raises `Corruption`, `ObjectMissing`.

        Of several that open all must say the same.
        """
        found: list[tuple[Entry, ...]] = []
        problem: Corruption | ObjectMissing | None = None
        for name in self._twice.get((client, number)) or [object_name(client, number)]:
            try:
                found.append(self.read_object(name))
            except (Corruption, ObjectMissing) as error:
                problem = error
        if not found:
            raise problem or ObjectMissing(object_name(client, number))
        if any(entries[-1] != found[0][-1] for entries in found):
            raise Corruption(object_name(client, number), "there are two of this number, and they differ")
        return max(found, key=len)

    def read_object(self, name: str) -> tuple[Entry, ...]:
        """Reads the entries of an object; raises `ObjectMissing`, and `Corruption`, also for a bad sector."""
        try:
            data = self._backend.get_whole(name, RECORD_BYTES_MAX)
        except StorageFailed as error:
            if error.retryable:
                raise
            still_there(self._backend, error)
            raise Corruption(name, f"it cannot be read ({error.reason})") from None
        return parse_object(self._vault.open_record("log", name, data), name)

    def _follow(self, before: Memory, losses: Losses, *, accept: bool) -> Followed:
        memory = replace(
            before,
            known=dict(before.known),
            live=set(before.live),
            gone=set(before.gone),
            told=dict(before.told),
            tail=list(before.tail),
            removed=dict(before.removed),
            all_removed=True,
        )
        followed = Followed(memory=memory)
        listed = self.listed()
        for client in sorted(listed.keys() | memory.known.keys()):
            self._follow_one(client, listed.get(client, []), followed, losses, accept=accept)
        self._compare_heads(followed, losses)
        for verb, apply in ((COMMIT, apply_commit), (FORGET, apply_forget)):
            for entry in followed.fresh:
                if entry.verb == verb:
                    apply(memory, entry)
        for entry in followed.fresh if before.all_removed else self.read_all():
            if entry.verb == REMOVE and self.is_admin(entry):
                apply_removal(memory, entry)
        return followed

    def _follow_one(
        self, client: bytes, numbers: list[int], followed: Followed, losses: Losses, *, accept: bool
    ) -> None:
        """Follows one client's log from where it was left, as far as it is whole."""
        known = followed.memory.known.get(client)
        last = numbers[-1] if numbers else -1
        if known and last < known.number:
            if losses.has(client, last + 1, known.number):
                return
            followed.findings.append(_rolled_back(client, known.number, last))
            if not accept:
                return
            known = None
            del followed.memory.known[client]
        if known and last == known.number:
            return
        after = known.number if known else -1
        for number, got in self._read(client, [number for number in numbers if number > after]):
            if isinstance(got, Corruption):
                followed.findings.append(f"entry {number} of client {_short(client)} cannot be read: {got.reason}")
                if not accept:
                    return
                continue
            for entry in got:
                following = known.number + 1 if known else 0
                if entry.number > following and losses.has(client, following, entry.number - 1):
                    key = known.key if known else losses.keys.get(client, b"")
                    known = Known(entry.number - 1, entry.previous, key)
                problem = self.problem(entry, known, accept=accept)
                if problem:
                    followed.findings.append(problem)
                    return
                if known is None or entry.number > known.number:
                    key = known.key if known else entry.key
                    if not key:  # accepted as it stands: whose it is cannot be told
                        known = Known(entry.number, entry.hash, key) if known else None
                        continue
                    known = followed.memory.known[client] = Known(entry.number, entry.hash, key)
                    followed.fresh.append(entry)

    def problem(self, entry: Entry, known: Known | None, *, accept: bool = False) -> str:
        """Returns what is wrong with an entry after what is known of its client, nothing where it fits."""
        who = f"entry {entry.number} of client {_short(entry.client)}"
        if known and entry.number <= known.number:
            if entry.number == known.number and entry.hash != known.hash:
                return f"{who} is not the one that was seen before (the log was forked)"
            return ""
        expected = known.number + 1 if known else 0
        if not accept and entry.number != expected:
            gap = Gap(entry.client, expected, entry.number - 1)
            return f"{gap} {gap.are} missing"
        if not accept and entry.previous != (known.hash if known else FIRST):
            return f"{who} does not follow the one before it (the log was forked)"
        key = known.key if known else entry.key
        if not key:
            return ""
        message, header = entry.signed(), self._header_hash
        if client_of(key) != entry.client or not is_signed(key, entry.signature, ENTRY_PURPOSE, header, message):
            return f"{who} is not signed by that client"
        if entry.verb in ADMIN_VERBS and not self.is_admin(entry, accept=accept):
            return f"{who} says {entry.verb}, and no admin key that was valid then has signed it"
        return ""

    def is_admin(self, entry: Entry, *, accept: bool = False) -> bool:
        """Whether the admin key has signed an entry, or that of an earlier epoch one that was there when it ended."""
        return admin_signed(entry, self.admin.public, self._former, self._header_hash, accept=accept)

    def _compare_heads(self, followed: Followed, losses: Losses) -> None:
        """Compares what new entries say that they saw of other clients with what is there."""
        seen = {(entry.client, entry.number): entry.hash for entry in followed.fresh}
        known = followed.memory.known
        seen |= {(client, item.number): item.hash for client, item in known.items()}
        for entry in followed.fresh:
            for head in entry.heads:
                if losses.has(head.client, head.number, head.number):
                    continue
                who = f"client {_short(entry.client)} has seen entry {head.number} of client {_short(head.client)}"
                item = known.get(head.client)
                if item is None or item.number < head.number:
                    followed.findings.append(f"{who}, which is not there")
                elif (seen.get((head.client, head.number)) or self._hash_or(head)) != head.hash:
                    followed.findings.append(f"{who}, and it was another one (the log was forked)")

    def _hash_or(self, head: Head) -> bytes:
        """Returns the hash of an entry; where it cannot be read, which is another finding's, the one of the head."""
        try:
            return self.hash_at(head.client, head.number)
        except Corruption:
            return head.hash


def _rolled_back(client: bytes, seen: int, last: int) -> str:
    gap = Gap(client, last + 1, seen)
    return f"{gap} {gap.are} gone (the repository was rolled back)"


def _short(client: bytes) -> str:
    return client.hex()[:8]
