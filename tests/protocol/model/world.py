"""What is modelled: chunks, packs, condemnations, manifests, outcomes; and who of them is asked to hold.

One snapshot P is there at the beginning. Its root refers to a subtree T and a chunk C, T refers to a chunk D. Each
writer makes one snapshot whose root (a chunk of its own) refers to T and C too. Every put, every delete, every listing
(and of manifests every entry of a listing) and every read that others can come between is a step.

A state is bytes: masks of packs (a bit a pack), masks of chunks, masks of snapshots. What an actor holds after it has
come to its end is cleared, so that ends that differ in nothing that matters are one.

Packs have places by who may put them: what is there at the beginning first, then for each writer what it puts in W2
and each time it mends (W4), then for each collector its copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NAMES = ("D", "T", "C", "root P", "root 1", "root 2")
D, T, C, ROOT_P = 1, 2, 4, 8
ROOTS = (8, 16, 32)
"""The root of each snapshot: P, that of the first writer, that of the second."""
WHOLE = tuple(root | T | C | D for root in ROOTS)
UNDECIDED, COMMIT, ABORT = 0, 1, 2
NOBODY = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Says which rules of the protocol are kept: all of them, save what a test leaves out."""

    w1_condemned: bool = True
    """Whoever begins while condemned packs are there looks up what it takes over."""
    w4: bool = True
    """Chunks that are relied on are looked up again after the manifest."""
    w4_condemnations_first: bool = True
    w4_condemnations: bool = True
    w4_packs: bool = True
    """What is not listed is not relied on."""
    w4_own: bool = True
    """What the writer itself has put is looked up too."""
    w4_subtrees: bool = True
    """What was taken over from a snapshot that is gone is looked up."""
    w4_subtrees_again: bool = True
    """That snapshot is looked for again whenever something was stored again."""
    w4_found: bool = True
    """What was found elsewhere in one round is looked up in the next."""
    manifest_before_w4: bool = True
    undecided_are_roots: bool = True
    g5: bool = True
    g5_twice: bool = True
    g5_again: bool = True
    """Where a root vanishes before it is read, roots are listed again."""
    g5_all_condemnations: bool = True
    """What others condemned is no copy that counts."""
    condemned_first: bool = True
    """The condemnation stands before roots are listed for the last time."""
    manifest_first: bool = True
    """Forgetting begins with the manifest."""
    aborts_stay: bool = True
    removal_waits: bool = True
    """A condemnation is removed only when none of its packs is there."""
    notice_first: bool = True
    """The notice of what is condemned, for writers that cannot read condemnations, stands before roots are listed."""
    w4_notices: bool = True
    """To such a writer a condemnation without a notice condemns everything."""


