"""Recovery keys on paper and at a terminal: printed with a QR code, as a page in SVG, and typed in.

Invariant: a key goes where it was asked for, a terminal or a file that only its owner can read, and nowhere else: not
into JSON, not into a pipe that nobody named, not into an error.
"""

from __future__ import annotations

import contextlib
import html
import io
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    import segno

    from respaldo.api import Secret
    from respaldo.cli.settings import Settings

_MISTAKES_MAX = 5
_WORDS_A_LINE = 6
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
            return self.text.split("\n")
        numbered = [f"{number:>2}. {word:<8}" for number, word in enumerate(words, 1)]
        return [" ".join(numbered[at : at + _WORDS_A_LINE]).rstrip() for at in range(0, len(numbered), _WORDS_A_LINE)]


def sheets(texts: Sequence[str], *, repository: str, label: str, made: str, threshold: int) -> list[Sheet]:
    """Returns the pages of a recovery key, or one page for each of its shares."""
    what = f"Opens repository {repository[:16]}; made {made}" + (f", {label}" if label else "")
    how = "Open it with: respaldo restore … --recovery"
    if len(texts) == 1:
        return [Sheet(heading=("Recovery key of a Respaldo repository", what, how), text=texts[0])]
    return [
        Sheet(
            heading=(
                f"Share {number} of {len(texts)} of the recovery key of a Respaldo repository; {threshold} are needed",
                what,
                how,
            ),
            text=text,
        )
        for number, text in enumerate(texts, 1)
    ]


def qr_on_terminal(text: str) -> str:
    """Returns a QR code in half blocks; empty where the terminal cannot show it."""
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
    return segno.make(" ".join(text.split()).upper(), error="m", micro=False)


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


def names(path: str, count: int) -> list[str]:
    """Returns the names of the files for so many pages: the one that was given, or numbered ones."""
    if count == 1:
        return [path]
    base, suffix = os.path.splitext(path)
    return [f"{base}-{number}{suffix}" for number in range(1, count + 1)]


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


def ask() -> Secret:
    """Asks for a recovery key, or for as many shares as it takes; says at once where something is mistyped.

    What is typed is seen, since it is copied from paper, and wiped off the screen afterwards.
    """
    from respaldo.api import Typed  # start-up time

    if not (sys.stdin and sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "no terminal to type a recovery key at", hint="put it, or the shares, into a file, and use --key-file FILE"
        )
    typed = Typed()
    mistakes = 0
    while typed.secret is None:
        prompt = f"{typed.missing}: "
        sys.stderr.write(prompt)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
            break
        _wipe(len(prompt) + len(line.rstrip("\n")))
        try:
            typed.add(line)
        except UsageError as error:
            mistakes += 1
            if mistakes >= _MISTAKES_MAX:
                raise
            show.err(f"{error}; {error.hint}" if error.hint else str(error))
    return typed.finish()


def _wipe(length: int) -> None:
    """Takes what was typed off the screen."""
    columns = max(1, shutil.get_terminal_size().columns)
    sys.stderr.write(f"\x1b[{max(0, length - 1) // columns + 1}A\r\x1b[J")
    sys.stderr.flush()


def make(settings: Settings, *, threshold: int | None, count: int | None, svg: str, output: str, label: str) -> int:
    """Makes a recovery key, puts its slot and shows it: what is written is on the disk before the slot is there."""
    from respaldo.api import draw_recovery  # start-up time

    if (threshold is None) != (count is None):
        raise UsageError("--shares and --of belong together", hint="five shares, any three of them: --shares 3 --of 5")
    to_file = output if output != "-" else ""
    seen = bool(sys.stdout and sys.stdout.isatty()) and not settings.json and not settings.quiet
    if not (svg or output or seen):
        raise UsageError(
            "there is no terminal to show the key on", hint="write it to a file: --svg FILE, --output FILE"
        )
    if output == "-" and settings.json:
        raise UsageError("--output - and --json exclude each other: no key stands in a document")
    printed = draw_recovery(threshold or 0, count or 0)
    with settings.open(writes=True, secret=settings.secret()) as repository:
        pages = sheets(
            printed.texts,
            repository=repository.id,
            label=label,
            made=show.local_time(time.time_ns())[:10],
            threshold=threshold or 1,
        )
        svgs, texts = (names(path, len(pages)) if path else [] for path in (svg, to_file))
        with written(svgs + texts) as files:
            pictured = [picture(page) for page in pages] if svgs else []
            plainly = [plain(page) for page in pages] if texts else []
            for file, content in zip(files, pictured + plainly, strict=True):
                file.write(content.encode())
                file.flush()
                os.fsync(file.fileno())
            name = repository.slots.add(printed.secret, label=label, use=printed.use)
    key = name.rpartition("/")[2]
    if output == "-":
        show.out("\n".join(plain(page) for page in pages).rstrip("\n"))
    elif seen and not (svg or output):
        for page in pages:
            _show(page)
    where = f": {', '.join(show.shown(path) for path in svgs + texts)}" if svgs or texts else ""
    told = f"added recovery key {key}{where}\ntry it with: respaldo key test --recovery"
    if output == "-":
        show.err(told)
    else:
        settings.report({"key": key, "use": printed.use, "files": svgs + texts}, told)
    return 0


def _show(sheet: Sheet) -> None:
    show.out("\n".join(map(show.shown, sheet.heading)))
    show.out(qr_on_terminal(sheet.text) + "\n".join(sheet.lines) + "\n")
