"""A collector: G3 to G6 as `respaldo.flows.gc` does them, for one choice of packs.

G1 and G2 are left out: they decide what is condemned and copy ahead. Here any choice is condemned and nothing was
copied ahead, so that all hangs on G5. Marks are chunks. A root's trees are read in one step, at which some may be gone.
"""

from __future__ import annotations

from tests.protocol.model.explore import Steps
from tests.protocol.model.world import (
    ABORT,
    COLLECTOR,
    COMMIT,
    ROOTS,
    SNAPSHOTS,
    UNDECIDED,
    WHOLE,
    C,
    D,
    T,
    World,
    chunk_names,
)

(
    CONDEMN,
    LIST_ROOTS,
    MARK,
    LIST_CONDEMNED,
    LIST_PACKS,
    READ,
    COPY,
    CONDEMN_LATE,
    DELETE,
    PUT_CONDEMNATION,
    PUT_NOTICE_LATE,
    ENDED,
) = range(12)
PC, ROOTS_AT, LENIENT, MARKED, CONDEMNED, WANTED, POSITION, VICTIMS = range(8)


class Collector:
    """Collects once. An instance is an actor."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rules = world.scope.rules
        self.number = number
        self.at = world.collector[number]
        self.copy = world.copies[number]
        self.name = f"collector {number + 1}"
        self.listings = world.snapshots * (2 if self.rules.g5_twice else 1)

    def __call__(self, state: bytes, found: Steps) -> None:
        pc = state[self.at]
        if pc != ENDED:
            self._ACTIONS[pc](self, state, found)

    def _say(self, found: Steps, what: str, after: bytearray, pc: int) -> None:
        if pc == DELETE and not after[self.at + VICTIMS] & after[self.world.exists]:
            pc = ENDED
        if pc == ENDED:
            for offset in range(self.at, self.at + COLLECTOR):
                after[offset] = 0
        after[self.at] = pc
        found.append((f"{self.name} {what}", bytes(after)))

    # --- G3 --------------------------------------------------------------------------------------------------------

    def _condemn(self, state: bytes, found: Steps) -> None:
        world = self.world
        there = state[world.exists] & world.scope.victims[self.number]
        victims = there
        while victims:
            after = bytearray(state)
            after[self.at + VICTIMS] = victims
            said = f"chooses {world.names_of(victims)}"
            pc = LIST_ROOTS if self.rules.g5 else DELETE
            if world.scope.blind and self.rules.notice_first:
                after[world.noticed] |= 1 << self.number
                said = f"puts a notice of {world.names_of(victims)} (G3)"
                pc = PUT_CONDEMNATION
            elif self.rules.condemned_first:
                after[world.condemned + self.number] = victims
                said = f"condemns {world.names_of(victims)} (G3)"
            self._say(found, said, after, pc)
            victims = victims - 1 & there

    def _put_condemnation(self, state: bytes, found: Steps) -> None:
        """Condemns what a notice says that it will condemn, of what is still there."""
        after = bytearray(state)
        victims = state[self.at + VICTIMS] & state[self.world.exists]
        after[self.world.condemned + self.number] = victims
        self._say(found, f"condemns {self.world.names_of(victims)} (G3)", after, LIST_ROOTS)

    def _put_notice_late(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        after[self.world.noticed] |= 1 << self.number
        self._say(found, "puts the notice only now", after, DELETE)

    def _condemn_late(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        after[self.world.condemned + self.number] = state[self.at + VICTIMS] & state[self.world.exists]
        self._say(found, "condemns only now", after, DELETE)

    # --- G5 --------------------------------------------------------------------------------------------------------

    def _list_roots(self, state: bytes, found: Steps) -> None:
        """Looks at names of a listing of manifests. Newest first: so one may miss a new one and what it is from.

        Names about which nothing can change any more are looked at together with the one before them.
        """
        world, at, after = self.world, self.at, bytearray(state)
        position = state[at + POSITION]
        seen = []
        while True:
            snapshot = world.snapshots - 1 - position % world.snapshots
            if self._sees(after, snapshot):
                seen.append(SNAPSHOTS[snapshot])
            position += 1
            if position == self.listings or not self._stands(state, world.snapshots - 1 - position % world.snapshots):
                break
        after[at + POSITION] = position
        pc = MARK if position == self.listings else LIST_ROOTS
        said = f"lists manifests, up to {SNAPSHOTS[snapshot]} of listing {1 + (position - 1) // world.snapshots},"
        self._say(found, f"{said} and sees {', '.join(seen) or 'none'} (G5)", after, pc)

    def _sees(self, after: bytearray, snapshot: int) -> bool:
        """Looks at one name; returns whether it is a root."""
        world, at = self.world, self.at
        bit, outcome = 1 << snapshot, after[world.outcome + snapshot]
        if not after[world.pending] & bit or outcome == ABORT:
            return False
        if outcome == COMMIT:
            after[at + LENIENT] &= ~bit
        elif not self.rules.undecided_are_roots:
            return False
        elif not after[at + ROOTS_AT] & bit:
            after[at + LENIENT] |= bit
        after[at + ROOTS_AT] |= bit
        return True

    def _stands(self, state: bytes, snapshot: int) -> bool:
        """Whether nothing can change any more that a listing shows of a snapshot."""
        world, bit = self.world, 1 << snapshot
        if state[world.forgotten] & bit:
            return not state[world.pending] & bit
        return state[world.outcome + snapshot] == COMMIT and not world.scope.forget & bit

    def _again(self, found: Steps, said: str, state: bytes, *, marks: int = 0) -> None:
        """Begins G5 again."""
        after = bytearray(state)
        for offset in (ROOTS_AT, LENIENT, CONDEMNED, WANTED, POSITION):
            after[self.at + offset] = 0
        after[self.at + MARKED] = marks
        self._say(found, f"{said} and begins again (G5)", after, LIST_ROOTS)

    def _mark(self, state: bytes, found: Steps) -> None:
        """Reads manifest and trees of one root."""
        world, at = self.world, self.at
        roots = state[at + ROOTS_AT]
        if not roots:
            self._list_condemned(state, found)
            return
        snapshot = (roots & -roots).bit_length() - 1
        bit, name = 1 << snapshot, SNAPSHOTS[snapshot]
        there, marked = world.there(state), state[at + MARKED]
        reached = self._reach(snapshot, there)
        after = bytearray(state)
        after[at + ROOTS_AT] = roots & ~bit
        if not state[world.pending] & bit:
            if not self.rules.g5_again:
                self._say(found, f"passes over {name}, whose manifest is gone", after, MARK)
                return
            self._again(found, f"does not find the manifest of {name}", state, marks=marked)
            if state[at + LENIENT] & bit:
                return  # what is not decided is not in the cache
            if reached != WHOLE[snapshot]:
                self._again(found, f"knows {name} but not all that is in it is there,", state)
                return
        elif not state[at + LENIENT] & bit and reached != WHOLE[snapshot]:
            self._say(found, f"finds that {name} is not whole, and ends", after, ENDED)
            return
        after[at + MARKED] |= reached
        self._say(found, f"marks {chunk_names(reached)} for {name}", after, MARK)

    @staticmethod
    def _reach(snapshot: int, there: int) -> int:
        """Returns what can be reached: nothing below what is not there."""
        reached = there & ROOTS[snapshot]
        if reached:
            reached |= there & (T | C)
            if reached & T:
                reached |= there & D
        return reached

    def _list_condemned(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        own = state[self.at + VICTIMS]
        condemned = own | (self.world.all_condemned(state) if self.rules.g5_all_condemnations else 0)
        after[self.at + CONDEMNED] = condemned
        after[self.at + POSITION] = after[self.at + LENIENT] = 0
        said = f"lists condemnations: {self.world.names_of(condemned)} (G5)"
        self._say(found, said, after, LIST_PACKS)

    def _list_packs(self, state: bytes, found: Steps) -> None:
        world, at, after = self.world, self.at, bytearray(state)
        marked, condemned = state[at + MARKED], state[at + CONDEMNED]
        after[at + MARKED] = after[at + CONDEMNED] = 0
        wanted = marked & ~world.there(state, condemned)
        if wanted & ~world.there(state):
            self._again(found, "sees that what it had marked was moved", state)
            return
        after[at + WANTED] = wanted
        end = self._end()
        said = f"lists packs; to be copied: {chunk_names(wanted)} (G5)"
        self._say(found, said, after, READ if wanted else end)

    def _read(self, state: bytes, found: Steps) -> None:
        if state[self.at + WANTED] & ~self.world.there(state):
            self._again(found, "does not find what it wants to copy", state)
            return
        self._say(found, f"reads {chunk_names(state[self.at + WANTED])}", bytearray(state), COPY)

    def _copy(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        chunks = state[self.at + WANTED]
        self.world.put_pack(after, self.copy, chunks)
        after[self.at + WANTED] = 0
        said = f"puts pack {self.world.pack_names[self.copy]} with {chunk_names(chunks)} (G5)"
        self._say(found, said, after, self._end())

    def _end(self) -> int:
        """Returns what comes after the last look."""
        if not self.rules.condemned_first:
            return CONDEMN_LATE
        return DELETE if self.rules.notice_first else PUT_NOTICE_LATE

    # --- G6 --------------------------------------------------------------------------------------------------------

    def _delete(self, state: bytes, found: Steps) -> None:
        world = self.world
        left = state[self.at + VICTIMS] & state[world.exists]
        for pack in range(world.packs):
            if left >> pack & 1:
                after = bytearray(state)
                world.delete_pack(after, pack)
                self._say(found, f"deletes {world.pack_names[pack]} (G6)", after, DELETE)

    _ACTIONS = (
        _condemn,
        _list_roots,
        _mark,
        _list_condemned,
        _list_packs,
        _read,
        _copy,
        _condemn_late,
        _delete,
        _put_condemnation,
        _put_notice_late,
    )


def undecided(state: bytes, world: World, snapshot: int) -> bool:
    """Whether a snapshot is pending and has no outcome."""
    return bool(state[world.pending] >> snapshot & 1) and state[world.outcome + snapshot] == UNDECIDED
