"""The log of an area as its client has it: it adds entries, and reads none of an earlier session.

What it knows of its own chain and of its own runs tells it whether storage shows less than it did. Implements
docs/format.md, "Writing without reading".
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.format.runrecord import parse_run_name
from respaldo.store.again import look_again
from respaldo.store.following import Followed
from respaldo.store.logbook import Logbook
from respaldo.store.outcomes import outcome_name
from respaldo.store.recollection import Memory

_SHOWN = 3


class ClientLog(Logbook):
    """Is the log of one area for its client. One thread."""

    def follow(self, *, accept: bool = False) -> Followed:
        """Compares what is listed with this client's own entries and runs; the entries of others it cannot read."""
        memory, gone, findings = look_again(self._compare, is_whole=lambda found: not found[2])
        if findings and accept:
            self.give_up(gone)
            self._begin_anew()
        return Followed(memory=replace(memory, live=set()), findings=findings)

    def _compare(self) -> tuple[Memory, set[bytes], list[str]]:
        """Returns the memory, and what of it is not there: runs, and sentences."""
        memory = self.memory()
        findings: list[str] = []
        client = self.recollection.client
        known = memory.known.get(client)
        runs = {parse_run_name(name) for name in self._backend.names("runs")}
        gone = memory.live - runs
        if gone:
            names = ", ".join(sorted(run.hex()[:8] for run in gone)[:_SHOWN]) + (" …" if len(gone) > _SHOWN else "")
            findings.append(f"of this client's runs, {names} are gone, and the owner said nothing of it")
        last = max(self.listed().get(client, ()), default=-1)
        if known is not None and last < known.number:
            findings.append(f"of this client's log, entries {last + 1} to {known.number} are gone")
        return memory, gone, findings

    def _begin_anew(self) -> None:
        """Takes another identity: the chain of this one cannot be gone on with, since its end is not there."""
        with contextlib.suppress(OSError, Corruption), self.recollection.turn():
            memory = self.recollection.load()
            memory.known.pop(self.recollection.client, None)
            memory.tail.clear()
            memory.told.clear()
            memory.intent = b""
            self.recollection.save(memory)
            self.recollection.new_signer()

    def missing(self, there: object, again: object) -> set[bytes]:  # noqa: ARG002 - see `Follower.missing`
        """Returns nothing: what the owner has forgotten, this client does not know."""
        return set()

    def _is_said(self, memory: Memory, snapshot: bytes) -> bool:  # noqa: ARG002
        """Returns that it is not: what one process owes no other one says, since none can read the outcome."""
        return False

    def _is_committed(self, snapshot: bytes, pending_hash: bytes) -> bool:  # noqa: ARG002
        """Whether an outcome of an earlier session is known to say so: which it is not; raises where there is none."""
        if self._backend.exists(outcome_name(snapshot)) is None:
            raise ObjectMissing(outcome_name(snapshot))
        return False
