"""The published attack on content-defined chunking by chunk lengths, as a program (ePrint 2025/532, 2025/558).

An attacker plants files whose bytes he knows and sees the lengths of their chunks. In a gear chunker a chunk ends where
the top bits of ``sum(table[byte] << age)`` are zero: every cut is a linear equation modulo 2**64 in the secret table,
known but for its low bits. In a file of two letters it has one unknown, the difference of the letters' table entries,
and finding it is the hidden number problem (Boneh and Venkatesan 1996): a dozen cuts and a small lattice give it away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.attacks.lattice import reduced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Cutter = Callable[[bytes], Sequence[int]]
    """Returns the lengths of the chunks of a file: the victim, of which nothing else is seen."""

WINDOW = 64
MODULUS = 1 << 64


@dataclass(frozen=True, slots=True)
class Learnt:
    """Is what an attacker knows of a table: differences to the first letter's entry, and about where that lies."""

    first: int
    offset: int
    differences: dict[int, int]

    def candidates(self, data: bytes, bits: int) -> list[int]:
        """Returns the places (in bytes from the beginning) at which the top bits of the hash should be zero."""
        table = [self.differences.get(letter, 0) for letter in range(256)]
        limit, value, found = MODULUS >> bits, 0, []
        for place, letter in enumerate(data, 1):
            value = (value * 2 + table[letter]) % MODULUS
            if place >= WINDOW and (value - self.offset) % MODULUS < limit:
                found.append(place)
        return found


def ends(lengths: Iterable[int]) -> Iterator[int]:
    """Yields where chunks end, in bytes from the beginning of the file."""
    at = 0
    for length in lengths:
        at += length
        yield at


def learn(cutter: Cutter, letters: bytes, plant: Callable[[bytes], bytes], *, bits: int, maximum: int) -> Learnt | None:
    """Learns the table entries of some letters from the chunk lengths of files that hold two of them each.

    ``plant`` makes a random file of the letters that it is given; ``bits`` must be zero at a cut; chunks of ``maximum``
    bytes end for another reason. Returns None where no table whatever explains the lengths.
    """
    first, limit = letters[0], MODULUS >> bits
    differences, span = {first: 0}, (0, MODULUS)
    for letter in letters[1:]:
        data = plant(bytes((first, letter)))
        lengths = list(cutter(data))
        seen = [
            end for end, length in zip(ends(lengths), lengths, strict=True) if length != maximum and end < len(data)
        ]
        weights = [_weight(data[end - WINDOW : end], letter) for end in seen]
        difference = _hidden_number(weights, bits)
        if difference is None:
            return None
        # Its negative explains this file as well: one of the two goes with the offset that explains the others. (All
        # of them negated make the same predictions.)
        for either in (difference, -difference % MODULUS):
            offsets = _offsets([weight * either % MODULUS for weight in weights], limit)
            common = _common(span, offsets)
            if common:
                differences[letter], span = either, common
                break
        else:
            return None
    return Learnt(first, sum(span) // 2 % MODULUS, differences)


def _common(span: tuple[int, int], offsets: tuple[int, int]) -> tuple[int, int] | None:
    """Returns the part of a span that lies among the offsets, which mean as much when moved by the modulus."""
    for shift in (-MODULUS, 0, MODULUS):
        low, high = max(span[0], offsets[0] + shift), min(span[1], offsets[1] + shift)
        if low <= high:
            return low, high
    return None


def _weight(window: bytes, letter: int) -> int:
    """Returns by what the difference of the letters is multiplied in the hash of a window."""
    return sum(1 << (WINDOW - 1 - place) for place, byte in enumerate(window) if byte == letter)


def _hidden_number(weights: list[int], bits: int) -> int | None:
    """Returns the number whose products with the weights lie within 2**(64 - bits) of each other, modulo 2**64."""
    count = 64 // (bits - 3) + 4
    if len(weights) <= count:
        return None
    chosen = [weight - weights[0] for weight in weights[1 : count + 1]]
    basis = [[MODULUS << bits if row == column else 0 for column in range(count + 1)] for row in range(count)]
    basis.append([*((weight % MODULUS) << bits for weight in chosen), 1])
    for row in reduced(basis):
        for sign in (1, -1):
            difference = sign * row[-1] % MODULUS
            low, high = _offsets([weight * difference % MODULUS for weight in weights], MODULUS >> bits)
            if low <= high and difference:
                return difference
    return None


def _offsets(values: list[int], limit: int) -> tuple[int, int]:
    """Returns the least and the greatest offset that put every value within ``[offset, offset + limit)``."""
    around = values[0]
    centred = [(value - around + MODULUS // 2) % MODULUS - MODULUS // 2 for value in values]
    return around + max(centred) - limit + 1, around + min(centred)
