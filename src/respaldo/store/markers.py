"""Session markers: which sessions say that they are alive.

Advisory: a marker that lies, or whose clock is wrong, costs space or time and never a snapshot. Implements
docs/format.md, "Markers".
"""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import parse_random_leaf
from respaldo.format.snapshot import RECORD_BYTES_MAX, parse_marker
from respaldo.store.repo import Repo

DAY_NS = 24 * 3600 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Markers:
    """Is what a listing of markers showed: sessions that are alive, and the names of markers of those that are not."""

    alive: frozenset[bytes]
    stale: tuple[str, ...]


def read_markers(repo: Repo) -> Markers:
    """Reads all markers. One that cannot be read speaks for a session that is alive, since nobody knows its time.

    A session is alive that says so by this client's clock, or whose marker arrived within a day by the storage's: of
    two clocks one may be wrong. A time that lies more than a day ahead is as wrong as one that is long past.
    """
    times: dict[bytes, int] = {}
    names: dict[bytes, list[str]] = {}
    unknown: set[bytes] = set()
    now_ns = repo.clock.now_ns()
    for name, _ in repo.backend.list("sessions"):
        session = parse_random_leaf(name.partition("/")[2].partition(".")[0])
        if session is None:
            continue
        try:
            data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
            marker = parse_marker(repo.vault.open_record("marker", name, data), name)
        except ObjectMissing:
            continue
        except Corruption:
            unknown.add(session)
            continue
        names.setdefault(session, []).append(name)
        times[session] = max(times.get(session, marker.time_ns), marker.time_ns)
    alive = unknown | {session for session, time_ns in times.items() if abs(now_ns - time_ns) < DAY_NS}
    if names.keys() - alive:
        storage_now_ns, arrivals = repo.backend.now_ns(), repo.backend.arrivals("sessions")
        if storage_now_ns is not None:
            arrived = {name for name, time_ns in arrivals.items() if abs(storage_now_ns - time_ns) < DAY_NS}
            alive |= {session for session, found in names.items() if not arrived.isdisjoint(found)}
    stale = [name for session, found in names.items() if session not in alive for name in found]
    return Markers(alive=frozenset(alive), stale=tuple(stale))