ALL = Rules()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Says how large the world is: what is bounded, and by what.

    ``packs``: what those that are there at the beginning hold. ``takes_over``: whether subtrees are taken over unread
    (else all is looked up by content). ``follows``: the second writer begins when the first has committed. ``forget``,
    ``expire``: which snapshots may be (a mask). ``mends``: how often a writer stores again before it gives up.
    ``victims``: of which packs each collector may condemn any choice (masks; all by default). ``looks``: how often a
    reader looks again for one chunk. ``blind``: writers cannot read condemnations, only the notices of what they
    condemn; ``trusting``: and rely on there being one for each. ``notices_vanish``: any may be deleted at any time.
    """

    packs: tuple[int, ...] = (D | T | C | ROOT_P,)
    writers: int = 1
    collectors: int = 1
    reader: bool = False
    takes_over: bool = True
    follows: bool = False
    forget: int = 0b001
    expire: int = 0b000
    mends: int = 1
    torn_packs: bool = False
    victims: tuple[int, int] = (0xFF, 0xFF)
    looks: int = 3
    blind: bool = False
    trusting: bool = False
    notices_vanish: bool = False
    rules: Rules = field(default_factory=Rules)


class World:
    """Says where in a state everything stands."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        first = len(scope.packs)
        per_writer = 1 + scope.mends
        self.own = [tuple(range(first + n * per_writer, first + (n + 1) * per_writer)) for n in range(scope.writers)]
        self.copies = [first + scope.writers * per_writer + n for n in range(scope.collectors)]
        self.packs = first + scope.writers * per_writer + scope.collectors
        if self.packs > 8:
            msg = f"{self.packs} packs do not fit into a byte"
            raise ValueError(msg)
        self.snapshots = 1 + scope.writers
        at = 0

        def place(length: int) -> int:
            nonlocal at
            at += length
            return at - length

        self.exists = place(1)
        self.content = place(self.packs)
        self.condemned = place(scope.collectors)
        self.noticed = place(scope.blind)
        """Which collectors' notices are there, a bit each."""
        self.pending = place(1)
        self.outcome = place(self.snapshots)
        self.forgotten = place(1)
        self.done = place(1)
        self.writer = [place(WRITER) for _ in range(scope.writers)]
        self.collector = [place(COLLECTOR) for _ in range(scope.collectors)]
        self.shared = self.writer[0] if self.writer else self.collector[0]
        self.reader = place(READER)
        self.length = at
        self.pack_names = self._pack_names()

    def _pack_names(self) -> list[str]:
        names = [f"A{number}" for number in range(len(self.scope.packs))]
        for writer, own in enumerate(self.own, 1):
            names += [f"W{writer}.{number}" for number in range(len(own))]
        return names + [f"K{number}" for number in range(1, len(self.copies) + 1)]

    def initial(self) -> bytes:
        """Returns the state with P committed, and nobody who has begun."""
        state = bytearray(self.length)
        for number, chunks in enumerate(self.scope.packs):
            state[self.content + number] = chunks
            state[self.exists] |= 1 << number
        state[self.pending] = state[self.done] = 1
        state[self.outcome] = COMMIT
        return bytes(state)

    def there(self, state: bytes | bytearray, besides: int = 0) -> int:
        """Returns the chunks that are in packs, of those that are not among some."""
        packs = state[self.exists] & ~besides
        found = 0
        at = self.content
        while packs:
            if packs & 1:
                found |= state[at]
            packs >>= 1
            at += 1
        return found

    def all_condemned(self, state: bytes | bytearray) -> int:
        """Returns the packs that condemnations name which are there."""
        found = 0
        for number in range(self.scope.collectors):
            found |= state[self.condemned + number]
        return found

    def condemned_to_writers(self, state: bytes | bytearray) -> int:
        """Returns what is condemned as far as a writer can know, who may have to believe notices."""
        if not self.scope.blind:
            return self.all_condemned(state)
        found = 0
        cautious = self.scope.rules.w4_notices and not self.scope.trusting
        for number in range(self.scope.collectors):
            condemned = state[self.condemned + number]
            if condemned and not state[self.noticed] >> number & 1:
                condemned = 0xFF if cautious else 0
            found |= condemned
        return found

    def wrong(self, state: bytes) -> str:
        """Says which snapshot is not whole, or gone although it was reported and not forgotten."""
        there = self.there(state)
        pending, forgotten, done = state[self.pending], state[self.forgotten], state[self.done]
        for number in range(self.snapshots):
            bit = 1 << number
            committed = pending & bit and state[self.outcome + number] == COMMIT
            if committed and WHOLE[number] & ~there:
                return f"snapshot {SNAPSHOTS[number]} is committed and lacks {chunk_names(WHOLE[number] & ~there)}"
            if done & bit & ~forgotten and not committed:
                return f"snapshot {SNAPSHOTS[number]} was reported and is not there"
        if self.scope.reader and state[self.reader + READER_PC] == READER_FAILED:
            return "the reader does not find what is there"
        return ""

    def settled(self, state: bytes) -> bool:
        """Whether no snapshot is left that could lose anything: committed, or by a writer that may commit yet."""
        pending = state[self.pending]
        if self.scope.reader:
            return False
        return not any(
            (pending >> number & 1 and state[self.outcome + number] == COMMIT)
            or (number and state[self.outcome + number] != ABORT and state[self.writer[number - 1]] != WRITER_ENDED)
            for number in range(self.snapshots)
        )

    def put_pack(self, after: bytearray, pack: int, chunks: int) -> None:
        """Puts a pack."""
        after[self.exists] |= 1 << pack
        after[self.content + pack] = chunks

    def delete_pack(self, after: bytearray, pack: int) -> None:
        """Deletes a pack, and takes it out of all condemnations: one of which all packs are gone may be removed.

        Whoever lists condemnations before packs never learns whether one named a pack that was gone; so that nothing is
        lost by removing it at once, and much is gained: fewer states.
        """
        gone = ~(1 << pack)
        after[self.exists] &= gone
        after[self.content + pack] = 0
        for number in range(self.scope.collectors):
            after[self.condemned + number] &= gone

    def names_of(self, packs: int) -> str:
        """Returns the names of some packs."""
        return ", ".join(name for number, name in enumerate(self.pack_names) if packs >> number & 1) or "none"


SNAPSHOTS = ("P", "S1", "S2")
WRITER = 12
WRITER_ENDED = 13
COLLECTOR = 8
READER = 6
READER_PC = 5
"""The last byte of a state: the reader's failure is seen there."""
READER_FAILED = 99


def chunk_names(chunks: int) -> str:
    """Returns the names of some chunks."""
    return ", ".join(name for number, name in enumerate(NAMES) if chunks >> number & 1) or "none"
