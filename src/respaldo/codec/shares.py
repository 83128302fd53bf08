"""Shares: a key divided among people, so that any few of them give it back and fewer know nothing (Shamir).

Shares are those of SLIP-39, a public standard with several implementations: 33 words each, with a checksum that
finds any three wrong words. No message holds a word. Implements docs/format.md, "Recovery keys". The library is
Trezor's reference implementation, loaded when it is needed (docs/adr/0028-slots-and-recovery.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

from respaldo.codec.keys import KEY_BYTES
from respaldo.core.errors import UsageError

WORDS = 33
SHARES_MAX = 16
_WORD = re.compile(r"[a-z]+")
_TOKEN = re.compile(r"[a-z0-9]+")
_PREFIX_LETTERS = 4
_EXPONENT = 0
_TRIED_MAX = 100
_HINT = "compare it with the written one, word by word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Is one share as it was given: its words, of which set it is, which one, and how many of the set it takes."""

    words: str = field(repr=False)
    identifier: int
    index: int
    threshold: int


def split_key(key: bytes, threshold: int, count: int) -> tuple[str, ...]:
    """Divides a key of 32 bytes into shares of 33 words; raises `UsageError` where the numbers make no sense.

    Draws from the kernel's generator. Before anybody sees them, it is tried that they give the key back.
    """
    if not 2 <= threshold <= count <= SHARES_MAX:
        raise UsageError(
            f"cannot make {count} shares of which {threshold} are needed",
            hint=f"at least 2 must be needed, and at most {SHARES_MAX} can be made: --shares 3 --of 5",
        )
    from shamir_mnemonic import generate_mnemonics  # noqa: PLC0415 - start-up time

    [shares] = generate_mnemonics(1, [(threshold, count)], key, iteration_exponent=_EXPONENT)
    for some in islice(combinations(shares, threshold), _TRIED_MAX):
        if _combine(some) != key:
            msg = "shares do not give the key back"
            raise RuntimeError(msg)
    return tuple(shares)


def parse_share(text: str) -> Share:
    """Returns a share; numbers, commas and case make no difference, and four letters of a word are enough.

    Raises `UsageError`, which says which word is none, or that the checksum does not fit.
    """
    from shamir_mnemonic import MnemonicError  # noqa: PLC0415 - start-up time
    from shamir_mnemonic import Share as Parsed  # noqa: PLC0415

    known = _known()
    words = []
    for number, typed in enumerate(split_words(text), 1):
        word = known.get(typed[:_PREFIX_LETTERS], "")
        if not word.startswith(typed):
            raise UsageError(f"word {number} of the share is none that a share can have", hint=_HINT)
        words.append(word)
    if len(words) != WORDS:
        raise UsageError(f"a share has {WORDS} words, and this one {len(words)}", hint=_HINT)
    try:
        parsed = Parsed.from_mnemonic(" ".join(words))
    except MnemonicError:
        raise UsageError("the share has a mistake: its checksum does not fit", hint=_HINT) from None
    if (parsed.group_index, parsed.group_threshold, parsed.group_count) != (0, 1, 1):
        raise UsageError("this is a share of another kind of secret: it has groups")
    return Share(
        words=" ".join(words),
        identifier=parsed.identifier,
        index=parsed.index,
        threshold=parsed.member_threshold,
    )


def split_words(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return _WORD.findall(text.lower())


def join_shares(shares: Sequence[Share]) -> bytes:
    """Returns the key that shares give; raises `UsageError` where they are too few, or not of one set."""
    first = {share.index: share for share in shares}
    if len({(share.identifier, share.threshold) for share in shares}) > 1:
        raise UsageError("the shares do not belong together: they are of different keys")
    needed = shares[0].threshold if shares else 0
    if not shares or len(first) < needed:
        raise UsageError(
            f"{needed} different shares are needed, and these are {len(first)}", hint="ask for the shares of others"
        )
    key = _combine([share.words for share in list(first.values())[:needed]])
    if key is None or len(key) != KEY_BYTES:
        raise UsageError("the shares give no key: one of them is of another set")
    return key


def _combine(shares: Sequence[str]) -> bytes | None:
    from shamir_mnemonic import MnemonicError, combine_mnemonics  # noqa: PLC0415 - start-up time

    try:
        return bytes(combine_mnemonics(shares))
    except MnemonicError:
        return None


def parse_shares(text: str) -> Iterator[Share]:
    """Yields the shares in a text, one after another."""
    words = split_words(text)
    for at in range(0, len(words), WORDS):
        yield parse_share(" ".join(words[at : at + WORDS]))


def are_words(text: str) -> bool:
    """Tells whether a text is meant as shares and not as a recovery key: most of it is words that a share may have."""
    known = _known()
    tokens = [token for token in _TOKEN.findall(text.lower()) if not token.isdecimal()]
    hits = sum(token.isalpha() and token[:_PREFIX_LETTERS] in known for token in tokens)
    return bool(tokens) and hits * 2 > len(tokens)


def _known() -> dict[str, str]:
    """Returns the words by their first four letters, which no two have in common."""
    from shamir_mnemonic.wordlist import WORDLIST  # noqa: PLC0415 - start-up time

    return {word[:_PREFIX_LETTERS]: word for word in WORDLIST}
