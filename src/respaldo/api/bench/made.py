"""Made-up data: files that half compress, never the same twice, so that nothing of them is stored already."""

from __future__ import annotations

import os

from respaldo.core.errors import TargetError
from respaldo.core.seams import Cancel, Random

_PIECE_BYTES = 256
_LONG_BYTES = 8 << 20
_SHORT_BYTES = 16 << 10
_SHORT_IN_FOLDER = 128


def piece(random: Random, length: int) -> bytes:
    """Returns bytes of which each 256 stand there twice: zstd makes half of them, the chunker nothing."""
    drawn = random(-(-length // 2))
    pieces = (drawn[at : at + _PIECE_BYTES] for at in range(0, len(drawn), _PIECE_BYTES))
    return b"".join(part + part for part in pieces)[:length]


def fill(folder: str, length: int, random: Random, cancel: Cancel) -> int:
    """Fills a new directory, half with files of 8 MiB, half with files of 16 KiB; returns how many.

    Raises `TargetError`.
    """
    count = 0
    try:
        os.mkdir(folder)
        for number in range(-(-length // 2 // _LONG_BYTES)):
            cancel.check()
            _write(os.path.join(folder, f"long-{number}"), random, min(_LONG_BYTES, length // 2))
            count += 1
        for number in range(length // 2 // _SHORT_BYTES):
            cancel.check()
            inner = os.path.join(folder, f"{number // _SHORT_IN_FOLDER}")
            if number % _SHORT_IN_FOLDER == 0:
                os.mkdir(inner)
            _write(os.path.join(inner, f"short-{number}"), random, _SHORT_BYTES)
            count += 1
    except OSError as error:
        raise TargetError(os.fsencode(folder), error.strerror or str(error)) from None
    return count


def _write(path: str, random: Random, length: int) -> None:
    with open(path, "xb") as file:
        file.writelines(piece(random, min(1 << 20, length - at)) for at in range(0, length, 1 << 20))
