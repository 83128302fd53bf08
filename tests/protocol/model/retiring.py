"""Retirement: who seals anew and destroys an old key, a writer under the old key, and one under the new.

The old writer Y makes a snapshot under the old epoch, with a pack of its own that holds a chunk. The new writer X,
which opens both epochs, makes one that needs the same chunk: it relies on Y's pack where it sees it, else on one of
its own. The retirer carries over what is committed under the old epoch, copies what is needed out of the old pack,
and destroys the old key once R2 shows nothing of that epoch. Anybody may expire Y. Every put, every delete, every
listing of R2 is a step. Who stops anywhere needs no step.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.model.explore import Model, Steps

SIGN, DESTROYED, OLD_PACK, NEW_PACKS, PENDING, OUTCOME, CARRIED, DONE_Y, PENDING_X, DONE_X, RELIES = range(11)
SHARED = RELIES + 1
Y, X, K = SHARED, SHARED + 1, SHARED + 3
"""Where each actor stands; X and the retirer remember something besides."""
LENGTH = K + 3
COMMIT, ABORT = 1, 2
ENDED = 99
ON_OLD, ON_NEW = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Says which rules of retirement are kept."""

    sign: bool = True
    """R1: a sign is put."""
    sign_first: bool = True
    """It is put before R2 lists, not after."""
    look: bool = True
    """The old writer looks for it."""
    look_after_manifest: bool = True
    """And does so after its manifest is there."""
    undecided_forbid: bool = True
    """A manifest without outcome forbids R3, too."""
    packs_forbid: bool = True
    """An old pack forbids R3."""
    packs_condemned: bool = True
    """The new writer, having looked after its manifest, relies on no pack of an epoch that is retiring."""


def wrong(state: bytes) -> str:
    """Says which snapshot was reported and is not to be read."""
    chunk = state[NEW_PACKS] or (state[OLD_PACK] and not state[DESTROYED])
    under_old = state[PENDING] and state[OUTCOME] == COMMIT and not state[DESTROYED]
    if state[DONE_Y] and not state[CARRIED] and not under_old:
        return "Y was reported and is under a key that is destroyed"
    if state[DONE_Y] and not chunk:
        return "Y was reported and lacks its chunk"
    if state[DONE_X] and not chunk:
        return "X was reported and lacks its chunk"
    return ""


class OldWriter:
    """W2, W3, the look, W5, under the old epoch."""

    def __init__(self, rules: Rules) -> None:
        after = ["pack", "pending", "look", "commit"]
        before = ["pack", "look", "pending", "commit"]
        self.steps = after if rules.look_after_manifest else before
        self.looks = rules.look

    def __call__(self, state: bytes, found: Steps) -> None:
        pc = state[Y]
        if pc == ENDED:
            return
        after = bytearray(state)
        after[Y] = pc + 1
        step = self.steps[pc]
        if step == "pack":
            after[OLD_PACK] = 1
            found.append(("Y puts its pack (W2)", bytes(after)))
        elif step == "pending":
            after[PENDING] = 1
            found.append(("Y puts its manifest (W3)", bytes(after)))
        elif step == "look":
            if self.looks and state[SIGN]:
                after[PENDING], after[Y] = 0, ENDED
                found.append(("Y sees the sign, deletes its manifest", bytes(after)))
            else:
                found.append(("Y sees no sign", bytes(after)))
        else:
            after[Y] = ENDED
            if not state[OUTCOME]:
                after[OUTCOME] = COMMIT
                after[DONE_Y] = 1
            found.append(("Y puts its outcome (W5)", bytes(after)))


