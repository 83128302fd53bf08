"""Pages for people: a word or a key as text, as a QR code in the terminal, and as a page in SVG.

Invariant: what is written is for its owner alone, takes the place of nothing, and is not left behind half.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    import segno

_WORDS_A_LINE = 6
_LETTERS_A_LINE = 64
_MODULE = 5
_MARGIN = 40
_LINE = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Is one page: what it is in a few lines, and the key or share."""

    heading: tuple[str, ...]
    text: str = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """The text as it is printed."""
        words = self.text.split(" ")
        if len(words) == 1:
            return [
                line[at : at + _LETTERS_A_LINE]
                for line in self.text.split("\n")
                for at in range(0, len(line), _LETTERS_A_LINE)
            ]
        numbered = [f"{number:>2}. {word:<8}" for number, word in enumerate(words, 1)]
        return [" ".join(numbered[at : at + _WORDS_A_LINE]).rstrip() for at in range(0, len(numbered), _WORDS_A_LINE)]


def qr_on_terminal(text: str) -> str:
    """Returns a QR code in half blocks; empty where the terminal cannot show it; raises `UsageError` if too long."""
    code = _qr(text)
    picture = io.StringIO()
    code.terminal(out=picture, compact=True)
    lines = picture.getvalue()
    try:
        lines.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ""
    width = shutil.get_terminal_size().columns
    return lines if code.symbol_size()[0] <= width else ""


def _qr(text: str) -> segno.QRCode:
    import segno  # start-up time

    # In capitals a code is smaller by a third; what reads it back takes no notice of case.
    try:
        return segno.make(" ".join(text.split()).upper(), error="m", micro=False)
    except segno.DataOverflowError:
        raise UsageError(f"{len(text)} letters are too many for a QR code", hint="keep it as text") from None


def picture(sheet: Sheet) -> str:
    """Returns a page in SVG."""
    code = _qr(sheet.text)
    side = code.symbol_size()[0] * _MODULE
    dark = []
    for row, line in enumerate(code.matrix_iter()):
        modules = bytes(line)
        at = 0
        while at < len(modules):
            end = at
            while end < len(modules) and modules[end]:
                end += 1
            if end > at:
                dark.append(f"M{at} {row}h{end - at}v1h-{end - at}z")
            at = max(end, at + 1)
    top = _MARGIN + _LINE * len(sheet.heading)
    below = top + side + _LINE
    written = [
        f'<text x="{_MARGIN}" y="{y}" font-family="{family}" font-size="{size}" xml:space="preserve">'
        f"{html.escape(line)}</text>"
        for family, size, start, lines in (
            ("sans-serif", 15, _MARGIN, [show.shown(line) for line in sheet.heading]),
            ("monospace", 18, below, sheet.lines),
        )
        for y, line in ((start + _LINE * number, line) for number, line in enumerate(lines))
    ]
    height = below + _LINE * len(sheet.lines) + _MARGIN
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="900" height="{height}" viewBox="0 0 900 {height}">\n'
        f'<rect width="900" height="{height}" fill="#fff"/>\n'
        f'<path transform="translate({_MARGIN - 4 * _MODULE} {top}) scale({_MODULE})" d="{"".join(dark)}"/>\n'
        + "\n".join(written)
        + "\n</svg>\n"
    )


def plain(sheet: Sheet) -> str:
    """Returns a page as text, which --key-file reads."""
    return "".join(f"# {show.shown(line)}\n" for line in sheet.heading) + "\n".join(sheet.lines) + "\n"


@contextlib.contextmanager
def written(paths: Sequence[str]) -> Iterator[list[io.BufferedWriter]]:
    """Makes files that only their owner can read, and takes them away again where what they are for fails."""
    made: list[str] = []
    try:
        with contextlib.ExitStack() as stack:
            files = []
            for path in paths:
                files.append(stack.enter_context(_new(path)))
                made.append(path)
            yield files
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                Path(path).unlink()
        raise


def _new(path: str) -> io.BufferedWriter:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} exists already", hint="name a file that is not there yet") from None
    except OSError as error:
        raise UsageError(f"cannot make {path}: {error.strerror}") from None
    return os.fdopen(fd, "wb")
