"""The inputs of the golden cut points, and what prints them.

Cut points must not change: with others, every repository would store its content once more. `golden.json` is therefore
never written by a test. To add a case, put it here and take its line over from ``python -m tests.chunk.golden``, after
checking that the lines of the other cases have stayed what they were.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from respaldo.chunk.chunker import Chunker, ChunkerParams

GOLDEN = Path(__file__).with_name("golden.json")

TINY = ChunkerParams(minimum=64, average=256, maximum=1024, strict=1 << 61, loose=1 << 63)


def noise(seed: str, length_bytes: int) -> bytes:
    """Returns bytes that look random and are always the same."""
    return blake3(seed.encode()).digest(length=length_bytes)


def secret(seed: str) -> bytes:
    return noise(f"secret {seed}", 32)


def prose(length_bytes: int) -> bytes:
    """Returns lines that resemble one another, as a log's do."""
    lines = []
    size = 0
    for at in range(length_bytes):
        lines.append(b"%08d %s worker done\n" % (at, noise(f"line {at}", 3).hex().encode()))
        size += len(lines[-1])
        if size >= length_bytes:
            break
    return b"".join(lines)[:length_bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Is one content under one secret."""

    secret: bytes
    params: ChunkerParams
    data: bytes
    final: bool = True


def cases() -> dict[str, Case]:
    standard = ChunkerParams.standard()
    one, two = secret("one"), secret("two")
    found = {
        "random": Case(secret=one, params=standard, data=noise("random", 4 << 20)),
        "random, not final": Case(secret=one, params=standard, data=noise("random", 4 << 20), final=False),
        "random, another secret": Case(secret=two, params=standard, data=noise("random", 4 << 20)),
        "zeros": Case(secret=one, params=standard, data=bytes(1 << 20)),
        "ones": Case(secret=one, params=standard, data=b"\xff" * (600 << 10)),
        "period 7": Case(secret=one, params=standard, data=noise("seven", 7) * 100_000),
        "period 4096": Case(secret=one, params=standard, data=noise("page", 4096) * 256),
        "prose": Case(secret=one, params=standard, data=prose(1 << 20)),
        "zeros around noise": Case(
            secret=two, params=standard, data=bytes(100_000) + noise("inside", 300_000) + bytes(300_000)
        ),
        "tiny chunks": Case(secret=one, params=TINY, data=noise("tiny", 20_000)),
        "tiny chunks of zeros": Case(secret=one, params=TINY, data=bytes(5_000)),
        "empty": Case(secret=one, params=standard, data=b""),
    }
    for length in (1, 16_384, 16_385, 65_536, 262_143, 262_144, 262_145):
        found[f"{length} bytes"] = Case(secret=one, params=standard, data=noise("length", length))
        found[f"{length} bytes, not final"] = Case(
            secret=one, params=standard, data=noise("length", length), final=False
        )
    return found


def cut(case: Case) -> list[int]:
    return Chunker(case.secret, case.params).lengths(case.data, final=case.final).tolist()


if __name__ == "__main__":
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(cut(case))}" for name, case in cases().items())
    print(f"{{\n{rows}\n}}")