class NewWriter:
    """W1 to W5 under the new epoch, with what it relies on looked up after its manifest."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules

    def __call__(self, state: bytes, found: Steps) -> None:
        pc = state[X]
        after = bytearray(state)
        after[X] = pc + 1
        if pc == 0:
            sees = state[OLD_PACK] and not (state[SIGN] and self.rules.packs_condemned)
            after[RELIES] = ON_OLD if sees else ON_NEW
            after[NEW_PACKS] |= 0 if sees else 1
            found.append((f"X relies on {'the pack of Y' if sees else 'a pack of its own'} (W1, W2)", bytes(after)))
        elif pc == 1:
            after[PENDING_X] = 1
            found.append(("X puts its manifest (W3)", bytes(after)))
        elif pc == 2:
            after[X + 1] = state[SIGN]
            found.append(("X looks for a sign (W4)", bytes(after)))
        elif pc == 3:
            condemned = state[X + 1] and self.rules.packs_condemned
            if state[RELIES] == ON_OLD and not state[NEW_PACKS] and (condemned or not state[OLD_PACK]):
                after[NEW_PACKS], after[X] = 1, 2
                found.append(("X stores its chunk again (W4)", bytes(after)))
            else:
                found.append(("X finds its chunk (W4)", bytes(after)))
        elif pc == 4:
            after[DONE_X], after[X] = 1, ENDED
            found.append(("X puts its outcome (W5)", bytes(after)))


class Retirer:
    """Carries over, repacks, then R1, R2, R3; from the start wherever R2 shows something."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.steps = ["list", "destroy"]
        if rules.sign:
            self.steps.insert(0 if rules.sign_first else 1, "sign")

    def __call__(self, state: bytes, found: Steps) -> None:
        if state[K] == ENDED:
            return
        self._carry_over(state, found)
        step = self.steps[state[K]]
        after = bytearray(state)
        if step == "sign":
            after[SIGN], after[K] = 1, state[K] + 1
            found.append(("the retirer puts the sign (R1)", bytes(after)))
        elif step == "destroy":
            after[DESTROYED], after[K] = 1, ENDED
            found.append(("the retirer destroys the old key (R3)", bytes(after)))
        else:
            self._list(state, after, found)

    def _carry_over(self, state: bytes, found: Steps) -> None:
        if state[K + 1]:
            return  # in the middle of a listing
        if state[PENDING] and state[OUTCOME] == COMMIT:
            after = bytearray(state)
            after[CARRIED] = 1
            if state[CARRIED]:
                after[PENDING] = 0
            found.append(("the retirer carries Y over" if not state[CARRIED] else "and forgets it", bytes(after)))
        if state[PENDING] and state[OUTCOME] == ABORT:
            after = bytearray(state)
            after[PENDING] = 0
            found.append(("the retirer deletes Y's manifest, which was aborted", bytes(after)))
        if state[OLD_PACK] and state[NEW_PACKS]:
            after = bytearray(state)
            after[OLD_PACK] = 0
            found.append(("the retirer deletes the old pack", bytes(after)))
        elif state[OLD_PACK]:
            after = bytearray(state)
            after[NEW_PACKS] = 1
            found.append(("the retirer copies the chunk into a new pack", bytes(after)))

    def _list(self, state: bytes, after: bytearray, found: Steps) -> None:
        """Lists manifests, then packs: an entry is a step."""
        if not state[K + 1]:
            counts = self.rules.undecided_forbid or state[OUTCOME]
            seen, what = state[PENDING] and counts, "manifests"
            after[K + 1] = 1
        else:
            seen, what = state[OLD_PACK] and self.rules.packs_forbid, "packs"
            after[K], after[K + 1] = state[K] + 1, 0
        if seen:
            after[K], after[K + 1] = 0, 0
        found.append((f"the retirer lists {what} (R2){', and begins again' if seen else ''}", bytes(after)))


def expirer(state: bytes, found: Steps) -> None:
    """Aborts Y, which is undecided."""
    if state[PENDING] and not state[OUTCOME]:
        after = bytearray(state)
        after[OUTCOME] = ABORT
        found.append(("somebody expires Y", bytes(after)))


def build(rules: Rules) -> Model:
    """Returns the model."""
    actors = [OldWriter(rules), NewWriter(rules), Retirer(rules), expirer]
    return Model(initial=bytes(LENGTH), actors=actors, wrong=wrong, shared=SHARED)
