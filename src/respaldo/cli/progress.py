"""Progress: what a run says of itself, on standard error; a display on a terminal, lines elsewhere.

Counting costs an addition: a thread of its own draws, ten times a second, from what was counted by then.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from respaldo.cli import show

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_REDRAWS_PER_S = 10
_REMAINING_AFTER_S = 2.0


class Notes:
    """Prints notes as lines and counts; the progress of scripts."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.files = 0
        self.length_bytes = 0
        self.files_total = 0
        self.bytes_total = 0
        self.path = b""
        self._started_ns = time.monotonic_ns()

    def elapsed_ns(self) -> int:
        """Returns how long it has been going on."""
        return time.monotonic_ns() - self._started_ns

    def total(self, *, files: int, length_bytes: int) -> None:
        """Takes what there is in all."""
        self.files_total, self.bytes_total = files, length_bytes

    def advance(self, *, files: int = 0, length_bytes: int = 0) -> None:
        """Counts."""
        self.files += files
        self.length_bytes += length_bytes

    def at(self, path: bytes) -> None:
        """Remembers what is being worked on."""
        self.path = path

    def note(self, level: int, text: str, path: bytes = b"") -> None:
        """Prints a note that the level of verbosity asks for."""
        if level <= self.level:
            self.line(("warning: " if level < 0 else "") + (f"{show.shown(path)}: " if path else "") + show.shown(text))

    def line(self, text: str) -> None:
        """Prints a line."""
        show.err(text)


class Display(Notes):
    """Draws on a terminal: what is done, how fast, how long it will take where that is known, and where it is."""

    def __init__(self, level: int, console: Console) -> None:
        super().__init__(level)
        self._console = console

    def line(self, text: str) -> None:
        """Prints a line above the display."""
        from rich.text import Text  # start-up time

        self._console.print(Text(text), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        """Draws."""
        from rich.text import Text  # start-up time

        elapsed_s = max(self.elapsed_ns() / 1e9, 0.001)
        speed = self.length_bytes / elapsed_s
        of_files = f" of {self.files_total:,}" if self.files_total else ""
        of_bytes = f" of {show.size(self.bytes_total)}" if self.bytes_total else ""
        parts = [
            f"{self.files:,}{of_files} files",
            f"{show.size(self.length_bytes)}{of_bytes}",
            f"{show.size(speed)}/s",
            show.duration(int(elapsed_s * 1e9)),
        ]
        left = self.bytes_total - self.length_bytes
        if left > 0 and speed > 0 and elapsed_s > _REMAINING_AFTER_S:
            parts.append(f"{show.duration(int(left / speed * 1e9))} left")
        width = max(self._console.width - 1, 10)
        path = show.shown(self.path)
        if len(path) > width - 2:
            path = "…" + path[-(width - 3) :]
        return Text("\n".join((" · ".join(parts)[:width], f"  {path}")), no_wrap=True, overflow="crop")


def on_terminal() -> bool:
    """Whether somebody sees what is drawn."""
    return bool(sys.stderr and sys.stderr.isatty())


@contextlib.contextmanager
def watching(level: int, *, display: bool) -> Iterator[Notes]:
    """Gives a progress for one run: a display where that is wanted and standard error is a terminal."""
    if not (display and on_terminal()):
        yield Notes(level)
        return
    from rich.console import Console  # start-up time
    from rich.live import Live  # start-up time

    console = Console(stderr=True, highlight=False)
    shown = Display(level, console)
    with Live(shown, console=console, refresh_per_second=_REDRAWS_PER_S, transient=True, redirect_stdout=False):
        yield shown
