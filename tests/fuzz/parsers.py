"""Fuzzes every parser of hostile bytes: nothing but a refusal may come out, and what is accepted has one form.

With atheris (coverage-guided; pip install '.[fuzz]') where it is there and the run is long enough to gain by it, and
by mutations of valid encodings, which need nothing and repeat themselves for a seed:

    python -m tests.fuzz.parsers SECONDS [--engine plain|atheris] [--seed N] [--only PARSER]

What is found lies in tests/fuzz/found/, ready to be moved to tests/fuzz/regressions/, where the test run takes it up.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from respaldo.core.errors import Corruption
from respaldo.format import canonical
from tests.format import samples

HERE = Path(__file__).parent
FOUND = HERE / "found"
REGRESSIONS = HERE / "regressions"
NAMES = sorted(samples.PARSERS)
# Frames and closed objects carry what is free to vary; a manifest may say more than this program knows.
MANY_FORMS = {"frame", "closing", "manifest"}
SLOW_S = 2.0
LENGTH_MAX = 1 << 16
ATHERIS_PAYS_FROM_S = 20
NUMBERS = (-1, 0, 1, 2, 127, 255, 256, 65535, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1, -(1 << 63))


def examine(name: str, data: bytes) -> None:
    """Gives bytes to a parser; raises AssertionError, or what leaked, where the parser broke a promise."""
    begun = time.process_time()
    try:
        value = samples.PARSERS[name](data)
    except samples.REFUSALS:
        value = None
    else:
        samples.drained(value)
        if name not in MANY_FORMS and samples.reencode(name, value) != data:
            raise AssertionError("what was accepted has another form")
    if time.process_time() - begun > SLOW_S:
        raise AssertionError(f"{len(data)} bytes took more than {SLOW_S} s")


# --- mutations ---


def bend_bytes(chance: random.Random, data: bytes) -> bytes:
    """Returns a copy with a few bytes changed, moved, doubled or gone."""
    bent = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        at = chance.randint(0, len(bent))
        width = chance.choice((1, 1, 2, 4, 8, 40))
        match chance.randrange(7):
            case 0 if bent:
                bent[at % len(bent)] ^= 1 << chance.randrange(8)
            case 1:
                bent[at : at + width] = chance.randbytes(width)
            case 2:
                bent[at:at] = chance.choice((b"\0", b"\xff", b"\xc0", b"\xdd\x7f\xff\xff\xff", b"\x90", b"\x80"))
            case 3:
                del bent[at : at + width]
            case 4:
                bent[at:at] = bent[at : at + width]
            case 5:
                with contextlib.suppress(OverflowError):
                    bent[at : at + width] = chance.choice(NUMBERS).to_bytes(width, chance.choice(("little", "big")))
            case _:
                del bent[at:]
    return bytes(bent[:LENGTH_MAX])


def bend_value(chance: random.Random, value: object) -> object:
    """Returns a copy of a nested value with one part replaced, removed, doubled or exchanged."""
    if isinstance(value, list) and value and chance.random() < 0.9:
        at = chance.randrange(len(value))
        bent = list(value)
        match chance.randrange(8):
            case 0:
                del bent[at]
            case 1:
                bent.insert(at, bent[at])
            case 2:
                other = chance.randrange(len(value))
                bent[at], bent[other] = bent[other], bent[at]
            case _:
                bent[at] = bend_value(chance, bent[at])
        return bent
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        return {**value, key: bend_value(chance, value[key])}
    if isinstance(value, bytes) and chance.random() < 0.7:
        return bend_bytes(chance, value)
    if isinstance(value, int) and chance.random() < 0.5:
        return max(-(1 << 63), min((1 << 64) - 1, value + chance.choice((-1, 1, 256, -256))))
    return chance.choice((*NUMBERS, "", "x", "\udc80", b"", b"\0", bytes(32), [], {}, [[0, 0]], {"a": []}))


def mutate(chance: random.Random, name: str, data: bytes) -> bytes:
    """Returns something that nearly is what a parser takes."""
    prefix = samples.header.MAGIC if name == "header" else b""
    if name not in {"frame", "closing", "trailer", "node"} and chance.random() < 0.6:
        body = data[len(prefix) : -32] if prefix else data
        with contextlib.suppress(Corruption, OverflowError):
            bent = prefix + canonical.pack(bend_value(chance, canonical.unpack(body, name)))
            return samples.header.close_object(bent) if prefix else bent
    return bend_bytes(chance, data)


def keep(name: str, data: bytes) -> Path:
    """Keeps what broke a parser."""
    FOUND.mkdir(exist_ok=True)
    path = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


def plain(seconds: float, names: list[str], seed: int) -> int:
    """Mutates until time is up; returns how many inputs broke a promise."""
    chance = random.Random(seed)
    end, tried, broken = time.monotonic() + seconds, 0, 0
    pools = {name: list(samples.CORPUS[name]) for name in names}
    while time.monotonic() < end and broken < 10:
        for name in names:
            pool = pools[name]
            data = mutate(chance, name, chance.choice(pool))
            tried += 1
            try:
                examine(name, data)
            except Exception:  # noqa: BLE001 - whatever leaks is what is looked for
                broken += 1
                traceback.print_exc()
                print(f"broke {name}: {keep(name, data)}", file=sys.stderr)
            if len(pool) < 200 and chance.random() < 0.01:
                pool.append(data)
    print(f"parsers: {tried} mutations of {len(names)} structures, {broken} broke a promise")
    return broken


# --- atheris ---

TARGET = """
import sys
import atheris
with atheris.instrument_imports(include=["respaldo"]):
    from tests.fuzz import parsers

def one_input(data):
    if data:
        parsers.examine(parsers.NAMES[data[0] % len(parsers.NAMES)], bytes(data[1:]))

atheris.Setup(sys.argv, one_input)
atheris.Fuzz()
"""


def guided(seconds: float, names: list[str]) -> int:
    """Runs atheris with valid encodings to start from; returns its exit status."""
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            for number, data in enumerate(samples.CORPUS[name]):
                (Path(folder) / f"{name}{number}").write_bytes(bytes([NAMES.index(name)]) + data)
        limits = [f"-max_total_time={max(1, int(seconds))}", f"-max_len={LENGTH_MAX}", "-rss_limit_mb=1024"]
        quiet = ["-timeout=5", "-print_final_stats=1", "-verbosity=0", f"-artifact_prefix={FOUND}/atheris-"]
        done = subprocess.run([sys.executable, "-c", TARGET, *limits, *quiet, folder], check=False)
    print(f"parsers: atheris for {seconds:.0f} s, exit status {done.returncode}")
    return done.returncode


def main() -> int:
    """Fuzzes for so many seconds; 1 where something broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--engine", choices=["plain", "atheris"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=NAMES, action="append")
    asked = parser.parse_args()
    names = asked.only or NAMES
    engine = asked.engine
    if engine is None:
        there = importlib.util.find_spec("atheris") is not None
        engine = "atheris" if there and asked.seconds >= ATHERIS_PAYS_FROM_S else "plain"
    if engine == "plain":
        return int(plain(asked.seconds, names, asked.seed) > 0)
    # Bytes that are guided by coverage, and structures that are bent as wholes, find different things.
    return int(guided(asked.seconds / 2, names) != 0) | int(plain(asked.seconds / 2, names, asked.seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
