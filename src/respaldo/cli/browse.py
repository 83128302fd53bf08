"""Browsing: what takes the space in a snapshot, directory by directory, in a terminal; after ncdu.

What is shown, and what keys do, is decided here without a terminal; `run` puts it on one. Needs nothing but 80 columns
and 24 lines (20 by 5 will do), no mouse and no colours. Nothing of a name reaches the terminal unescaped.
"""

from __future__ import annotations

import contextlib
import curses
import locale
import select
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.core.errors import Interrupted, RespaldoError

if TYPE_CHECKING:
    from respaldo.api import Used
    from respaldo.core.ids import ChunkId

Load = Callable[["ChunkId"], Sequence["Used"]]
"""Gives what is in a directory. May take seconds; raises what reading raises."""

_WAIT_MS = 200
SORTS = {"s": "size", "t": "stored", "u": "unique", "n": "name", "c": "files"}
_HELP = (
    "up, down, k, j   move; page up, page down, home, end",
    "enter, right, l  open a directory",
    "left, h          back to the one above",
    "s t u c n        sort by size, stored, unique, count of files, name",
    "                 the same key again: the other way round",
    "q                quit",
    "",
    "size    what the files restore to",
    "stored  what their content takes, compressed, each piece of it once:",
    "        where it is met first, in the order of names",
    "unique  what of it no other snapshot holds",
    "!       something of it could not be read, or is not in the snapshot",
)
_BAR = 10
_FRAME_LINES = 5
_NARROW = 4
_KEYS = "s size  t stored  u unique  c count  n name  enter in  h out  ? help  q quit"


@dataclass(slots=True)
class Level:
    """Is a directory that is open: its path, what is in it, and where the cursor stands."""

    path: bytes
    items: list[Used]
    at: int = 0
    top: int = 0


