"""Segments: two sessions that merge them, one that adds one, collectors that move a pack and sweep, and a reader.

Nothing is lost when a segment is: packs are listed and have footers. What must hold here is that nobody has to read
footers: every pack that a segment has listed stands in one that is there and that no other that is there supersedes.
And that a reader who meets what has vanished knows all packs in the end.

Packs: A and B are there and listed by a segment each; N is a new session's; K is what a collector moves A to. A
listing of segments is one step, each read of one is another.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.model.explore import Model, Steps

A, B, N, K = 1, 2, 4, 8
SEG_A, SEG_B, SEG_N, SEG_K, FIRST_MERGED, SECOND_MERGED = range(6)
SEGMENTS = 6
NAMES = ("SA", "SB", "SN", "SK", "M1", "M2")

PACKS, EXISTS, LISTED = 0, 1, 2
HOLDS, SUPERSEDES = 3, 3 + SEGMENTS
WRITER = 3 + 2 * SEGMENTS
MOVER = WRITER + 1
MERGERS = (MOVER + 1, MOVER + 6)
PC, STANDING, SEEN, CHOSEN, THERE = range(5)
SWEEPER = MERGERS[1] + 5
READER = SWEEPER + 4
LENGTH = READER + 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Says which rules are kept, and who acts."""

    durable_first: bool = True
    """What supersedes is put before what is superseded is deleted."""
    packs_after: bool = True
    """Packs are listed after the segments that are merged."""
    lists_again: bool = True
    """A reader lists again where a segment has vanished."""
    footers: bool = True
    """A reader reads the footers of packs that no segment lists."""
    actors: tuple[str, ...] = ("writer", "merger 1", "merger 2", "sweeper")


def initial() -> bytes:
    """Returns the state with two packs and their segments."""
    state = bytearray(LENGTH)
    state[PACKS] = state[LISTED] = A | B
    state[EXISTS] = 1 << SEG_A | 1 << SEG_B
    state[HOLDS + SEG_A], state[HOLDS + SEG_B] = A, B
    return bytes(state)


def wrong(state: bytes) -> str:
    """Says which pack stands in no segment that a new client would read."""
    if state[-1] == FAILED:
        return "the reader does not know a pack that is there"
    superseded = read = 0
    exists = state[EXISTS]
    for number in range(SEGMENTS):
        if exists >> number & 1:
            superseded |= state[SUPERSEDES + number]
    for number in range(SEGMENTS):
        if exists >> number & 1 and not superseded >> number & 1:
            read |= state[HOLDS + number]
    missing = state[PACKS] & state[LISTED] & ~read
    return f"{_packs(missing)} had a segment and stands in none" if missing else ""


FAILED = 99


def _packs(mask: int) -> str:
    return ", ".join(name for number, name in enumerate("ABNK") if mask >> number & 1) or "none"


def _segments(mask: int) -> str:
    return ", ".join(name for number, name in enumerate(NAMES) if mask >> number & 1) or "none"


def _put(after: bytearray, segment: int, packs: int, supersedes: int) -> None:
    after[EXISTS] |= 1 << segment
    after[HOLDS + segment] = packs
    after[SUPERSEDES + segment] = supersedes
    after[LISTED] |= packs


def writer(state: bytes, found: Steps) -> None:
    """Puts a pack, then its segment."""
    pc = state[WRITER]
    after = bytearray(state)
    after[WRITER] = pc + 1
    if pc == 0:
        after[PACKS] |= N
        found.append(("writer puts pack N", bytes(after)))
    elif pc == 1:
        _put(after, SEG_N, N, 0)
        found.append(("writer puts segment SN", bytes(after)))


def mover(state: bytes, found: Steps) -> None:
    """Copies A to K, lists that, deletes A."""
    pc = state[MOVER]
    after = bytearray(state)
    after[MOVER] = pc + 1
    if pc == 0:
        after[PACKS] |= K
        found.append(("mover puts pack K", bytes(after)))
    elif pc == 1:
        _put(after, SEG_K, K, 0)
        found.append(("mover puts segment SK", bytes(after)))
    elif pc == 2:
        after[PACKS] &= ~A
        found.append(("mover deletes pack A", bytes(after)))


