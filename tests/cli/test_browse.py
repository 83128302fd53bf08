"""`respaldo stats --browse`: what keys do, and how it looks on a terminal of 80 by 24."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import unicodedata

import pytest

from respaldo.cli.browse import Browser, fit, fit_end
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content, Entry
from respaldo.views.usage import Used


def entry(name: bytes, tree: int = 0) -> Entry:
    mode = 0o040755 if tree else 0o100644
    content = Content(level=0, ids=bytes([tree]) * 32) if tree else Content()
    return Entry(name=name, mode=mode, uid=0, gid=0, mtime_ns=0, content=content)


def used(name: bytes, size: int, stored: int, unique: int, tree: int = 0) -> Used:
    return Used(entry=entry(name, tree), size_bytes=size, stored_bytes=stored, unique_bytes=unique, files=1)


TREES = {
    1: [used(b"a", 10, 300, 5), used(b"b", 30, 100, 0, tree=2), used(b"c", 20, 200, 9), used(b"gone", 1, 1, 1, tree=9)],
    2: [used(b"x%03d" % number, number, number, 0) for number in range(100)],
}


@pytest.fixture
def browser():
    """A browser in a directory of four entries."""

    def load(tree):
        if tree[0] == 9:
            raise ChunkMissing("tree", tree)
        return TREES[tree[0]]

    made = Browser("title", load)
    made.open(b"/top", ChunkId(b"\x01" * 32))
    return made


def names(browser) -> list[bytes]:
    return [item.entry.name for item in browser.levels[-1].items]


def press(browser, *keys: str) -> None:
    for key in keys:
        browser.press(key)


def shown(browser, width: int = 79, height: int = 24) -> list[str]:
    return [line for line, _ in browser.lines(width, height)]


def test_sorts_are_by_what_their_keys_say(browser):
    """By what is stored at first; the same key again turns it round; the cursor stays on its entry."""
    assert names(browser) == [b"a", b"c", b"b", b"gone"]
    press(browser, "down", "s")
    assert names(browser) == [b"b", b"c", b"a", b"gone"]
    assert browser.levels[-1].items[browser.levels[-1].at].entry.name == b"c"
    press(browser, "u")
    assert names(browser) == [b"c", b"a", b"gone", b"b"]
    press(browser, "n")
    assert names(browser) == [b"a", b"b", b"c", b"gone"]
    press(browser, "n")
    assert names(browser) == [b"gone", b"c", b"b", b"a"]
    press(browser, "t", "t")
    assert names(browser) == [b"gone", b"b", b"c", b"a"]


def test_moving_stays_within_the_entries(browser):
    """Whatever is pressed."""
    press(browser, "up", "k", "page up")
    assert browser.levels[-1].at == 0
    press(browser, "end", "j", "down", "page down")
    assert browser.levels[-1].at == 3
    press(browser, "home")
    assert browser.levels[-1].at == 0
    press(browser, "unknown", "")
    assert browser.levels[-1].at == 0


def test_directories_open_and_close(browser):
    """Back above, the cursor is where it was; from the top there is no way further."""
    press(browser, "down", "down", "enter")
    assert browser.levels[-1].path == b"/top/b"
    assert len(names(browser)) == 100
    press(browser, "h")
    assert browser.levels[-1].at == 2
    press(browser, "left", "left")
    assert len(browser.levels) == 1


def test_what_cannot_be_opened_is_said(browser):
    """A file is no directory, and damage is a message and not an end."""
    press(browser, "enter")
    assert "not a directory" in shown(browser)[-2]
    press(browser, "end", "enter")
    assert "in no pack" in shown(browser)[-2]
    press(browser, "up")
    assert "stored" in shown(browser)[-2]


@pytest.mark.parametrize(("width", "height"), [(79, 24), (20, 5), (200, 60), (1, 1), (40, 6)])
def test_lines_fit_the_terminal(browser, width, height):
    """No line is wider, there are as many as there is room for, and the cursor is among them."""
    press(browser, "down", "down", "enter")
    for _ in range(70):
        press(browser, "j")
    lines = list(browser.lines(width, height))
    assert all(len(line) <= width for line, _ in lines)
    assert len(lines) == max(6, height)
    cursor = [line for line, reverse in lines[3:-2] if reverse]
    assert len(cursor) == 1


def test_help_says_what_keys_do_and_goes_again(browser):
    """Any key takes it away."""
    press(browser, "?")
    assert any("sort by size" in line for line in shown(browser))
    press(browser, "q")
    assert not browser.over
    press(browser, "q")
    assert browser.over


def test_names_are_escaped(browser):
    """No control character of a name or a path is in any line."""
    TREES[3] = [used(b"\x1b[2J\n\x07evil", 1, 1, 1), used("\u202ertl".encode(), 1, 1, 1), used(b"\xff", 1, 1, 1)]
    browser.open(b"/\x1b]0;title\x07", ChunkId(b"\x03" * 32))
    text = "".join(shown(browser))
    assert text.isprintable()
    assert "\\x1b[2J" in text


def test_empty_directories_are_empty(browser):
    """With a word that says so, and no key that fails."""
    TREES[4] = []
    browser.open(b"/empty", ChunkId(b"\x04" * 32))
    assert any("empty" in line for line in shown(browser)[3:])
    press(browser, "down", "enter", "s", "u", "end", "home")


def test_the_heading_says_what_it_is_sorted_by(browser):
    """And which way; by count of files, the counts stand where the bars were."""
    assert "storedv" in shown(browser)[2]
    press(browser, "t")
    assert "stored^" in shown(browser)[2]
    press(browser, "c")
    assert "filesv" in shown(browser)[2]
    assert "[" not in shown(browser)[3]
    columns = {shown(browser)[2].index("size") + 4, len(shown(browser)[3].split(" B", 1)[0]) + 2}
    assert len(columns) == 1


def test_every_line_of_help_fits_80_columns(browser):
    """Nobody has to guess what is cut off."""
    press(browser, "?")
    assert shown(browser, 79) == shown(browser, 300)
    assert len(shown(browser, 79, 24)) == 24


def test_wide_letters_are_counted_as_wide():
    """So that no line is longer than the terminal."""
    wide = "日本語のとても長い名前"
    for width in range(30):
        for text in (fit(wide, width), fit_end(wide, max(width, 2))):
            columns = sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
            assert columns <= max(width, 2)
    assert fit_end("/a/very/long/path", 10).endswith("path")


# --- on a terminal -------------------------------------------------------------------------------------------------


class Screen:
    """Is what a terminal of the kind vt100 shows, 80 by 24."""

    _STEP = re.compile(
        rb"\x1b\[(?P<numbers>[0-9;?]*)(?P<verb>[A-Za-z])|\x1b[()][A-Z0-9]|\x1b[=>78MD]|(?P<text>[^\x1b\x00-\x1f]+)|."
        rb"|(?P<control>[\r\n\b])",
        re.DOTALL,
    )

    def __init__(self) -> None:
        self.rows = [[" "] * 80 for _ in range(24)]
        self.row = self.column = 0

    def draw(self, data: bytes) -> None:
        """Does what bytes say."""
        for step in self._STEP.finditer(data):
            if step["text"]:
                for letter in step["text"].decode("utf-8", "replace"):
                    if self.column < 80:
                        self.rows[self.row][self.column] = letter
                        self.column += 1
            elif step["verb"]:
                self._move(
                    step["verb"].decode(), [int(number or 0) for number in step["numbers"].lstrip(b"?").split(b";")]
                )
            elif step[0] == b"\r":
                self.column = 0
            elif step[0] == b"\n":
                self.row = min(self.row + 1, 23)
            elif step[0] == b"\b":
                self.column = max(0, self.column - 1)

    def _move(self, verb: str, numbers: list[int]) -> None:
        count = max(1, numbers[0])
        if verb == "H":
            self.row, self.column = max(0, numbers[0] - 1), max(0, numbers[-1] - 1) if len(numbers) > 1 else 0
        elif verb in "AB":
            self.row = min(max(0, self.row + (count if verb == "B" else -count)), 23)
        elif verb in "CD":
            self.column = min(max(0, self.column + (count if verb == "C" else -count)), 79)
        elif verb == "K":
            first, last = (0, self.column + 1) if numbers[0] == 1 else (self.column, 80)
            self.rows[self.row][first:last] = " " * (last - first)
        elif verb == "J":
            self.rows[self.row][self.column :] = " " * (80 - self.column)
            for row in range(self.row + 1, 24):
                self.rows[row] = [" "] * 80

    def __str__(self) -> str:
        return "\n".join("".join(row).rstrip() for row in self.rows)


class Terminal:
    """Is a terminal with a program in it."""

    def __init__(self, words: list[str], **environment: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "respaldo.cli.main", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "vt100", "LC_ALL": "C.UTF-8", **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.raw = b""
        self.screen = Screen()

    def until(self, *wanted: str) -> str:
        """Reads until all of it is on the screen; returns what is."""
        deadline = time.monotonic() + 120  # it hangs
        while not all(text in str(self.screen) for text in wanted):
            assert time.monotonic() < deadline, str(self.screen)
            if not self._read(1.0):
                assert self.process.poll() is None, str(self.screen)
        return str(self.screen)

    def _read(self, timeout_s: float) -> bool:
        ready = select.poll()
        ready.register(self.master, select.POLLIN | select.POLLHUP)
        if not ready.poll(timeout_s * 1000):
            return False
        with contextlib.suppress(OSError):
            data = os.read(self.master, 65536)
            self.raw += data
            self.screen.draw(data)
            return bool(data)
        return False

    def send(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def end(self) -> int:
        """Reads to the end; returns the exit status."""
        while self._read(60):
            pass
        return self.process.wait(60)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal(cli, repository, tree):
    """Starts `stats --browse` of a small tree with a hostile name in it."""
    (tree / "docs" / "\x1b]0;evil\x07").write_text("x")
    cli("snapshot", tree)
    made = []

    def start(*words: str, **environment: str) -> Terminal:
        made.append(Terminal(["stats", "--browse", f"latest:{tree}", *words], **environment))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_browse_on_a_terminal(terminal):
    """It shows what is there, goes into a directory, sorts, explains itself, and quits."""
    one = terminal()
    one.until("/docs", "big", "link", "293.0 KiB", "[##########]", "stored 29", "q quit", "storedv")
    one.send(b"n")
    one.until("namev")
    one.send(b"\x1bOB\r")  # down, enter
    one.until("keep.log", "\\x1b]0;evil\\x07", "docs\n")
    one.send(b"?")
    one.until("no other snapshot holds", "any key")
    one.send(b" ")
    one.until("keep.log")
    one.send(b"h")
    one.until("/docs", "big")
    one.send(b"q")
    assert one.end() == 0
    assert b"\x1b]0;evil" not in one.raw


def test_browse_ends_with_an_interrupt(terminal):
    """Ctrl-C ends it with 130, and the screen from before is back."""
    one = terminal(TERM="xterm")
    one.until("quit")
    os.kill(one.process.pid, signal.SIGINT)
    assert one.end() == 130
    assert b"\x1b[?1049l" in one.raw


def test_browse_without_utf8(terminal):
    """A terminal that knows ASCII alone gets ASCII alone, the browser's own signs included."""
    one = terminal("--no-progress", LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    one.until("q quit")
    one.send(b"q")
    assert one.end() == 0
    assert one.raw.isascii()


def test_browse_follows_the_size_of_the_terminal(terminal):
    """A smaller one shows less, and nothing breaks."""
    one = terminal()
    one.until("q quit")
    fcntl.ioctl(one.master, termios.TIOCSWINSZ, struct.pack("HHHH", 6, 30, 0, 0))
    os.kill(one.process.pid, signal.SIGWINCH)
    one.send(b"jjkG?")
    one.send(b" q")
    assert one.end() == 0


def test_browse_needs_a_terminal(cli, repository, tree):
    """Without one it says so; as JSON it works."""
    cli("snapshot", tree)
    said = cli("stats", "--browse", expected=2)
    assert "terminal" in said.err
    found = cli("stats", "--browse", f"latest:{tree}", "--json").json
    assert {item["name"]: item["bytes"] for item in found["entries"]}["big"] == 300_000
    assert cli("stats", "--browse", f"latest:{tree}/big", "--json", expected=2).err
    assert cli("stats", "--browse", "a", "b", expected=2).err
