"""A writer: W1 to W5 as `respaldo.catalog.session` does them, one snapshot, once.

What it relies on is noted by chunk: in which pack it was found or put. A chunk of a subtree that was taken over unread
is not noted at all.
"""

from __future__ import annotations

from tests.protocol.model.explore import Steps
from tests.protocol.model.world import (
    ABORT,
    COMMIT,
    NOBODY,
    ROOTS,
    SNAPSHOTS,
    UNDECIDED,
    WHOLE,
    WRITER_ENDED,
    C,
    D,
    T,
    World,
    chunk_names,
)

(
    LIST_SNAPSHOTS,
    LIST_CONDEMNED,
    LIST_PACKS,
    PUT_PACK,
    PUT_PENDING,
    LOOK_FOR_BASE,
    LIST_CONDEMNED_AGAIN,
    LIST_PACKS_AGAIN,
    LIST_OLD_PACKS_AGAIN,
    READ,
    PUT_AGAIN,
    PUT_COMMIT,
    PUT_ABORT,
    _,
) = range(14)
ENDED = WRITER_ENDED
PC, CONDEMNED, BASE, AT_ROOT, AT_T, AT_D, AT_C, WANTED, GOT, MENDS, WHOLE_AT, SEEN = range(12)
_AT = ((T, AT_T), (D, AT_D), (C, AT_C))


