"""The history of a repository, as this client has seen it: what changed behind its back, heads to keep elsewhere.

Whoever opens a repository gets to know what its log lacks before anything is read or written.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from respaldo.catalog.snapshots import Catalogue, list_pending
from respaldo.core.errors import Corruption, HistoryChanged, UsageError
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.format import canonical
from respaldo.format.logbook import CLIENT_BYTES, Entry
from respaldo.store.logstate import survey_log
from respaldo.store.recollection import Recollection
from respaldo.store.repo import Repo

if TYPE_CHECKING:
    from respaldo.api.accessed import AccessHistory

HINT: Final = (
    "if you know why (an older copy of the repository was put back, say), go on with --accept-rollback; "
    "otherwise keep a copy of the repository as it is, and find out who can write to it"
)
_SHOWN: Final = 5
_HEAD: Final = "respaldo-head-"
_HASH_BYTES: Final = 16
_CHECK_BYTES: Final = 4


class Rollback(Enum):
    """Says what is to be done about a history that changed."""

    REFUSE = "refuse"
    ACCEPT = "accept"
    REPORT = "report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Is an entry of the log: who did what, when, by his own clock, and to which snapshots (ids in hex)."""

    client: str
    number: int
    time_ns: int
    verb: str
    snapshots: tuple[str, ...]
    note: str
    own: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Is what comparing a head gave: a sentence for each client of it whose log is not what it was."""

    findings: tuple[str, ...]
    clients: int


class History:
    """Is what this client knows of a repository's log. ``findings`` were reported, or accepted."""

    def __init__(self, repo: Repo, rollback: Rollback) -> None:
        self._repo = repo
        self._rollback = rollback
        self.findings: tuple[str, ...] = ()

    @property
    def remembers(self) -> bool:
        """Whether what was seen could be written down."""
        return self._repo.log is None or self._repo.log.remembers

    @property
    def forgot(self) -> bool:
        """Whether what this client remembered was damaged, so that nothing can be compared with it."""
        return self._repo.log is not None and self._repo.log.forgot

    @property
    def unwritten(self) -> Sequence[tuple[str, str]]:
        """What was done and could not be said in the log: verbs, and why."""
        return self._repo.log.unwritten if self._repo.log is not None else ()

    def follow(self) -> None:
        """Follows the log; raises `HistoryChanged` where it is not what it was and that is to be refused.

        Raises `KeyRotated` where that is so because the key was rotated meanwhile.
        """
        log = self._repo.log
        if log is None:
            return
        self._compare_epoch(log.recollection)
        followed = log.follow(accept=self._rollback is Rollback.ACCEPT)
        if followed.findings:
            lost = followed.memory.live - self._pending()
            self._found([*followed.findings, *_lost(lost)])
            if self._rollback is Rollback.ACCEPT:
                log.give_up(lost)

    def _compare_epoch(self, recollection: Recollection) -> None:
        """Looks whether the key is the one that this client has seen, or one that came after it."""
        epoch, seen = self._repo.epoch, recollection.epoch()
        if seen == (epoch.number, epoch.ring.check):
            return
        if seen is not None:
            former = {item.epoch: item.check for item in epoch.former}
            if seen[0] > epoch.number:
                self._found([f"the key was rotated to epoch {seen[0]}, and only epoch {epoch.number} is there"])
            elif seen[0] == epoch.number:
                self._found([f"the key of epoch {epoch.number} is another one than this client has seen"])
            # A client has no record: it knows by its credential alone, which the owner brings it.
            elif epoch.record is not None and former.get(seen[0], b"") != seen[1]:
                self._found([f"epoch {epoch.number} has a key that does not come from the one of epoch {seen[0]}"])
            if self.findings and self._rollback is not Rollback.ACCEPT:
                return
        if seen is not None or epoch.number:
            recollection.note_epoch(epoch.number, epoch.ring.check, instead_of=seen)

    @property
    def accepts(self) -> bool:
        """Whether what was found is taken for the truth."""
        return self._rollback is Rollback.ACCEPT

    def accept(self) -> None:
        """Takes what is there for the truth from now on; what was found stays in `findings`."""
        found = self.findings
        self._rollback = Rollback.ACCEPT
        self.follow()
        if self._repo.log is not None:
            self._repo.log.give_up(self._repo.log.missing(self._pending(), self._pending))
        self.findings = found

    def found_again(self) -> tuple[str, ...]:
        """Follows the log once more; returns what is still not as it was, nothing where that was accepted."""
        if self.accepts:
            return ()
        before, self.findings = self.findings, ()
        self.follow()
        found, self.findings = self.findings, before
        return found

    def compare(self, catalogue: Catalogue) -> None:
        """Looks for snapshots that were committed, that nobody has forgotten, and that are not there.

        Raises `KeyRotated` as `require_readable` does.
        """
        require_readable(self._repo, catalogue)
        log = self._repo.log
        if log is None:
            return
        there: set[bytes] = {item.id for item in catalogue.snapshots}
        there.update(catalogue.undecided, catalogue.aborted)
        for error in catalogue.damaged:
            folder, _, leaf = error.name.partition("/")
            if folder in {"pending", "outcome"}:
                there.add(bytes.fromhex(leaf))
        lost = log.missing(there, self._pending)
        if lost:
            self._found(_lost(lost))
            if self._rollback is Rollback.ACCEPT:
                log.give_up(lost)

    def _pending(self) -> set[SnapshotId]:
        return list_pending(self._repo)

    def _found(self, findings: Iterable[str]) -> None:
        """Reports what was found, or keeps it where it was accepted.

        Raises `KeyRotated` where the key was rotated since the repository was opened: what is written under the new one
        cannot be read with the old one, and looks as if it were forged.
        """
        self._repo.require_newest()
        self.findings = tuple(dict.fromkeys((*self.findings, *findings)))
        if self._rollback is Rollback.REFUSE:
            raise HistoryChanged(self.findings, hint=HINT)

    # --- looking ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Logged]:
        """Returns every entry of every client that can be read, by time."""
        own = self._repo.recollection.client if self._repo.recollection is not None else b""
        return [_logged(entry, own) for entry in self.signed()]

    @property
    def accesses(self) -> AccessHistory:
        """What this client's access log says."""
        from respaldo.api.accessed import AccessHistory  # noqa: PLC0415 - start-up time

        return AccessHistory(self._repo)

    def signed(self) -> list[Entry]:
        """Returns the same entries as they were signed."""
        return self._repo.log.read_all() if self._repo.log is not None else []

    def head(self) -> str:
        """Returns how far the log goes, as a word to keep elsewhere: whoever has it can tell a rollback by it."""
        known = self._repo.log.follow().memory.known if self._repo.log else {}
        heads = [[client, item.number, item.hash[:_HASH_BYTES]] for client, item in sorted(known.items())]
        return encode_head(canonical.pack([1, self._repo.header.repository[:_HASH_BYTES], heads]))

    def survey(self) -> tuple[str, ...]:
        """Reads the log from its beginning; returns what is damaged, and what lacks, also where nobody has seen it.

        A client that cannot read looks at nothing. Raises `KeyRotated` as whatever else compares does.
        """
        log = self._repo.log
        if log is None or self._repo.runs is not None:
            return ()
        faults = survey_log(log).faults
        if faults:
            self._repo.require_newest()
        return tuple(f"{name}: {reason}" for name, reason in faults.items())

    def check(self, head: str) -> Checked:
        """Compares a head with what is there; raises `UsageError` for what is no head, or one of another repository.

        Raises `KeyRotated` as whatever else compares does.
        """
        repository, heads = parse_head(head)
        log = self._repo.log
        if repository != self._repo.header.repository:
            raise UsageError("this is the head of another repository", hint=f"of {repository.hex()}")
        findings = []
        for client, number, seen in heads:
            try:
                found = log.hash_at(client, number) if log else b""
            except Corruption as error:
                findings.append(f"entry {number} of client {client.hex()[:8]} cannot be read: {error.reason}")
                continue
            if not found:
                findings.append(f"entry {number} of client {client.hex()[:8]} is gone (the repository was rolled back)")
            elif found[:_HASH_BYTES] != seen:
                findings.append(f"entry {number} of client {client.hex()[:8]} is another one (the log was forked)")
        if findings:
            self._repo.require_newest()
        return Checked(findings=tuple(findings), clients=len(heads))


