"""Recovery keys on paper and at a terminal: printed with a QR code, as a page in SVG, and typed in.

Invariant: a key goes where it was asked for, a terminal or a file that only its owner can read, and nowhere else: not
into JSON, not into a pipe that nobody named, not into an error.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.cli.sheets import Sheet, picture, plain, qr_on_terminal, written
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Secret
    from respaldo.cli.settings import Settings

_MISTAKES_MAX = 5


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


def names(path: str, count: int) -> list[str]:
    """Returns the names of the files for so many pages: the one that was given, or numbered ones."""
    if count == 1:
        return [path]
    base, suffix = os.path.splitext(path)
    return [f"{base}-{number}{suffix}" for number in range(1, count + 1)]


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
            if output == "-":
                show.out("\n".join(plain(page) for page in pages).rstrip("\n"))
                show.flush()  # where it cannot be written, there shall be no slot whose key nobody has
            name = repository.slots.add(printed.secret, label=label, use=printed.use)
    key = name.rpartition("/")[2]
    if seen and not (svg or output):
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
