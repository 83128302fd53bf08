"""Whoever else acts: who forgets, who lets pending snapshots expire, who removes condemnations, who reads.

All but the reader remember nothing that could become wrong, so that they have no state of their own: whoever saw that a
snapshot is committed may forget it at any later time, whoever saw one undecided may put an abort, which is create-only.
Removal of condemnations is part of the last delete (`World.delete_pack`).
"""

from __future__ import annotations

from tests.protocol.model import collector, writer
from tests.protocol.model.collector import Collector, undecided
from tests.protocol.model.explore import Model, Steps
from tests.protocol.model.world import (
    ABORT,
    COLLECTOR,
    COMMIT,
    READER,
    READER_FAILED,
    READER_PC,
    ROOT_P,
    SNAPSHOTS,
    UNDECIDED,
    C,
    D,
    Scope,
    T,
    World,
    chunk_names,
)
from tests.protocol.model.writer import Writer


class Forgetter:
    """Deletes a manifest, then an outcome. With the manifest first nobody can see when the second happens."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.manifest_first = world.scope.rules.manifest_first

    def __call__(self, state: bytes, found: Steps) -> None:
        world = self.world
        for snapshot in range(world.snapshots):
            bit = 1 << snapshot
            if not world.scope.forget & bit or not state[world.pending] & bit:
                continue
            after = bytearray(state)
            if self.manifest_first and state[world.outcome + snapshot] == COMMIT:
                after[world.pending] &= ~bit
                after[world.forgotten] |= bit
                after[world.outcome + snapshot] = UNDECIDED
                found.append((f"forgetter deletes manifest and outcome of {SNAPSHOTS[snapshot]}", bytes(after)))
            elif not self.manifest_first and state[world.outcome + snapshot] == COMMIT:
                after[world.forgotten] |= bit
                after[world.outcome + snapshot] = UNDECIDED
                found.append((f"forgetter deletes the outcome of {SNAPSHOTS[snapshot]} first", bytes(after)))
            elif not self.manifest_first and state[world.forgotten] & bit:
                after[world.pending] &= ~bit
                found.append((f"forgetter deletes the manifest of {SNAPSHOTS[snapshot]}", bytes(after)))


class Expirer:
    """Puts aborts for what is undecided."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, state: bytes, found: Steps) -> None:
        world = self.world
        for snapshot in range(world.snapshots):
            bit = 1 << snapshot
            if not world.scope.expire & bit:
                continue
            if undecided(state, world, snapshot):
                after = bytearray(state)
                after[world.outcome + snapshot] = ABORT
                found.append((f"expirer aborts {SNAPSHOTS[snapshot]}", bytes(after)))
            elif state[world.outcome + snapshot] == ABORT and not world.scope.rules.aborts_stay:
                after = bytearray(state)
                after[world.outcome + snapshot] = UNDECIDED
                after[world.pending] &= ~bit
                found.append((f"expirer deletes manifest and abort of {SNAPSHOTS[snapshot]}", bytes(after)))


class Remover:
    """Removes a condemnation before its packs are gone; there is one only where that rule is left out."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, state: bytes, found: Steps) -> None:
        for number in range(self.world.scope.collectors):
            at = self.world.condemned + number
            if state[at]:
                after = bytearray(state)
                after[at] = 0
                found.append((f"remover deletes the condemnation of collector {number + 1}", bytes(after)))


class Loser:
    """Deletes a notice whenever it likes: storage that withholds it, or a collector that is too fast."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, state: bytes, found: Steps) -> None:
        for number in range(self.world.scope.collectors):
            if state[self.world.noticed] >> number & 1:
                after = bytearray(state)
                after[self.world.noticed] &= ~(1 << number)
                found.append((f"somebody deletes the notice of collector {number + 1}", bytes(after)))


KNOWN, CHUNK, LOOKS, PC = 0, 1, 2, READER_PC
LIST_NEW, LIST_OLD, READ, ENDED = range(4)
_ORDER = (ROOT_P, T, D, C)


