"""The access log: what was handed over to whom on this client, written down before it is handed over.

Invariant: unless it was said that it may be so, nothing is handed over that could not be written down. What began and
how it ended are two lines; an end that cannot be written fails nothing. See `respaldo.store.accesses`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from respaldo.codec import boxes
from respaldo.core.errors import Corruption, Interrupted, NotRecorded, UsageError
from respaldo.format.accesses import END, FIRST, Access, parse_access
from respaldo.store.accesses import DROP, DROP_BYTES_MIN, AccessLog, Reading, gone

if TYPE_CHECKING:
    from respaldo.core.seams import Clock
    from respaldo.format.logbook import Entry
    from respaldo.store.repo import Repo

ACCEPT: Final = "accept"
"""The verb of an entry of the signed log that says that what lacks until then is known to lack."""
FAILED_UNLOCK: Final = "failed unlock"
_OUTCOMES: Final = {0: "done", 3: "incomplete", 4: "damaged"}
_NOTE_MAX: Final = 500
_NOBODY: Final = 0xFFFFFFFF


@dataclass(slots=True)
class Ending:
    """Is filled in by what is recorded, while it goes on: how it ends, and how much was handed over."""

    outcome: str = "done"
    length_bytes: int = 0
    note: str = ""

    def take(self, exit_status: int, length_bytes: int = 0) -> None:
        """Says so by an exit status."""
        self.outcome = _OUTCOMES.get(exit_status, "failed")
        self.length_bytes = length_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Accessed:
    """Is an access, with how it ended.

    ``outcome``: done, incomplete, damaged, failed, interrupted, refused (a wrong secret), or unfinished, where no end
    was written: it goes on, or was killed. Ids in hex; ``count``: of snapshots, of which at most 64 are named.
    """

    number: int
    time_ns: int
    verb: str
    host: str
    uid: int
    user: str
    login: str
    pid: int
    key: str
    snapshots: tuple[str, ...]
    count: int
    paths: tuple[bytes, ...]
    target: bytes
    note: str
    outcome: str
    ended_ns: int | None
    length_bytes: int


class Accesses:
    """Is the access log of this client for one open repository."""

    def __init__(self, repo: Repo, *, required: bool) -> None:
        self._repo = repo
        self._required = required
        self._log = repo.log.recollection.access if repo.log is not None else None
        self._seeds = (repo.ring.access_seed,)
        self._public = boxes.public_of(self._seeds[0])
        self.unrecorded: list[NotRecorded] = []
        """What was handed over without a line, because that was allowed."""
        if self._log is not None:
            self._log.remember(self._public)

    # --- writing ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recorded(
        self,
        verb: str,
        *,
        snapshots: Sequence[bytes] = (),
        paths: Sequence[bytes] = (),
        target: bytes = b"",
        note: str = "",
    ) -> Iterator[Ending]:
        """Writes down what is about to be handed over, and afterwards how that ended; raises `NotRecorded`."""
        log = self._log
        ending = Ending()
        if log is None:
            yield ending
            return
        template = replace(
            _template(self._repo.clock, verb),
            key=self._repo.slot.rpartition("/")[2],
            snapshots=tuple(snapshots),
            count=len(snapshots),
            paths=tuple(paths),
            target=target,
            note=note,
        )
        number = self._begin(log, template)
        try:
            yield ending
        except BaseException as error:
            is_stop = isinstance(error, Interrupted | KeyboardInterrupt | GeneratorExit)
            ending.outcome = "interrupted" if is_stop else "failed"
            ending.note = ending.note or str(error)[:_NOTE_MAX]
            raise
        finally:
            if number:
                with contextlib.suppress(OSError):
                    _append(log, self._public, self._end(template, number, ending))

    def _begin(self, log: AccessLog, template: Access) -> int:
        try:
            return _append(log, self._public, template)
        except OSError as error:
            refused = NotRecorded(str(log.path), error.strerror or str(error))
            if self._required:
                raise refused from None
            self.unrecorded.append(refused)
            return 0

    def _end(self, template: Access, number: int, ending: Ending) -> Access:
        return replace(
            template,
            time_ns=self._repo.clock.now_ns(),
            verb=END,
            snapshots=(),
            count=0,
            paths=(),
            target=b"",
            of=number,
            outcome=ending.outcome,
            length_bytes=ending.length_bytes,
            note=ending.note,
        )

    # --- looking ---------------------------------------------------------------------------------------------------

    def entries(self) -> list[Accessed]:
        """Returns all accesses that can be read, the oldest first, each with how it ended."""
        found: dict[int, Accessed] = {}
        for access in self._opened(self._read())[0]:
            if access.verb != END:
                found[access.number] = _accessed(access)
            elif access.of in found:
                found[access.of] = replace(
                    found[access.of],
                    outcome=access.outcome,
                    ended_ns=access.time_ns,
                    length_bytes=access.length_bytes,
                    note=found[access.of].note or access.note,
                )
        return [item for item in found.values() if item.verb != DROP]

    def check(self, entries: Collection[Entry]) -> tuple[list[str], list[str]]:
        """Compares what is there with what this client has signed; returns findings, and what is worth knowing.

        ``entries``: the signed log's, of all clients. Of the others, whether their logs ever became shorter.
        """
        reading = self._read()
        opened, findings = self._opened(reading)
        findings += reading.findings
        own = self._repo.log.recollection.client if self._repo.log is not None else b""
        by_client: dict[bytes, list[Entry]] = {}
        for entry in entries:
            by_client.setdefault(entry.client, []).append(entry)
        first = max((access.of for access in opened if _is_drop(access, reading)), default=0) + 1
        known = {line.number: line.hash for line in reading.lines}
        if known and (least := min(known)) > first:
            findings.append((least, gone(first, least - 1)))
        accepted = 0
        shorter: list[str] = []
        for client, items in sorted(by_client.items()):
            items.sort(key=lambda entry: entry.number)
            start = max((place for place, entry in enumerate(items) if entry.verb == ACCEPT), default=0)
            shorter += _shortened(client, items[start:])
            if client == own:
                if items[start].verb == ACCEPT:
                    accepted = items[start].access[0]
                findings += _unlike_signed(items[start:], known, first)
        found = [text for number, text in sorted(set(findings)) if number > accepted]
        notes = [
            f"behind line {number} of the access log lies a line that was cut off or changed, as a crash leaves it"
            for number in reading.torn
        ]
        return [*dict.fromkeys(found), *shorter], notes

    def accept(self, findings: Sequence[str]) -> None:
        """Says in the signed log that what was found is known: it is not found again."""
        if self._repo.log is not None:
            note = "; ".join(findings)
            self._repo.announce(ACCEPT, note=note.encode()[:_NOTE_MAX].decode("utf-8", "ignore"))

    def _read(self) -> Reading:
        if self._log is None:
            return Reading()
        try:
            return self._log.read()
        except OSError as error:
            raise UsageError(f"the access log cannot be read: {self._log.folder} ({error.strerror})") from None

    def _opened(self, reading: Reading) -> tuple[list[Access], list[tuple[int, str]]]:
        """Opens all lines; returns what is in them, and those that do not open."""
        found, findings = [], []
        for line in reading.lines:
            what = f"line {line.number} of the access log"
            for seed in self._seeds:
                try:
                    found.append(parse_access(boxes.unseal(seed, line.box, what), line, what))
                    break
                except Corruption as error:
                    reason = error.reason
            else:
                findings.append((line.number, f"{what} cannot be read: {reason}"))
        return found, findings


def _is_drop(access: Access, reading: Reading) -> bool:
    """Whether a line says with reason that old ones are kept no longer: as much as is kept must lie between."""
    if access.verb != DROP:
        return False
    between = (line for line in reading.lines if access.of < line.number < access.number)
    return sum(len(line.encode()) for line in between) >= DROP_BYTES_MIN


def note_failure(log: AccessLog, clock: Clock, target: bytes) -> None:
    """Writes down that a secret did not open a repository, where this client has opened it before."""
    public = log.public
    if public:
        template = replace(_template(clock, FAILED_UNLOCK), target=target, outcome="refused")
        with contextlib.suppress(OSError):
            _append(log, public, template)


def _append(log: AccessLog, public: bytes, template: Access) -> int:
    return log.append(public, lambda number, previous: replace(template, number=number, previous=previous))


def _template(clock: Clock, verb: str) -> Access:
    uid = os.getuid()
    return Access(
        number=1,
        previous=FIRST,
        time_ns=clock.now_ns(),
        verb=verb,
        host=os.uname().nodename,
        uid=uid,
        user=_name(uid),
        login=_login(),
        pid=os.getpid(),
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _login() -> str:
    """Returns who logged in, which outlasts sudo and su; empty where the system does not keep it."""
    try:
        with open("/proc/self/loginuid", encoding="ascii") as file:
            uid = int(file.read())
    except (OSError, ValueError):
        return ""
    return "" if uid == _NOBODY else _name(uid)


def _accessed(access: Access) -> Accessed:
    return Accessed(
        number=access.number,
        time_ns=access.time_ns,
        verb=access.verb,
        host=access.host,
        uid=access.uid,
        user=access.user,
        login=access.login,
        pid=access.pid,
        key=access.key,
        snapshots=tuple(snapshot.hex() for snapshot in access.snapshots),
        count=access.count,
        paths=access.paths,
        target=access.target,
        note=access.note,
        outcome=access.outcome or "unfinished",
        ended_ns=None,
        length_bytes=0,
    )


def _shortened(client: bytes, entries: Sequence[Entry]) -> list[str]:
    """Returns where a client's entries say less of its access log than the ones before."""
    return [
        f"the access log of client {client.hex()[:8]} had {before.access[0]} lines in its entry {before.number} "
        f"and {after.access[0]} in entry {after.number}"
        for before, after in itertools.pairwise(entries)
        if after.access[0] < before.access[0]
        or (after.access[0] == before.access[0] and after.access[1] != before.access[1])
    ]


def _unlike_signed(entries: Sequence[Entry], known: dict[int, bytes], first: int) -> Iterator[tuple[int, str]]:
    """Yields what this client's entries have signed and is not there; lines below ``first`` are kept no longer."""
    last = max(known, default=first - 1)
    longest = max(entries, key=lambda entry: entry.access[0], default=None)
    if longest is not None and longest.access[0] > last:
        text = f"{gone(last + 1, longest.access[0])}, which entry {longest.number} of this client's log has signed"
        yield longest.access[0], text
    for entry in entries:
        number, digest = entry.access
        if first <= number <= last and number in known and known[number] != digest:
            yield number, f"line {number} of the access log is not the one that entry {entry.number} has signed"
