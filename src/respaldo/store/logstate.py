"""What there is of a log: entries that can be read, objects that are damaged, entries that lack, and what is kept.

Every object is read, also what a later one repeats. Changes nothing but by `put_again` and `give_up`, which repairs
call. Numbers are what storage and others say: nothing here takes a time that grows with them. Implements
docs/format.md, "Log" and "Repair".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.format.logbook import ENTRIES_MAX, Entry, object_name, parse_entry
from respaldo.store.again import look_again
from respaldo.store.logbook import Logbook
from respaldo.store.logloss import LOST, Gap, Losses, subject_of
from respaldo.store.recollection import Known
from respaldo.store.several import read_several

_GAPS_AN_ENTRY: Final = 1024


@dataclass(slots=True, kw_only=True)
class LogState:
    """Is what was found.

    ``entries``: by client and number. ``damaged``: objects and what is wrong with them. ``gaps``: entries that no
    object holds, and of which nobody has said that they are lost; ``lost``: those of which somebody has. ``seen``: of
    entries in gaps, those that this client has kept.
    """

    entries: dict[bytes, dict[int, Entry]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)
    lost: list[Gap] = field(default_factory=list)
    seen: dict[tuple[bytes, int], Entry] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    """Public keys of clients, as far as they are known."""

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong: names of objects, and what with them."""
        found = dict(self.damaged)
        for gap in self.gaps:
            name, text = object_name(gap.client, gap.last), f"{gap} {gap.are} in no object"
            found[name] = f"{found[name]}; {text}" if name in found else text
        return found

    def runs(self, gap: Gap) -> Iterator[tuple[Gap, bool]]:
        """Yields the parts of a gap, and whether they are kept; none of more entries than an object may hold."""
        following = gap.first
        kept = sorted(number for client, number in self.seen if (client, number) in gap)
        while kept:
            if kept[0] > following:
                yield Gap(gap.client, following, kept[0] - 1), False
            length = next((n for n, number in enumerate(kept) if number != kept[0] + n), len(kept))
            length = min(length, ENTRIES_MAX)
            following = kept[length - 1] + 1
            yield Gap(gap.client, kept[0], following - 1), True
            kept = kept[length:]
        if following <= gap.last:
            yield Gap(gap.client, following, gap.last), False


def survey_log(log: Logbook) -> LogState:
    """Looks at a whole log, again where something seems wrong. Raises `StorageError` where storage as a whole fails."""
    return look_again(lambda: _survey(log), is_whole=lambda state: not state.faults)


def _survey(log: Logbook) -> LogState:
    state = LogState()
    memory = log.memory()
    last = {client: known.number for client, known in memory.known.items()}
    state.keys |= {client: known.key for client, known in memory.known.items()}
    listed = log.list_names()
    named = sorted((*place, name) for place, names in listed.items() for name in names)
    for (client, number, name), got in read_several(lambda item: log.read_object(item[2]), named):
        if isinstance(got, ObjectMissing):
            raise got
        if isinstance(got, Corruption):
            state.damaged[name] = got.reason
        else:
            last[client] = max(last.get(client, -1), number)
            state.entries.setdefault(client, {}).update({entry.number: entry for entry in got})
    for entry in [entry for entries in state.entries.values() for entry in entries.values()]:
        if entry.key:
            state.keys.setdefault(entry.client, entry.key)
        for head in entry.heads:
            last[head.client] = max(last.get(head.client, -1), head.number)
    for client, number in listed:
        # A name alone says that there was such an entry where it can be the next object of that client.
        if number <= last.get(client, -1) + ENTRIES_MAX:
            last[client] = max(last.get(client, -1), number)
    every = (entry for entries in state.entries.values() for entry in entries.values())
    losses = Losses(entry for entry in every if entry.verb == LOST and log.is_admin(entry))
    state.keys = losses.keys | state.keys
    for said in losses.gaps:
        last[said.client] = max(last.get(said.client, -1), said.last)
    for client, number in sorted(last.items()):
        for gap in _gaps(client, number, state.entries.get(client, {})):
            (state.lost if losses.has(gap.client, gap.first, gap.last) else state.gaps).append(gap)
        _check_chain(log, client, state, listed)
    if state.gaps:
        _remember(log, state)
    return state


def _gaps(client: bytes, last: int, entries: dict[int, Entry]) -> Iterator[Gap]:
    following = 0
    for number in [*sorted(entries), last + 1]:
        if number > following:
            yield Gap(client, following, number - 1)
        following = number + 1


def _check_chain(
    log: Logbook, client: bytes, state: LogState, listed: Mapping[tuple[bytes, int], Sequence[str]]
) -> None:
    """Checks every entry that is there and not only what is new: signatures, and that each follows the one before."""
    known: Known | None = None
    key = state.keys.get(client, b"")
    for number, entry in sorted(state.entries.get(client, {}).items()):
        if number > (known.number + 1 if known else 0):
            known = Known(number - 1, entry.previous, key)
        problem = log.problem(entry, known)
        if problem:
            for name in listed.get((client, number)) or [object_name(client, number)]:
                state.damaged.setdefault(name, problem)
        known = Known(number, entry.hash, key)


def _remember(log: Logbook, state: LogState) -> None:
    """Looks for what lacks among the entries that this client has kept; takes none that does not fit."""
    try:
        kept = log.recollection.seen()
    except OSError:
        return
    for data in kept:
        try:
            entry = parse_entry(data, "seen")
        except Corruption:
            continue
        place = entry.client, entry.number
        key = entry.key or state.keys.get(entry.client, b"")
        before = Known(entry.number - 1, entry.previous, key) if entry.number else None
        if any(place in gap for gap in state.gaps) and key and not log.problem(entry, before):
            state.seen[place] = entry
    for place in list(state.seen):  # what was kept of a history that was given up fits nothing that is there
        client, number = place
        following = state.entries.get(client, {}).get(number + 1) or state.seen.get((client, number + 1))
        if following is not None and following.previous != state.seen[place].hash:
            del state.seen[place]


def put_again(log: Logbook, state: LogState, gap: Gap) -> None:
    """Puts entries that were kept again, byte by byte, as an object."""
    entries = [state.seen[gap.client, number].encode() for number in range(gap.first, gap.last + 1)]
    log.put_object(object_name(gap.client, gap.last), entries)


def give_up(log: Logbook, state: LogState, gaps: Sequence[Gap]) -> bool:
    """Says in the log that entries are lost for good; returns whether that could be written."""
    for at in range(0, len(gaps), _GAPS_AN_ENTRY):
        part = gaps[at : at + _GAPS_AN_ENTRY]
        subjects = [subject_of(gap, state.keys.get(gap.client, b"")) for gap in part]
        if not log.append(LOST, subjects, note="; ".join(map(str, part))[:1000]):
            return False
    return True
