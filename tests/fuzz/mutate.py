"""Mutations: of bytes, of texts, and of what bytes mean, sealed again so that they get behind checksums and keys.

A seed names every one of them: all chance is drawn from one generator.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from respaldo.core.errors import Corruption
from respaldo.format import canonical

LENGTH_MAX = 1 << 16
NUMBERS = (
    *(-1, 0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 64, 100, 127, 128, 255, 256, 1000, 4095, 4096, 65535, 65536),
    *(1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)),
)
_BYTES = (b"\0", b"\xff", b"\xc0", b"\xc1", b"\xdd\x7f\xff\xff\xff", b"\x90", b"\x80", b"/", b"..", b"\n", b"\r\n")
_LETTERS = (
    *"\0\n\t \"'%+-.,:;=~@#*?[]{}()!\\/0129azAZ_",
    *("\udc80", "\udcff", "é", "ß", "\u0660", "\uff11", "\u2028", "\ufeff", "\u202e", "\U0001f600", "İ", "\u017f", "²"),
)


class Form(Enum):
    """Says what an input is by itself: bytes, a text in UTF-8, or the canonical encoding of a value."""

    BYTES = "bytes"
    TEXT = "text"
    VALUE = "value"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrapping:
    """Is what lies around a structure: how to take it off, and how to put it on again.

    ``off`` raises whatever it likes, or returns None, for what is not wrapped so.
    """

    off: Callable[[bytes], bytes | None]
    on: Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutator:
    """Bends inputs of one form. ``tokens``: bytes and numbers that the code which reads them knows."""

    form: Form = Form.BYTES
    wrappings: Sequence[Wrapping] = ()
    tokens: Sequence[bytes | int] = ()
    length_max: int = LENGTH_MAX

    def bend(self, chance: random.Random, data: bytes, other: bytes = b"") -> bytes:
        """Returns something that nearly is what a parser takes; ``other``: another input to take parts of."""
        for wrapping in self.wrappings:
            if chance.random() < 0.1:
                continue
            try:
                inner = wrapping.off(data)
                parts = wrapping.off(other) if other else b""
            except Exception:  # noqa: BLE001 - what is not wrapped is bent as it is
                inner, parts = None, b""
            if inner is not None:
                with contextlib.suppress(Exception):
                    return wrapping.on(self._bend(chance, inner, parts or b"")[: self.length_max])
        return self._bend(chance, data, other)[: self.length_max]

    def _bend(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        if self.form is Form.VALUE and chance.random() < 0.75:
            with contextlib.suppress(Corruption, OverflowError, TypeError):
                value = canonical.unpack(data, "x")
                for _ in range(chance.choice((1, 1, 1, 2, 4))):
                    value = self._bend_value(chance, value)
                return canonical.pack(value)
        if self.form is Form.TEXT and chance.random() < 0.9:
            text = data.decode("utf-8", "surrogateescape")
            more = other.decode("utf-8", "surrogateescape")
            return self._bend_text(chance, text, more).encode("utf-8", "surrogateescape")
        return self._bend_bytes(chance, data, other)

    def _token(self, chance: random.Random) -> bytes:
        known = [token for token in self.tokens if isinstance(token, bytes)]
        return chance.choice(known) if known and chance.random() < 0.7 else chance.choice(_BYTES)

    def _number(self, chance: random.Random) -> int:
        known = [token for token in self.tokens if isinstance(token, int)]
        number = chance.choice(known) if known and chance.random() < 0.5 else chance.choice(NUMBERS)
        return number + chance.choice((0, 0, 0, -1, 1))

    def _bend_bytes(self, chance: random.Random, data: bytes, other: bytes) -> bytes:
        """Returns a copy with a few bytes changed, moved, doubled, taken from elsewhere or gone."""
        bent = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            at = chance.randint(0, len(bent))
            width = chance.choice((1, 1, 2, 4, 8, 40))
            match chance.randrange(10):
                case 0 if bent:
                    bent[at % len(bent)] ^= 1 << chance.randrange(8)
                case 1:
                    bent[at : at + width] = chance.randbytes(width)
                case 2:
                    bent[at:at] = self._token(chance)
                case 3:
                    del bent[at : at + width]
                case 4:
                    bent[at:at] = bent[at : at + width]
                case 5:
                    order = chance.choice(("little", "big"))
                    bent[at : at + width] = (self._number(chance) % (1 << 8 * width)).to_bytes(width, order)
                case 6:
                    token = self._token(chance)
                    bent[at : at + len(token)] = token
                case 7 if other:
                    start = chance.randrange(len(other))
                    bent[at : at + width] = other[start : start + chance.choice((width, 512))]
                case 8 if len(bent) > 1:
                    start, length = chance.randrange(len(bent)), chance.choice((width, 512))
                    bent[at:at] = bent[start : start + length] * chance.choice((1, 1, 2, 20))
                case 9 if chance.random() < 0.3:
                    del bent[at:]
                case _:
                    bent[at : at + 1] = bytes([chance.randrange(256)])
        return bytes(bent[:LENGTH_MAX])

    def _bend_text(self, chance: random.Random, text: str, other: str) -> str:
        """Returns a copy with letters, words or numbers changed."""
        for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
            at = chance.randint(0, len(text))
            width = chance.choice((1, 1, 2, 4, 12))
            token = self._token(chance).decode("utf-8", "surrogateescape")
            match chance.randrange(10):
                case 0 | 1:
                    text = text[:at] + chance.choice(_LETTERS) + text[at + chance.randrange(2) :]
                case 2:
                    text = text[:at] + text[at + width :]
                case 3:
                    text = text[:at] + token + text[at + chance.choice((0, len(token))) :]
                case 4:
                    start = chance.randint(0, len(text))
                    piece = text[start : start + width]
                    text = text[:at] + piece * chance.choice((1, 2, 50, 1000, 10000)) + text[at:]
                case 5:
                    text = text[:at] + str(self._number(chance)) + text[at + width :]
                case 6 if other:
                    start = chance.randrange(len(other))
                    text = text[:at] + other[start : start + chance.choice((width, 60))] + text[at + width :]
                case 7:
                    text = text[:at] + text[at:].swapcase()
                case 8:
                    row = chance.choice("0123456789") * chance.choice((1, 2, 3, 9, 20, 400, 5000))
                    text = text[:at] + (row if chance.random() < 0.8 else chance.choice("[({") * 2000) + text[at:]
                case _:
                    text = text[:at] + chr(chance.randrange(0x20, 0x250)) + text[at + 1 :]
        return text[:LENGTH_MAX]

    def _bend_value(self, chance: random.Random, value: object) -> object:
        """Returns a copy of a nested value with one part replaced, removed, doubled or exchanged."""
        if isinstance(value, list) and value and chance.random() < 0.95:
            at = chance.randrange(len(value))
            bent = list(value)
            match chance.randrange(12):
                case 0:
                    del bent[at]
                case 1:
                    bent[at:at] = [bent[at]] * chance.choice((1, 1, 2, 300))
                case 2:
                    other = chance.randrange(len(value))
                    bent[at], bent[other] = bent[other], bent[at]
                case _:
                    bent[at] = self._bend_value(chance, bent[at])
            return bent
        if isinstance(value, dict) and value and chance.random() < 0.95:
            key = chance.choice(sorted(value))
            match chance.randrange(12):
                case 0:
                    return {name: item for name, item in value.items() if name != key}
                case 1:
                    return {**value, self._bend_text(chance, str(key), ""): value[key]}
                case _:
                    return {**value, key: self._bend_value(chance, value[key])}
        if isinstance(value, bytes) and chance.random() < 0.85:
            if value and chance.random() < 0.5:  # what is encoded within is bent within
                with contextlib.suppress(Corruption, OverflowError, TypeError):
                    inner = canonical.unpack(value, "x")
                    if isinstance(inner, list | dict):
                        return canonical.pack(self._bend_value(chance, inner))
            return self._bend_bytes(chance, value, b"")
        if isinstance(value, str) and chance.random() < 0.85:
            return self._bend_text(chance, value, "")
        if isinstance(value, int) and chance.random() < 0.5:
            return max(-(1 << 63), min((1 << 64) - 1, value + chance.choice((-1, 1, 256, -256))))
        number = max(-(1 << 63), min((1 << 64) - 1, self._number(chance)))
        return chance.choice((number, number, "", "x", "\udc80", b"", b"\0", bytes(16), bytes(32), [], {}, [[0, 0]]))