class Reader:
    """Restores P: lists packs, reads chunk by chunk, looks again where a pack has gone.

    A listing shows copies first and what they are of last, so that it may miss both.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.at = world.reader
        self.new = ~sum(1 << pack for pack in range(len(world.scope.packs))) & 0xFF

    def __call__(self, state: bytes, found: Steps) -> None:
        world, at = self.world, self.at
        pc = state[at + PC]
        after = bytearray(state)
        if pc == LIST_NEW:
            after[at + KNOWN] = state[world.exists] & self.new
            after[at + PC] = LIST_OLD
            found.append(("reader lists one half of the packs", bytes(after)))
        elif pc == LIST_OLD:
            after[at + KNOWN] |= state[world.exists] & ~self.new
            after[at + PC] = READ
            found.append((f"reader lists the other half: {world.names_of(after[at + KNOWN])} in all", bytes(after)))
        elif pc == READ:
            self._read(state, found)

    def _read(self, state: bytes, found: Steps) -> None:
        world, at = self.world, self.at
        chunk = _ORDER[state[at + CHUNK]]
        known = state[at + KNOWN]
        gone = known & ~state[world.exists]
        there = any(known >> pack & 1 and state[world.content + pack] & chunk for pack in range(world.packs))
        if there:
            after = bytearray(state)
            after[at + CHUNK] += 1
            after[at + LOOKS] = 0
            if after[at + CHUNK] == len(_ORDER):
                self._end(after, ENDED)
            found.append((f"reader reads {chunk_names(chunk)}", bytes(after)))
        if gone or not there:  # the one that it knows first may be one that has gone
            after = bytearray(state)
            said = f"reader does not find {chunk_names(chunk)}"
            if state[at + LOOKS] < world.scope.looks:
                after[at + LOOKS] += 1
                after[at + KNOWN] = 0
                after[at + PC] = LIST_NEW
                found.append((f"{said} and looks again", bytes(after)))
            else:
                self._end(after, ENDED if state[world.forgotten] & 1 else READER_FAILED)
                found.append((f"{said} and gives up", bytes(after)))

    def _end(self, after: bytearray, pc: int) -> None:
        for offset in range(self.at, self.at + READER):
            after[offset] = 0
        after[self.at + PC] = pc


class Swap:
    """Takes the two collectors for each other where that gives a state that may have been seen: they do the same."""

    def __init__(self, world: World) -> None:
        self.first, self.second = world.collector
        self.end = self.second + COLLECTOR
        self.condemned = world.condemned
        self.noticed = world.noticed if world.scope.blind else None
        self.copies = [world.content + pack for pack in world.copies]
        one, two = world.copies
        self.masks = bytes(
            (mask & ~(1 << one | 1 << two)) | (mask >> one & 1) << two | (mask >> two & 1) << one for mask in range(256)
        )
        names = list(range(256))
        names[1 + one], names[1 + two] = 1 + two, 1 + one
        self.names = bytes(names)
        self.masks_at = [world.exists, world.condemned, world.condemned + 1]
        self.names_at: list[int] = []
        for at in world.writer:
            self.masks_at += [at + writer.CONDEMNED, at + writer.SEEN]
            self.names_at += [at + writer.AT_T, at + writer.AT_D, at + writer.AT_C]
        for at in world.collector:
            self.masks_at += [at + collector.CONDEMNED, at + collector.VICTIMS]
        if world.scope.reader:
            self.masks_at.append(world.reader + KNOWN)

    def __call__(self, state: bytes) -> bytes:
        first, second = state[self.first : self.second], state[self.second : self.end]
        if first <= second:
            return state
        after = bytearray(state)
        after[self.first : self.second], after[self.second : self.end] = second, first
        for one, two in (self.copies, (self.condemned, self.condemned + 1)):
            after[one], after[two] = after[two], after[one]
        if self.noticed is not None:
            after[self.noticed] = (0, 2, 1, 3)[after[self.noticed]]
        masks, names = self.masks, self.names
        for at in self.masks_at:
            after[at] = masks[after[at]]
        for at in self.names_at:
            after[at] = names[after[at]]
        return bytes(after)


def build(scope: Scope) -> Model:
    """Returns the model of a scope."""
    world = World(scope)
    actors: list[Writer | Collector | Forgetter | Expirer | Remover | Loser | Reader] = [
        Writer(world, number) for number in range(1, 1 + scope.writers)
    ]
    actors += [Collector(world, number) for number in range(scope.collectors)]
    if scope.forget:
        actors.append(Forgetter(world))
    if scope.expire:
        actors.append(Expirer(world))
    if not scope.rules.removal_waits:
        actors.append(Remover(world))
    if scope.notices_vanish:
        actors.append(Loser(world))
    if scope.reader:
        actors.append(Reader(world))
    return Model(
        initial=world.initial(),
        actors=actors,
        wrong=world.wrong,
        shared=world.shared,
        settled=world.settled,
        same=Swap(world) if scope.collectors == 2 and scope.victims[0] == scope.victims[1] else None,
    )
