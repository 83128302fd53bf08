"""Recovery keys: 256 bits as groups of letters that a person can print, read out and type.

Invariant: whoever mistypes learns where, and no message holds a part of a key. Implements docs/format.md, "Recovery
keys". Alphabet: Crockford's base 32.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from respaldo.codec.keys import KEY_BYTES, derive
from respaldo.core.errors import UsageError

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LETTERS = 56
GROUP_LETTERS = 4
_LINE_GROUPS = 7
_CHECK_BYTES = 3
_SPACE = re.compile(r"[\s\-‐-―−_.,:]+")  # noqa: RUF001 - all that is taken for a dash
_ALIKE = str.maketrans("OILU", "011V")
_HINT = "compare it with the printed one, group by group"


def show_key(key: bytes) -> str:
    """Returns a key of 32 bytes as two lines of seven groups."""
    number = int.from_bytes(key + _check(key), "big")
    letters = "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (LETTERS - 1), -1, -5))
    groups = [letters[at : at + GROUP_LETTERS] for at in range(0, LETTERS, GROUP_LETTERS)]
    return "\n".join("-".join(groups[at : at + _LINE_GROUPS]) for at in range(0, len(groups), _LINE_GROUPS))


def _check(key: bytes) -> bytes:
    return derive("recovery key check", key, _CHECK_BYTES)


def plain_letters(text: str) -> str:
    """Returns what was typed without what makes no difference: case, blanks, dashes, O for 0, I, L for 1, U for V."""
    return _SPACE.sub("", text).upper().translate(_ALIKE)


def parse_key(text: str) -> bytes:
    """Returns the key that a text means; raises `UsageError`, which says where the mistake is likely to be."""
    letters = plain_letters(text)
    for at, letter in enumerate(letters):
        if letter not in ALPHABET:
            group = at // GROUP_LETTERS + 1
            raise UsageError(f"group {group} of the recovery key has a sign in it that no such key has", hint=_HINT)
    if len(letters) != LETTERS:
        raise UsageError(f"a recovery key has {LETTERS} letters and digits, and this one {len(letters)}", hint=_HINT)
    key = _checked(letters)
    if key is None:
        groups = {at // GROUP_LETTERS + 1 for at in _suspects(letters)}
        where = f", probably in group {groups.pop()}" if len(groups) == 1 else ""
        raise UsageError(f"the recovery key has a mistake{where}: its check does not fit", hint=_HINT)
    return key


def _checked(letters: str) -> bytes | None:
    number = 0
    for letter in letters:
        number = number << 5 | ALPHABET.index(letter)
    data = number.to_bytes(KEY_BYTES + _CHECK_BYTES, "big")
    key, check = data[:KEY_BYTES], data[KEY_BYTES:]
    return key if _check(key) == check else None


def _suspects(letters: str) -> Iterator[int]:
    """Yields the places where another letter, or two in the other order, would make the check fit."""
    for at in range(LETTERS):
        for letter in ALPHABET:
            if _checked(letters[:at] + letter + letters[at + 1 :]):
                yield at
        swapped = letters[:at] + letters[at + 1 : at + 2] + letters[at] + letters[at + 2 :]
        if swapped != letters and _checked(swapped):
            yield at
