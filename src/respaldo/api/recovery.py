"""Recovery keys as people hold them: drawn, divided into shares, and read back from what is typed or stands in a file.

Never keeps or prints one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from respaldo.codec import recovery, shares
from respaldo.codec.keys import KEY_BYTES
from respaldo.codec.slots import Secret
from respaldo.core.errors import UsageError
from respaldo.core.seams import system_random
from respaldo.store.slots import RECOVERY

TEXT_BYTES_MAX = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """Is a new recovery key: the secret, what is to be printed (one text, or one for each share), the slot's use."""

    secret: Secret
    texts: tuple[str, ...] = field(repr=False)
    use: str


def draw_recovery(threshold: int = 0, count: int = 0) -> Printed:
    """Draws a recovery key, in shares of which ``threshold`` are needed where there is a ``count``."""
    key = system_random(KEY_BYTES)
    if not count:
        return Printed(secret=Secret(key=key), texts=(recovery.show_key(key),), use=RECOVERY)
    texts = shares.split_key(key, threshold, count)
    return Printed(secret=Secret(key=key), texts=texts, use=f"shares {threshold}/{count}")


def parse_recovery(text: str) -> Secret:
    """Returns the secret that a recovery key means, or enough shares; lines that begin with # are left out.

    Raises `UsageError`, without a part of what was given.
    """
    typed = Typed()
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            typed.add(line)
    return typed.finish()


class Typed:
    """Takes a recovery key or shares as they are typed, line by line, in as many lines as it takes."""

    def __init__(self) -> None:
        self._shares: dict[int, shares.Share] = {}
        self._text = ""
        self.secret: Secret | None = None
        """What was typed, once it is whole."""

    def add(self, line: str) -> None:
        """Takes a line; raises `UsageError` for what is complete and wrong, and goes on without it."""
        self._text = f"{self._text} {line}".strip()
        if not self._text or self.secret is not None:
            return
        if shares.are_words(self._text):
            if len(shares.split_words(self._text)) >= shares.WORDS:
                text, self._text = self._text, ""
                for share in shares.parse_shares(text):
                    self._take(share)
        elif len(recovery.plain_letters(self._text)) >= recovery.LETTERS:
            text, self._text = self._text, ""
            self.secret = Secret(key=recovery.parse_key(text))

    def _take(self, share: shares.Share) -> None:
        others = list(self._shares.values())
        if others and (others[0].identifier, others[0].threshold) != (share.identifier, share.threshold):
            raise UsageError("this share is of another key than the ones before; it is left out")
        self._shares[share.index] = share
        if len(self._shares) >= share.threshold:
            self.secret = Secret(key=shares.join_shares(list(self._shares.values())))

    @property
    def missing(self) -> str:
        """What is still to be typed, in words."""
        if self._text and shares.are_words(self._text):
            return f"{shares.WORDS - len(shares.split_words(self._text))} more words"
        if self._text:
            return f"{recovery.LETTERS - len(recovery.plain_letters(self._text))} more letters"
        if self._shares:
            some = next(iter(self._shares.values()))
            more = some.threshold - len(self._shares)
            return "another share" if more == 1 else f"{more} more shares"
        return "recovery key, or a share of it"

    def finish(self) -> Secret:
        """Returns the secret; raises `UsageError` where what was typed is not whole."""
        if self.secret is not None:
            return self.secret
        if self._text and not self._shares and not shares.are_words(self._text):
            return Secret(key=recovery.parse_key(self._text))  # which says what is wrong with it
        if self._text:
            list(shares.parse_shares(self._text))
        if self._shares:
            return Secret(key=shares.join_shares(list(self._shares.values())))
        raise UsageError("no recovery key was given")
