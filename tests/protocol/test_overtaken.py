"""Nothing honest looks like damage or an attack, and nothing is lost, whoever comes between any two calls of whom.

A whole second operation runs at a call of a first one; see `overtaking`.
"""

from __future__ import annotations

import itertools
import random

import pytest

from respaldo.core.errors import HistoryChanged, KeyRotated, NoSuchSnapshot, Refused
from tests.protocol import overtaking
from tests.protocol.overtaking import ELSE, FIRST, SAME, Waits, World
from tests.protocol.scene import inline_workers

pytestmark = pytest.mark.usefixtures("_inline")

READERS = (overtaking.look, overtaking.read_log, overtaking.restore, overtaking.verify)
WRITERS = (
    overtaking.add_slot,
    overtaking.backup,
    overtaking.bin_one,
    overtaking.copy,
    overtaking.forget,
    overtaking.pin,
    overtaking.prune,
    overtaking.reencrypt,
    overtaking.repair,
    overtaking.rewrite,
    overtaking.rotate,
    overtaking.undo,
)
LONGER = (
    overtaking.announce_much,
    overtaking.forget_and_prune,
    overtaking.rotate_and_reencrypt,
    overtaking.rotate_and_write,
)
FIRSTS = (*READERS, *WRITERS)
SECONDS = (overtaking.verify, *WRITERS, *LONGER)
SAMPLES = 5


FORGETS = (overtaking.bin_one, overtaking.forget, overtaking.forget_and_prune, overtaking.rotate_and_write)
REENCRYPTS = (overtaking.reencrypt, overtaking.rotate_and_reencrypt)
ROTATES = (overtaking.rotate, overtaking.rotate_and_reencrypt, overtaking.rotate_and_write)

# Windows of a call or two that are known, and left open: each would take a lock that storage does not have.
ENTRY_AND_ROTATION = "an entry of the log between the look for a newer epoch and the put"
HEADS_AND_RECORD = "an entry of the log between a rotation's reading of the heads and the record that names them"
CARRIED_OVER = "a snapshot that is forgotten by its old id while it is carried over comes back by its new one"


@pytest.fixture(scope="module", params=[False, True], ids=["new", "rotated"])
def world(request, quick):
    """Has a repository whose key was never rotated, or was once."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        yield World(quick / f"world {request.param}", patch, rotated=request.param)


@pytest.mark.parametrize("first", FIRSTS, ids=lambda first: first.__name__)
def test_overtaken_somewhere(world, first):
    """A sample: each call of the first, as long as there is one, is as likely as any other."""
    rng = random.Random(f"{first.__name__} {world.rotated}")
    calls = count_calls(world, first)
    for number in range(SAMPLES):
        at = 1 + (number * calls + rng.randrange(calls)) // SAMPLES
        assert overtaken(world, first, rng.choice(SECONDS), rng.choice((SAME, ELSE)), at)


@pytest.mark.slow
@pytest.mark.parametrize("second", SECONDS, ids=lambda second: second.__name__)
def test_overtaken_anywhere(world, second):
    """Every call of every operation, by a process of the same machine and by another machine."""
    for first in FIRSTS:
        for at in range(1, count_calls(world, first) + 1):
            for who in (SAME, ELSE):
                assert overtaken(world, first, second, who, at)


@pytest.mark.parametrize(
    ("first", "second", "call"),
    [
        (overtaking.forget, overtaking.pin, "exists pins/"),
        (overtaking.forget, overtaking.pin, "discard ['pending/"),
        (overtaking.bin_one, overtaking.pin, "put trash/"),
        (overtaking.pin, overtaking.bin_one, "put pins/"),
        (overtaking.look, overtaking.rotate, "get trash/"),
        (overtaking.copy, overtaking.forget_and_prune, "get packs/"),
        (overtaking.rewrite, overtaking.rotate_and_reencrypt, "put pending/"),
        (overtaking.undo, overtaking.rotate_and_reencrypt, "discard ['trash/"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_overtaken_where_it_once_went_wrong(world, first, second, call):
    """What was pinned went; what was sealed anew was called damaged or forgotten, and what was collected, lost."""
    calls: list[str] = []
    world.reset(0)
    with world.heard(calls.append):
        first(world, FIRST)
    found = [at for at, made in enumerate(calls, 1) if made.startswith(call)]
    assert found
    for at in found:
        assert overtaken(world, first, second, ELSE, at).startswith(call)


def test_operations_alone(world):
    """Without anybody who comes between, each does what it says, and nothing is refused."""
    for operation in FIRSTS:
        world.reset(0)
        operation(world, FIRST)
        world.check()


def count_calls(world: World, operation) -> int:
    """Counts the calls of an operation that nobody overtakes."""
    calls: list[str] = []
    world.reset(0)
    with world.heard(calls.append):
        operation(world, FIRST)
    return len(calls)


def known(first, second, call: str, error: Exception) -> str:
    """Returns which of the known windows somebody came through, if any."""
    text = str(error)
    told = isinstance(error, HistoryChanged) or "suspicion" in text
    if told and second in ROTATES and call.startswith(("list log", "put log/")):
        return ENTRY_AND_ROTATION
    if told and first is overtaking.rotate and call.startswith(("get keys/", "put epochs/")):
        return HEADS_AND_RECORD
    if "forgotten, and there" in text and {first, second} & {*FORGETS} and {first, second} & {*REENCRYPTS}:
        return CARRIED_OVER
    return ""


def overtaken(world: World, first, second, who: str, at: int) -> str:
    """Runs one operation with another at its n-th call, and looks what has become of all; returns that call."""
    world.reset(at)
    calls = itertools.count(1)
    where = ""

    def tell(call: str) -> None:
        nonlocal where
        if next(calls) == at:
            where = call
            with world.unheard():
                attempt(world, second, who, first)

    try:
        with world.heard(tell):
            attempt(world, first, FIRST, second)
        world.check()
    except Waits:
        pass
    except Exception as error:
        if not known(first, second, where, error):
            error.add_note(f"{first.__name__} was overtaken by {second.__name__} ({who}) at call {at}: {where}")
            raise
    return where


def attempt(world: World, operation, who: str, other) -> None:
    """Runs an operation, which may be refused for what the other has done."""
    try:
        operation(world, who)
    except KeyRotated:
        assert {operation, other} & {*ROTATES, *REENCRYPTS}
    except NoSuchSnapshot:
        # What is carried over gets a new id: who brings it back by the old one finds it in the trash no more.
        assert other in FORGETS or (operation is overtaking.undo and other in (overtaking.undo, *REENCRYPTS))
    except Refused as error:
        if not any(word in str(error) for word in ("cut off", "pinned", "forgotten")):
            raise