class Writer:
    """Makes snapshot ``number`` (1 or 2). An instance is an actor."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.rules = world.scope.rules
        self.number = number
        self.bit = 1 << number
        self.root = ROOTS[number]
        self.whole = WHOLE[number]
        self.at = world.writer[number - 1]
        self.places = ((self.root, AT_ROOT), *_AT)
        self.own = world.own[number - 1]
        self.own_mask = sum(1 << pack for pack in self.own)
        self.copies = sum(1 << pack for pack in world.copies)
        self.name = f"writer {number}"
        rules = self.rules
        self.first_look = (
            LOOK_FOR_BASE
            if rules.w4_subtrees
            else LIST_CONDEMNED_AGAIN
            if rules.w4_condemnations_first
            else LIST_PACKS_AGAIN
        )

    def __call__(self, state: bytes, found: Steps) -> None:
        pc = state[self.at]
        if pc != ENDED:
            self._ACTIONS[pc](self, state, found)

    def _say(self, found: Steps, what: str, after: bytearray, pc: int) -> None:
        if pc == ENDED:
            for offset in range(self.at, self.at + 12):
                after[offset] = 0
        after[self.at] = pc
        found.append((f"{self.name} {what}", bytes(after)))

    # --- W1, W2, W3 ------------------------------------------------------------------------------------------------

    def _list_snapshots(self, state: bytes, found: Steps) -> None:
        """Decides what the subtree is taken over from; the second writer may have to wait for the first."""
        world = self.world
        if world.scope.follows and self.number == 2 and state[world.outcome + 1] != COMMIT:
            return
        bases = [
            base
            for base in range(self.number)
            if state[world.pending] >> base & 1 and state[world.outcome + base] == COMMIT
        ]
        for base in (bases if world.scope.takes_over else ()) or (NOBODY,):
            after = bytearray(state)
            after[self.at + BASE] = base
            said = "looks all up" if base == NOBODY else f"takes T over from {SNAPSHOTS[base]}"
            self._say(found, f"lists snapshots, {said} (W1)", after, LIST_CONDEMNED)

    def _list_condemned(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        after[self.at + CONDEMNED] = self.world.condemned_to_writers(state)
        self._say(found, "lists condemnations (W1)", after, LIST_PACKS)

    def _list_packs(self, state: bytes, found: Steps) -> None:
        """Lists packs, and decides what is relied on: nobody sees anything of it before W2."""
        world, at = self.world, self.at
        condemned = state[at + CONDEMNED]
        usable = state[world.exists] & ~condemned
        choices = [bytearray(state)]
        for chunk, place in _AT if state[at + BASE] == NOBODY else ((C, AT_C),):
            packs = [pack for pack in range(world.packs) if usable >> pack & 1 and state[world.content + pack] & chunk]
            fresh = []
            for choice in choices:
                for pack in packs or (self.own[0],):
                    fresh.append(bytearray(choice))
                    fresh[-1][at + place] = 1 + pack
            choices = fresh
        for after in choices:
            after[at + AT_ROOT] = 1 + self.own[0]
            after[at + CONDEMNED] = 0
            whole = self.rules.w1_condemned and state[at + BASE] != NOBODY and condemned & state[world.exists]
            after[at + WHOLE_AT] = bool(whole)
            relied = sum({1 << after[at + place] - 1 for _, place in _AT if after[at + place]}) & ~self.own_mask
            said = f"lists packs, relies on {world.names_of(relied)}{', will look all up' if whole else ''} (W1)"
            self._say(found, said, after, PUT_PACK)

    def _put_pack(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        chunks = sum(chunk for chunk, place in self.places if state[self.at + place] == 1 + self.own[0])
        self.world.put_pack(after, self.own[0], chunks)
        pc = PUT_PENDING if self.rules.manifest_before_w4 else self._look(state)
        self._say(found, f"puts pack {self.world.pack_names[self.own[0]]} with {chunk_names(chunks)} (W2)", after, pc)

    def _put_pending(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        after[self.world.pending] |= self.bit
        pc = self._look(state) if self.rules.w4 and self.rules.manifest_before_w4 else PUT_COMMIT
        self._say(found, "puts its manifest (W3)", after, pc)

    # --- W4 --------------------------------------------------------------------------------------------------------

    def _look(self, state: bytes | bytearray) -> int:
        """Returns where a round begins."""
        if state[self.at + BASE] == NOBODY and self.first_look == LOOK_FOR_BASE:
            return LIST_CONDEMNED_AGAIN if self.rules.w4_condemnations_first else LIST_PACKS_AGAIN
        return self.first_look

    def _look_for_base(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        there = state[self.world.pending] >> state[self.at + BASE] & 1
        if not there:
            after[self.at + WHOLE_AT] = 1
        pc = LIST_CONDEMNED_AGAIN if self.rules.w4_condemnations_first else LIST_PACKS_AGAIN
        said = f"sees {'' if there else 'no '}manifest of what it took T over from (W4)"
        self._say(found, said, after, pc)

    def _list_condemned_again(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        condemned = self.world.condemned_to_writers(state) if self.rules.w4_condemnations else 0
        said = f"lists condemnations: {self.world.names_of(condemned)} (W4)"
        if self.rules.w4_condemnations_first:
            after[self.at + CONDEMNED] = condemned
            self._say(found, said, after, LIST_PACKS_AGAIN)
        else:
            self._judge(state, found, said, state[self.at + SEEN], condemned)

    def _list_packs_again(self, state: bytes, found: Steps) -> None:
        exists = state[self.world.exists] if self.rules.w4_packs else 0xFF
        if self.world.scope.torn_packs:
            after = bytearray(state)
            after[self.at + SEEN] = exists & self.copies
            self._say(found, "lists one half of the packs (W4)", after, LIST_OLD_PACKS_AGAIN)
        elif self.rules.w4_condemnations_first:
            said = f"lists packs: {self.world.names_of(exists)} (W4)"
            self._judge(state, found, said, exists, state[self.at + CONDEMNED])
        else:
            after = bytearray(state)
            after[self.at + SEEN] = exists
            self._say(found, f"lists packs: {self.world.names_of(exists)} (W4)", after, LIST_CONDEMNED_AGAIN)

    def _list_old_packs_again(self, state: bytes, found: Steps) -> None:
        exists = state[self.at + SEEN] | state[self.world.exists] & ~self.copies
        said = f"lists the other half of the packs: {self.world.names_of(exists)} in all (W4)"
        self._judge(state, found, said, exists, state[self.at + CONDEMNED])

    def _judge(self, state: bytes, found: Steps, said: str, exists: int, condemned: int) -> None:
        """Finds out what is to be stored again."""
        world, at, after = self.world, self.at, bytearray(state)
        usable = exists & ~condemned
        unsafe = 0
        for chunk, place in self.places:
            pack = state[at + place] - 1
            if pack >= 0 and not usable >> pack & 1 and (self.rules.w4_own or pack not in self.own):
                unsafe |= chunk
        if state[at + WHOLE_AT]:
            unsafe |= self.whole
        wanted = 0
        for chunk, place in self.places:
            if unsafe & chunk:
                pack = next(
                    (pack for pack in range(world.packs) if usable >> pack & 1 and state[world.content + pack] & chunk),
                    -1,
                )
                if pack < 0:
                    wanted |= chunk
                elif not state[at + WHOLE_AT]:
                    after[at + place] = 1 + pack if self.rules.w4_found else 0
        after[at + CONDEMNED] = after[at + SEEN] = after[at + GOT] = 0
        after[at + WANTED] = wanted
        if not wanted:
            after[at + WHOLE_AT] = 0
            self._say(found, said, after, PUT_COMMIT if self.rules.manifest_before_w4 else PUT_PENDING)
        elif state[at + MENDS] == world.scope.mends:
            self._say(found, f"{said}, and gives up", after, ENDED)
        else:
            self._say(found, f"{said}, and misses {chunk_names(wanted)}", after, READ)

    def _read(self, state: bytes, found: Steps) -> None:
        world, at = self.world, self.at
        left = state[at + WANTED] & ~state[at + GOT]
        chunk = left & -left
        place = next(place for each, place in self.places if each == chunk)
        holding = [
            pack
            for pack in range(world.packs)
            if state[world.exists] >> pack & 1 and state[world.content + pack] & chunk
        ]
        if not holding:
            self._say(found, f"does not find {chunk_names(chunk)} any more", bytearray(state), PUT_ABORT)
            return
        last = left == chunk
        after = bytearray(state)
        after[at + GOT] |= chunk
        self._say(found, f"reads {chunk_names(chunk)}", after, PUT_AGAIN if last else READ)
        condemned = world.condemned_to_writers(state)
        for pack in holding:
            if not condemned >> pack & 1:  # having looked again: what it read from is gone
                after = bytearray(state)
                after[at + WANTED] &= ~chunk
                after[at + place] = 1 + pack
                said = f"finds {chunk_names(chunk)} in {world.pack_names[pack]}"
                self._say(found, said, after, PUT_AGAIN if last else READ)

    def _put_again(self, state: bytes, found: Steps) -> None:
        world, at, after = self.world, self.at, bytearray(state)
        chunks = state[at + WANTED]
        pack = self.own[1 + state[at + MENDS]]
        for chunk, place in self.places:
            if chunks & chunk:
                after[at + place] = 1 + pack
        after[at + MENDS] += 1
        after[at + WANTED] = after[at + GOT] = 0
        said = "stores nothing"
        if chunks:
            world.put_pack(after, pack, chunks)
            said = f"puts pack {world.pack_names[pack]} with {chunk_names(chunks)}"
        pc = self._look(after)
        if not self.rules.w4_subtrees_again and pc == LOOK_FOR_BASE:
            pc = LIST_CONDEMNED_AGAIN
        self._say(found, f"{said} (W4)", after, pc)

    # --- W5 --------------------------------------------------------------------------------------------------------

    def _put_commit(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        if state[self.world.outcome + self.number] == UNDECIDED:
            after[self.world.outcome + self.number] = COMMIT
            after[self.world.done] |= self.bit
            self._say(found, "commits, and reports it (W5)", after, ENDED)
        else:
            self._say(found, "learns that it was aborted (W5)", after, ENDED)

    def _put_abort(self, state: bytes, found: Steps) -> None:
        after = bytearray(state)
        if state[self.world.outcome + self.number] == UNDECIDED:
            after[self.world.outcome + self.number] = ABORT
        self._say(found, "aborts", after, ENDED)

    _ACTIONS = (
        _list_snapshots,
        _list_condemned,
        _list_packs,
        _put_pack,
        _put_pending,
        _look_for_base,
        _list_condemned_again,
        _list_packs_again,
        _list_old_packs_again,
        _read,
        _put_again,
        _put_commit,
        _put_abort,
    )
