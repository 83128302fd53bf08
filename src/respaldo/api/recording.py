"""The access log: what was handed over to whom on this client, written down before it is handed over.

Invariant: unless it was said that it may be so, nothing is handed over that could not be written down. What began and
how it ended are two lines; an end that cannot be written fails nothing. See `respaldo.store.accesses`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from respaldo.codec.box import box_public, seal_box
from respaldo.core.errors import Interrupted, NotRecorded
from respaldo.core.seams import system_random
from respaldo.format.accesses import END, FIRST, PURPOSE, Access
from respaldo.store.accesses import AccessLog, Seal

if TYPE_CHECKING:
    from respaldo.core.seams import Clock
    from respaldo.format.header import Header
    from respaldo.store.recollection import Recollection
    from respaldo.store.repo import Repo

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


class Accesses:
    """Is the access log of this client for one open repository."""

    def __init__(self, repo: Repo, unrecorded: list[NotRecorded], *, required: bool) -> None:
        self._repo = repo
        self._required = required
        self._log = repo.recollection.access if repo.recollection is not None else None
        self._unrecorded = unrecorded
        """What was handed over without a line, because that was allowed."""

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
        seal = _sealing(box_public(self._repo.access_seeds[0]), self._repo.header)
        number = self._begin(log, seal, template)
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
                    _append(log, seal, self._end(template, number, ending))

    def _begin(self, log: AccessLog, seal: Seal, template: Access) -> int:
        try:
            return _append(log, seal, template)
        except OSError as error:
            refused = NotRecorded(str(log.path), error.strerror or str(error))
            if self._required:
                raise refused from None
            self._unrecorded.append(refused)
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


def note_failure(place: Recollection, header: Header, clock: Clock, target: bytes) -> None:
    """Writes down that a secret did not open a repository, where this client has opened it before."""
    public = place.access_key
    if public:
        template = replace(_template(clock, FAILED_UNLOCK), target=target, outcome="refused")
        with contextlib.suppress(OSError):
            _append(place.access, _sealing(public, header), template)


def _sealing(public: bytes, header: Header) -> Seal:
    def seal(message: bytes) -> bytes:
        return seal_box(
            public,
            purpose=PURPOSE,
            header_hash=header.hash,
            name="",
            message=message,
            random=system_random,
            suite=header.suite,
        )

    return seal


def _append(log: AccessLog, seal: Seal, template: Access) -> int:
    return log.append(seal, lambda number, previous: replace(template, number=number, previous=previous))


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
