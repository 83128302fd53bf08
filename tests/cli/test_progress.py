from __future__ import annotations

import os
import pty
import sys

import pytest

from respaldo.cli import progress


@pytest.mark.usefixtures("repository")
def test_display_on_a_terminal(place, tree):
    """On a terminal there is a display of files, bytes and the path, and names stay harmless in it."""
    (tree / "\x1b[31mred").write_bytes(os.urandom(5 << 20))
    status, shown = on_terminal("snapshot", str(tree), "--limit", "8MiB/s", "-v")
    assert status == 0, shown
    assert b" files \xc2\xb7 " in shown
    assert b"/tree/\\x1b[31mred: new" in shown
    assert b"\x1b[31m" not in shown
    assert b"snapshot " in shown


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("word", ["--no-progress", "--json", "-q"])
def test_display_can_be_turned_off(tree, word):
    """There is none where nobody wants to see one."""
    status, shown = on_terminal("snapshot", str(tree), word)
    assert status == 0, shown
    assert b"\x1b" not in shown


def on_terminal(*words: str) -> tuple[int, bytes]:
    """Runs a command on a terminal of its own; returns the status and all that it wrote."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-m", "respaldo.cli.main", *words])  # noqa: S606 - the child
    shown = b""
    while True:
        try:
            more = os.read(terminal, 1000)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


@pytest.mark.parametrize(("level", "shown"), [(-2, ""), (-1, "w"), (0, "w0"), (1, "w01"), (2, "w012")])
def test_notes_up_to_the_level(capsys, level, shown):
    """Warnings are shown even with -q, the rest as far as -v asks for."""
    notes = progress.Notes(level)
    for at, text in ((-1, "w"), (0, "0"), (1, "1"), (2, "2")):
        notes.note(at, text)
    assert "".join(line[-1] for line in capsys.readouterr().err.split("\n") if line) == shown


def test_time_left_is_said_when_it_is_known(monkeypatch):
    """The display says how long it will take once there is a total and some experience."""
    from rich.console import Console

    display = progress.Display(0, Console(width=200))
    display.total(files=10, length_bytes=4 << 30)
    display.advance(files=5, length_bytes=1 << 30)
    display.at(b"/a/path")
    assert "left" not in str(display.__rich__())
    monkeypatch.setattr(display, "elapsed_ns", lambda: 10 * 10**9)
    text = str(display.__rich__())
    assert "5 of 10 files" in text
    assert "1.0 GiB of 4.0 GiB" in text
    assert "30 s left" in text
    assert "/a/path" in text