class Merger:
    """Merges all that stand, of those that are still there. Its cache may be another session's, too."""

    def __init__(self, number: int, rules: Rules) -> None:
        self.at = MERGERS[number]
        self.made = FIRST_MERGED + number
        self.rules = rules
        self.name = f"merger {number + 1}"

    def __call__(self, state: bytes, found: Steps) -> None:
        at, pc = self.at, state[self.at]
        after = bytearray(state)
        after[at] = pc + 1
        if pc == 0:
            after[at + SEEN] = 0xFF if self.rules.packs_after else state[PACKS]
            found.append((f"{self.name} begins{'' if self.rules.packs_after else ', lists packs'}", bytes(after)))
        elif pc == 1:
            self._list(state, after, found)
        elif pc == 2:
            if self.rules.packs_after:
                after[at + SEEN] = state[PACKS]
            if state[at + CHOSEN] & ~state[EXISTS]:
                self._end(after)
                found.append((f"{self.name} does not find a segment, and gives up", bytes(after)))
                return
            found.append((f"{self.name} reads {_segments(state[at + CHOSEN])}, lists packs", bytes(after)))
        elif pc == 3:
            if not self.rules.durable_first:
                after[EXISTS] &= ~self._below(state)
                found.append((f"{self.name} deletes {_segments(self._below(state))}", bytes(after)))
            else:
                self._merge(state, after, found)
        elif pc == 4 and not self.rules.durable_first:
            self._merge(state, after, found)

    def _list(self, state: bytes, after: bytearray, found: Steps) -> None:
        superseded = 0
        for number in range(SEGMENTS):
            if state[EXISTS] >> number & 1:
                superseded |= state[SUPERSEDES + number]
        chosen = state[EXISTS] & ~superseded
        after[self.at + CHOSEN] = chosen
        after[self.at + THERE] = state[EXISTS]
        if chosen & chosen - 1:
            found.append((f"{self.name} lists segments, chooses {_segments(chosen)}", bytes(after)))

    def _below(self, state: bytes) -> int:
        """Returns what the merged one supersedes."""
        found = chosen = state[self.at + CHOSEN]
        for number in range(SEGMENTS):
            if chosen >> number & 1:
                found |= state[SUPERSEDES + number] & state[self.at + THERE]
        return found

    def _merge(self, state: bytes, after: bytearray, found: Steps) -> None:
        packs = 0
        for number in range(SEGMENTS):
            if state[self.at + CHOSEN] >> number & 1:
                packs |= state[HOLDS + number]
        packs &= state[self.at + SEEN]
        below = self._below(state)
        _put(after, self.made, packs, below)
        self._end(after)
        said = f"{self.name} puts {NAMES[self.made]} of {_packs(packs)} for {_segments(below)}"
        found.append((said, bytes(after)))

    def _end(self, after: bytearray) -> None:
        after[self.at : self.at + 5] = bytes((9, 0, 0, 0, 0))


def sweeper(state: bytes, found: Steps) -> None:
    """Lists segments, reads those that stand, deletes what they supersede; twice over."""
    pc = state[SWEEPER]
    after = bytearray(state)
    if pc in {0, 2}:
        after[SWEEPER] = pc + 1
        doomed = 0
        for number in range(SEGMENTS):
            if state[EXISTS] >> number & 1:
                doomed |= state[SUPERSEDES + number]
        after[SWEEPER + 1] = doomed & state[EXISTS]
        found.append((f"sweeper reads all segments: {_segments(after[SWEEPER + 1])} can go", bytes(after)))
        return
    if pc in {1, 3}:
        left = state[SWEEPER + 1] & state[EXISTS]
        if not left:
            after[SWEEPER], after[SWEEPER + 1] = pc + 1, 0
            found.append(("sweeper has done", bytes(after)))
        for number in range(SEGMENTS):
            if left >> number & 1:
                after = bytearray(state)
                after[EXISTS] &= ~(1 << number)
                found.append((f"sweeper deletes {NAMES[number]}", bytes(after)))


class Reader:
    """Lists packs, then segments; reads the longest first; passes over what is superseded by what it has read."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __call__(self, state: bytes, found: Steps) -> None:
        at, pc = READER, state[-1]
        after = bytearray(state)
        if pc == 0:
            after[at], after[-1] = state[PACKS], 1
            found.append((f"reader lists packs: {_packs(state[PACKS])}", bytes(after)))
        elif pc == 1:
            after[at + 1], after[at + 4], after[-1] = state[EXISTS] & ~state[at + 3], 0, 2
            found.append((f"reader lists segments: {_segments(state[EXISTS])}", bytes(after)))
        elif pc == 2:
            self._read(state, after, found)

    def _read(self, state: bytes, after: bytearray, found: Steps) -> None:
        at = READER
        superseded = 0
        for number in range(SEGMENTS):
            if state[at + 3] >> number & 1:
                superseded |= state[SUPERSEDES + number]
        waiting = state[at + 1] & ~superseded
        if waiting:
            number = waiting.bit_length() - 1  # merged ones are the longest
            after[at + 1] &= ~(1 << number)
            if state[EXISTS] >> number & 1:
                after[at + 2] |= state[HOLDS + number]
                after[at + 3] |= 1 << number
                found.append((f"reader reads {NAMES[number]}", bytes(after)))
            else:
                after[at + 4] = 1
                found.append((f"reader does not find {NAMES[number]}", bytes(after)))
            return
        if state[at + 4] and self.rules.lists_again:
            after[-1] = 1
            found.append(("reader lists again", bytes(after)))
            return
        known = state[at + 2] | (state[at] & state[PACKS] if self.rules.footers else 0)
        missing = state[at] & state[PACKS] & ~known
        after[READER:] = bytes(6)
        after[-1] = FAILED if missing else 3
        found.append((f"reader ends, and {'misses ' + _packs(missing) if missing else 'knows all'}", bytes(after)))


def build(rules: Rules) -> Model:
    """Returns the model."""
    actors = {
        "writer": writer,
        "mover": mover,
        "merger 1": Merger(0, rules),
        "merger 2": Merger(1, rules),
        "sweeper": sweeper,
        "reader": Reader(rules),
    }
    chosen = [actors[name] for name in rules.actors]
    return Model(initial=initial(), actors=chosen, wrong=wrong, shared=WRITER)