def require_readable(repo: Repo, catalogue: Catalogue) -> None:
    """Raises `KeyRotated` where what was listed cannot be read because the key was rotated since it was opened.

    What is left then is not what is there: it may be nothing, and the latest of it may be an old one.
    """
    if catalogue.damaged or catalogue.undecided:
        repo.require_newest()


def encode_head(raw: bytes) -> str:
    """Returns a head as a word of lower case letters and digits, with a checksum."""
    check = hashlib.sha256(raw).digest()[:_CHECK_BYTES]
    return _HEAD + base64.b32encode(raw + check).decode().rstrip("=").lower()


def parse_head(word: str) -> tuple[bytes, list[tuple[bytes, int, bytes]]]:
    """Returns the repository's id and (client, number, hash) of a head; raises `UsageError`."""
    wrong = UsageError("this is no head of a log", hint="a head is what `respaldo log head` prints, whole")
    text = "".join(word.split()).lower()
    if not text.startswith(_HEAD):
        raise wrong
    body = text.removeprefix(_HEAD).upper()
    try:
        data = base64.b32decode(body + "=" * (-len(body) % 8))
    except ValueError:  # what is no letter of base 32, and what is no letter at all
        raise wrong from None
    raw, check = data[:-_CHECK_BYTES], data[-_CHECK_BYTES:]
    if hashlib.sha256(raw).digest()[:_CHECK_BYTES] != check:
        raise wrong
    try:
        match canonical.unpack(raw, "head"):
            case [1, bytes(repository), list(heads)] if len(repository) == RANDOM_ID_BYTES:
                return repository, [_head(head) for head in heads]
    except (Corruption, ValueError):
        pass
    raise wrong


def _head(value: object) -> tuple[bytes, int, bytes]:
    match value:
        case [bytes(client), int(number), bytes(seen)] if len(client) == CLIENT_BYTES and len(seen) == _HASH_BYTES:
            return client, number, seen
    raise ValueError


def _lost(snapshots: Iterable[bytes]) -> list[str]:
    names = sorted(snapshot.hex()[:8] for snapshot in snapshots)
    if not names:
        return []
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    one = len(names) == 1
    text = (
        f"snapshot{'' if one else 's'} {', '.join(names[:_SHOWN])}{more} {'is' if one else 'are'} gone, "
        f"and nobody has forgotten {'it' if one else 'them'}"
    )
    return [text]


def _logged(entry: Entry, own: bytes) -> Logged:
    return Logged(
        client=entry.client.hex(),
        number=entry.number,
        time_ns=entry.time_ns,
        verb=entry.verb,
        snapshots=tuple(subject[:RANDOM_ID_BYTES].hex() for subject in entry.subjects),
        note=entry.note,
        own=entry.client == own,
    )
