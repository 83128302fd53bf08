"""What entries of the log change in what a client remembers: what is to be there, and which clients are removed.

Entries come in the order of their own log each; those of several clients in any. Implements docs/format.md, "Log".
"""

from __future__ import annotations

from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.format.enrolment import Removal
from respaldo.format.logbook import CLIENT_BYTES, Entry
from respaldo.store.recollection import Memory


def apply_commit(memory: Memory, entry: Entry) -> None:
    """Remembers snapshots that were committed."""
    for subject in entry.subjects:
        snapshot = subject[:RANDOM_ID_BYTES]
        memory.owed.pop(snapshot, None)
        if snapshot in memory.gone:
            memory.gone.discard(snapshot)
        else:
            memory.live.add(snapshot)


def apply_forget(memory: Memory, entry: Entry) -> None:
    """Remembers snapshots that were forgotten."""
    for snapshot in entry.subjects:
        if snapshot in memory.live:
            memory.live.discard(snapshot)
        else:
            memory.gone.add(snapshot)


def apply_removal(memory: Memory, entry: Entry) -> None:
    """Remembers that a client was removed; of several entries about it, a run counts that any names."""
    client, joined = b"".join(entry.subjects[:1]), b"".join(entry.subjects[1:])
    if len(client) != CLIENT_BYTES or len(joined) % RANDOM_ID_BYTES:
        return
    runs = {joined[at : at + RANDOM_ID_BYTES] for at in range(0, len(joined), RANDOM_ID_BYTES)}
    known = memory.removed.get(client)
    time_ns = entry.time_ns if known is None else min(known.time_ns, entry.time_ns)
    memory.removed[client] = Removal(
        client=client, time_ns=time_ns, runs=frozenset(runs | known.runs if known else runs)
    )
