"""The access log as people and programs see it: what was handed over, how it ended, and whether all of it is there.

Compares this client's lines with what its entries in the signed log say of them. Changes nothing, but that a loss that
is known is said in the signed log. See `respaldo.store.accesses`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from respaldo.codec.box import open_box
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.format.accesses import END, PURPOSE, Access, Line, parse_access
from respaldo.store.accesses import DROP, DROP_BYTES_MIN, Reading, gone

if TYPE_CHECKING:
    from respaldo.format.logbook import Entry
    from respaldo.store.repo import Repo

ACCEPT: Final = "accept"
"""The verb of an entry of the signed log that says that what lacks until then is known to lack."""
_NOTE_MAX: Final = 500


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


class AccessHistory:
    """Is what this client's access log of one open repository says."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._log = repo.recollection.access if repo.recollection is not None else None

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
        opened, unread = self._opened(reading)
        findings = list(reading.findings)
        own = self._repo.recollection.client if self._repo.recollection is not None else b""
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
        signed = max((entry.access[0] for entry in by_client.get(own, ()) if _is_signed(entry, known)), default=0)
        findings += [item for item in unread if item[0] > signed]
        found = [text for number, text in sorted(set(findings)) if number > accepted]
        # Of what was signed the hash says that it is as it was; a key that was retired opens it no more.
        notes = [text for number, text in unread if number <= signed]
        notes += [
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
            raise RespaldoError(f"the access log cannot be read: {self._log.folder} ({error.strerror})") from None

    def _opened(self, reading: Reading) -> tuple[list[Access], list[tuple[int, str]]]:
        """Opens all lines; returns what is in them, and those that do not open."""
        found, failures = [], []
        for line in reading.lines:
            try:
                found.append(self._open(line))
            except Corruption as error:
                failures.append((line.number, f"{error.name} cannot be read: {error.reason}"))
        return found, failures

    def _open(self, line: Line) -> Access:
        what = f"line {line.number} of the access log"
        header = self._repo.header
        for seed in self._repo.access_seeds:
            with contextlib.suppress(Corruption):
                box = open_box(seed, line.box, purpose=PURPOSE, header_hash=header.hash, name="", suite=header.suite)
                return parse_access(box, line, what)
        raise Corruption(what, "it was changed, belongs to another line, or was sealed to another key")


def _is_signed(entry: Entry, known: dict[int, bytes]) -> bool:
    number, digest = entry.access
    return known.get(number) == digest


def _is_drop(access: Access, reading: Reading) -> bool:
    """Whether a line says with reason that old ones are kept no longer: as much as is kept must lie between."""
    if access.verb != DROP:
        return False
    between = (line for line in reading.lines if access.of < line.number < access.number)
    return sum(len(line.encode()) for line in between) >= DROP_BYTES_MIN


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