@dataclass(slots=True)
class Browser:
    """Is what a person sees: the directories on the way, the last of which is shown."""

    title: str
    load: Load
    levels: list[Level] = field(default_factory=list)
    sort: str = "stored"
    ascending: bool = False
    help: bool = False
    over: bool = False
    message: str = ""
    page: int = 10

    def open(self, path: bytes, tree: ChunkId) -> None:
        """Goes into a directory; raises what reading raises."""
        self.levels.append(Level(path, self._sorted(self.load(tree))))

    def _sorted(self, items: Sequence[Used]) -> list[Used]:
        by_name = sorted(items, key=lambda item: item.entry.name, reverse=self.sort == "name" and self.ascending)
        if self.sort == "name":
            return by_name
        return sorted(by_name, key=self._amount, reverse=not self.ascending)

    def _amount(self, item: Used) -> int:
        amounts = {
            "size": item.size_bytes,
            "stored": item.stored_bytes,
            "unique": item.unique_bytes,
            "files": item.files,
        }
        return amounts.get(self.sort, item.stored_bytes)

    # --- keys ------------------------------------------------------------------------------------------------------

    def press(self, key: str) -> None:
        """Does what a key says; one that says nothing does nothing."""
        level = self.levels[-1]
        self.message = ""
        if self.help:
            self.help = False
        elif key in {"q", "Q"}:
            self.over = True
        elif key == "?":
            self.help = True
        elif key in SORTS:
            self._sort_by(SORTS[key])
        elif key in {"left", "h"}:
            if len(self.levels) > 1:
                self.levels.pop()
        elif key in {"enter", "right", "l"}:
            self._enter(level)
        else:
            steps = {
                "up": -1, "k": -1, "down": 1, "j": 1, "page up": -self.page, "page down": self.page,
                "home": -len(level.items), "g": -len(level.items), "end": len(level.items), "G": len(level.items),
            }  # fmt: skip
            level.at = min(max(0, level.at + steps.get(key, 0)), max(0, len(level.items) - 1))

    def _sort_by(self, sort: str) -> None:
        self.ascending = not self.ascending if sort == self.sort else False
        self.sort = sort
        for level in self.levels:
            here = level.items[level.at].entry.name if level.items else b""
            level.items = self._sorted(level.items)
            level.at = next((at for at, item in enumerate(level.items) if item.entry.name == here), 0)

    def _enter(self, level: Level) -> None:
        if not level.items:
            return
        entry = level.items[level.at].entry
        tree = next(iter(entry.content), None) if entry.is_dir else None
        if tree is None:
            self.message = "it is not a directory" if not entry.is_dir else "nothing of it is in the snapshot"
            return
        try:
            self.open(level.path.rstrip(b"/") + b"/" + entry.name, tree)
        except Interrupted:
            raise
        except RespaldoError as error:
            self.message = show.shown(str(error))

    # --- lines -----------------------------------------------------------------------------------------------------

    def lines(self, width: int, height: int) -> Iterator[tuple[str, bool]]:
        """Yields lines, each as wide as the terminal at most, and whether it is shown in reverse."""
        level = self.levels[-1]
        rows = max(1, height - _FRAME_LINES)
        self.page = rows
        yield fit(f" {self.title}", width), True
        yield fit_end(f" {show.shown(level.path)}", width), False
        yield fit(self._heading(), width), False
        if self.help:
            for line in _HELP[:rows]:
                yield fit(f"  {line}", width), False
            yield from [("", False)] * max(0, rows - len(_HELP))
        else:
            level.top = max(min(level.top, level.at), level.at - rows + 1)
            most = max(map(self._bar_amount, level.items), default=0)
            for number in range(level.top, level.top + rows):
                if number < len(level.items):
                    yield fit(self._line(level.items[number], most), width), number == level.at
                else:
                    yield fit("  empty" if not level.items and number == 0 else "", width), False
        yield fit(self.message or self._totals(level), width), False
        yield fit(" any key: back" if self.help else f" {_KEYS}", width), True

    def _bar_amount(self, item: Used) -> int:
        return item.stored_bytes if self.sort == "name" else self._amount(item)

    def _line(self, item: Used, most: int) -> str:
        filled = -(-_BAR * self._bar_amount(item) // most) if most else 0
        mark = "!" if item.missing or item.entry.mark else " "
        name = show.shown(item.entry.name)
        kind = "/" if item.entry.is_dir else " "
        sizes = (item.size_bytes, item.stored_bytes, item.unique_bytes)
        bar = f"{item.files:>{_BAR + 2},}" if self.sort == "files" else f"[{'#' * filled:<{_BAR}}]"
        return f"{mark}{''.join(f'{show.size(size):>11}' for size in sizes)}  {bar} {kind}{name}"

    def _heading(self) -> str:
        way = "^" if self.ascending else "v"
        names = {name: name + way if name == self.sort else name + " " for name in SORTS.values()}
        bar = names["files"] if self.sort == "files" else ""
        return f"  {names['size']:>11}{names['stored']:>11}{names['unique']:>11} {bar:>{_BAR + 3}}  {names['name']}"

    def _totals(self, level: Level) -> str:
        size = sum(item.size_bytes for item in level.items)
        stored = sum(item.stored_bytes for item in level.items)
        unique = sum(item.unique_bytes for item in level.items)
        files = sum(item.files for item in level.items)
        return (
            f" size {show.size(size)} · stored {show.size(stored)} · unique {show.size(unique)} · "
            f"{show.count(files, 'file')}"
        )


def _wide(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Returns the beginning of a text that fits into so many columns."""
    used = 0
    for at, letter in enumerate(text):
        used += _wide(letter)
        if used > width:
            return text[:at]
    return text


def fit_end(text: str, width: int) -> str:
    """Returns a text with its end kept where it does not fit."""
    if width < _NARROW or fit(text, width) == text:
        return fit(text, width)
    used = 0
    for at in range(len(text) - 1, -1, -1):
        used += _wide(text[at])
        if used > width - 2:
            return f" …{text[at + 1 :]}"
    return text


def run(browser: Browser, stop: Callable[[], bool]) -> None:
    """Shows it on the terminal until somebody quits; the terminal is as it was afterwards, whatever happens.

    ``stop`` is asked several times a second whether it shall end.
    """
    locale.setlocale(locale.LC_CTYPE, "")
    curses.wrapper(lambda screen: _loop(screen, browser, stop))


def _key(screen: curses.window, stop: Callable[[], bool]) -> int:
    """Waits for a key; returns -1 where there is to be none any more.

    Waits a little while at a time: a signal that comes just before the wait begins does not end it.
    """
    gone = select.poll()
    gone.register(sys.stdin.fileno(), 0)  # nothing but that the terminal is gone
    while not stop() and not gone.poll(0):
        key = screen.getch()
        if key >= 0:
            return key
    return -1


def _loop(screen: curses.window, browser: Browser, stop: Callable[[], bool]) -> None:
    names = {
        curses.KEY_UP: "up", curses.KEY_DOWN: "down", curses.KEY_LEFT: "left", curses.KEY_RIGHT: "right",
        curses.KEY_PPAGE: "page up", curses.KEY_NPAGE: "page down", curses.KEY_HOME: "home", curses.KEY_END: "end",
        curses.KEY_ENTER: "enter", curses.KEY_BACKSPACE: "left", 10: "enter", 13: "enter", 127: "left", 8: "left",
    }  # fmt: skip
    _hide_cursor(curses.curs_set)
    screen.timeout(_WAIT_MS)
    while not browser.over:
        _draw(screen, browser)
        key = _key(screen, stop)
        if key < 0:
            return
        letter = chr(key) if 32 < key < 127 else ""
        name = names.get(key, letter)
        if name in {"enter", "right", "l"}:
            _say(screen, " looking …")
        browser.press(name)


def _hide_cursor(curs_set: Callable[[int], object]) -> None:
    with contextlib.suppress(curses.error):  # not every terminal can
        curs_set(0)


def _draw(screen: curses.window, browser: Browser) -> None:
    height, width = screen.getmaxyx()
    screen.erase()
    for number, (line, reverse) in enumerate(browser.lines(width - 1, height)):
        if number < height:
            _put(screen, number, line.ljust(width - 1) if reverse else line, curses.A_REVERSE if reverse else 0)
    screen.refresh()


def _say(screen: curses.window, text: str) -> None:
    height, width = screen.getmaxyx()
    _put(screen, max(0, height - 2), text.ljust(width - 1), 0)
    screen.refresh()


def _put(screen: curses.window, row: int, text: str, attribute: int) -> None:
    shown = text.encode(screen.encoding, "backslashreplace").decode(screen.encoding)
    with contextlib.suppress(curses.error):  # a terminal that was made smaller meanwhile
        screen.addnstr(row, 0, shown, max(1, screen.getmaxyx()[1] - 1), attribute)
