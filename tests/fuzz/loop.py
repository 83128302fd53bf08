"""The loop: bends inputs, gives them to targets, keeps those that get further, and writes down what breaks a promise.

    python -m tests.fuzz.loop --seconds 60 --seed 1 TARGET…

In one process, one target after another, each for its share of the time. Deterministic but for when time is up: a seed
and a number of inputs (``--inputs``) name a run. What it has to say is a line of JSON for each target.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import edges

if __name__ == "__main__":
    edges.install()

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
FOUND = HERE / "found"
REGRESSIONS = HERE / "regressions"
POOL_MAX = 1000
CORPUS_INPUT_BYTES_MAX = 4096
HANG_S = 30
ADDRESSES_BYTES = 6 << 30
"""What a bomb may take of the machine before it is a finding."""
FILE_BYTES_MAX = 1 << 30
FINDINGS_MAX = 20


class Hang(BaseException):
    """Ends an input that takes for ever; no `Exception`, so that nothing takes it for its own."""


@dataclass(slots=True)
class State:
    """Is how far the fuzzing of a target is."""

    target: Target
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    pool: list[bytes] = field(default_factory=list)
    executions: int = 0
    accepted: int = 0
    branches: int = 0
    seconds: float = 0.0
    findings: dict[str, str] = field(default_factory=dict)
    """Where something broke, and the file that holds the input."""


def kept(target: Target) -> Iterator[bytes]:
    """Yields the inputs of a target that are kept: its corpus and what broke it once."""
    for path in sorted((CORPUS / target.name).glob("*")):
        yield path.read_bytes()
    for path in sorted(REGRESSIONS.glob("*-*")):
        if target_of(path) == target.name:
            yield path.read_bytes()


def target_of(path: Path) -> str:
    """Returns the target that an input is for: the longest name that the file's name begins with."""
    fitting = [name for name in TARGETS if path.name.startswith(name + "-")]
    return max(fitting, key=len, default="")


def where(error: BaseException) -> str:
    """Returns what tells one finding from another: what broke, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    inner = [frame for frame in frames if "/respaldo/" in frame.filename] or frames
    place = f"{Path(inner[-1].filename).name}:{inner[-1].lineno}" if inner else "?"
    return f"{type(error).__name__} at {place}"


def keep(target: Target, data: bytes) -> Path:
    """Keeps what broke a target."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{target.name}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


def try_input(state: State, data: bytes) -> bool:
    """Gives a target an input, and writes down what it did that it promises not to do; False where it did."""
    handler = signal.signal(signal.SIGALRM, _hang)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    state.executions += 1
    try:
        state.accepted += state.target.examine(data)
    except (Exception, Hang) as error:  # noqa: BLE001 - whatever leaks is what is looked for
        signal.setitimer(signal.ITIMER_REAL, 0)
        place = where(error)
        if place not in state.findings and len(state.findings) < FINDINGS_MAX:
            path = keep(state.target, data)
            state.findings[place] = path.name
            print(f"{state.target.name}: {place}: {str(error)[:300]}", file=sys.stderr)
            traceback.print_exception(error, limit=-6)
            print(f"replay: python -m tests.fuzz.replay {path}", file=sys.stderr)
        return False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    return True


def begin(target: Target, seed: int) -> State:
    """Tries all inputs that are there."""
    state = State(target, random.Random(f"{seed} {target.name}"))
    edges.forget()
    for data in (*target.seeds(), *kept(target)):
        before = edges.count()
        try_input(state, data)
        if edges.count() > before or len(state.pool) < POOL_MAX:
            state.pool.append(data)
    return state


def fuzz(state: State, seconds: float, inputs: int | None = None) -> None:
    """Bends inputs until time is up, or so many were tried."""
    target, chance, pool = state.target, state.chance, state.pool
    tokens: set[bytes | int] = set()
    for name, literals in edges.LITERALS.items():
        if any(name == wanted or name.startswith(wanted + ".") for wanted in target.modules):
            tokens |= literals
    mutator = target.mutator(tokens)
    started = time.monotonic()
    end = started + seconds
    count = edges.count()
    limit = None if inputs is None else state.executions + inputs
    while pool and (limit is None or state.executions < limit) and time.monotonic() < end:
        # What came last got further than all before: it is bent as often as all others together.
        at = chance.randrange(len(pool))
        base = pool[at] if chance.random() < 0.7 else pool[max(at, chance.randrange(len(pool)))]
        data = mutator.bend(chance, base, pool[chance.randrange(len(pool))])
        try_input(state, data)
        further = edges.count()
        if further > count or chance.random() < 0.0005:
            count = further
            if len(pool) < POOL_MAX:
                pool.append(data)
            else:
                pool[chance.randrange(len(pool))] = data
    state.seconds = time.monotonic() - started
    state.branches = edges.count()


def smallest(target: Target, inputs: Iterable[bytes]) -> list[bytes]:
    """Returns few inputs that take all branches that these take, or of these the ones that add most."""
    taken = 0
    chosen: list[tuple[int, bytes]] = []
    state = State(target)
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        edges.forget()
        try_input(state, data)
        here = edges.taken()
        if more := (here & ~taken).bit_count():
            taken |= here
            chosen.append((more, data))
    chosen.sort(key=lambda item: -item[0])
    return [data for _, data in chosen[: target.corpus_max]]


def grow(state: State) -> int:
    """Adds what got further to the corpus of a target, the fewest and shortest; returns how many inputs it has."""
    folder = CORPUS / state.target.name
    seeds = {*state.target.seeds(), *(path.read_bytes() for path in REGRESSIONS.glob(f"{state.target.name}-*"))}
    known = [data for data in (*state.pool, *kept(state.target)) if len(data) <= CORPUS_INPUT_BYTES_MAX]
    chosen = [data for data in smallest(state.target, [*known, *seeds]) if data not in seeds]
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*"):
        path.unlink()
    for data in chosen:
        (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    return len(chosen)


def _hang(*_: object) -> None:
    raise Hang(f"no answer in {HANG_S} s")


def guard() -> None:
    """Bounds what a bomb takes from the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, resource.RLIM_INFINITY))


def main() -> int:
    """Fuzzes some targets; 1 where something broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--inputs", type=int, help="for each target, whatever the time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grow", action="store_true", help="add what gets further to the corpus")
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    asked = parser.parse_args()
    guard()
    names = asked.targets or list(TARGETS)
    broke = False
    for name in names:
        state = begin(TARGETS[name], asked.seed)
        fuzz(state, asked.seconds / len(names), asked.inputs)
        corpus = grow(state) if asked.grow else len(state.pool)
        broke |= bool(state.findings)
        said = {
            "name": name,
            "executions": state.executions,
            "accepted": state.accepted,
            "seconds": round(state.seconds, 2),
            "branches": state.branches,
            "corpus": corpus,
            "findings": state.findings,
        }
        print(json.dumps(said), flush=True)
    return int(broke)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # what a target holds (threads, mapped caches) is not taken down piece by piece
