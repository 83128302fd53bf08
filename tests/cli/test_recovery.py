"""Recovery keys: printed, put into files, typed in, divided."""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from respaldo.api import parse_recovery
from tests.cli.codes import code_of, dark_modules, read_page, read_shown
from tests.cli.test_passphrase import SOURCES, talk

pytestmark = pytest.mark.usefixtures("repository")

GROUPS = re.compile(r"(?:[0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}")


@pytest.fixture
def typing(monkeypatch):
    """Has no secret in the environment of what is started afterwards."""

    def start():
        for name in SOURCES:
            monkeypatch.delenv(name, raising=False)

    return start


def key_of(path: Path) -> str:
    return "\n".join(line for line in path.read_text().splitlines() if not line.startswith("#"))


def test_recovery_key_in_a_file_opens(cli, place):
    """The text file is a key file; it says what it is, and only its owner can read it."""
    made = cli("key", "recovery", "--output", place / "paper", "--label", "safe", "--json")
    assert made.json["files"] == [str(place / "paper")]
    assert made.json["use"] == "recovery"
    assert (place / "paper").stat().st_mode & 0o777 == 0o600
    told = cli("key", "test", "--key-file", place / "paper", "--json").json
    assert (told["id"], told["use"], told["label"]) == (made.json["key"], "recovery", "safe")
    [line, _] = GROUPS.findall((place / "paper").read_text())
    assert line not in made.out + made.err
    listed = cli("key", "list").out
    assert "recovery key" in listed


def test_page_has_the_key_and_its_code(cli, place):
    """The SVG is well-formed, holds the groups as text, and the code is that of the key."""
    cli("key", "recovery", "--svg", place / "page.svg", "--output", place / "paper", "--label", "Ana & <Bob>\x1b[31m")
    assert (place / "page.svg").stat().st_mode & 0o777 == 0o600
    page = ET.fromstring((place / "page.svg").read_text())  # noqa: S314 - our own
    texts = [element.text for element in page.iter("{http://www.w3.org/2000/svg}text")]
    assert [line for line in texts if GROUPS.fullmatch(line)] == key_of(place / "paper").split("\n")
    assert any("Ana & <Bob>\\x1b[31m" in line for line in texts)
    assert dark_modules(page) == code_of(" ".join(key_of(place / "paper").split()))
    said = read_page((place / "page.svg").read_text())
    assert said == " ".join(key_of(place / "paper").split())
    (place / "scanned").write_text(said)
    cli("snapshots", "--key-file", place / "scanned")


def test_recovery_key_goes_nowhere_unasked(cli, place):
    """Not into a pipe, not into JSON: a terminal or a file it must be, and nothing was made where there is none."""
    assert "no terminal" in cli("key", "recovery", expected=2).err
    cli("key", "recovery", "--json", expected=2)
    cli("key", "recovery", "--json", "--output", "-", expected=2)
    cli("key", "recovery", "--quiet", expected=2)
    assert len(cli("key", "list", "--json").json["keys"]) == 1
    printed = cli("key", "recovery", "--output", "-")
    assert len(GROUPS.findall(printed.out)) == 2
    assert not GROUPS.findall(printed.err)


def test_disk_and_paper_are_enough(cli, place, tree, monkeypatch):
    """On a machine that has never seen the repository, without passphrase, cache or state: all that README promises."""
    cli("snapshot", tree)
    cli("key", "recovery", "--output", place / "paper")
    head = cli("log", "head", "--json").json["head"]
    shutil.rmtree(place / "cache")
    shutil.rmtree(place / "state")
    (place / "key").unlink()
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    with_paper = ("--key-file", place / "paper")
    cli("log", "check", head, *with_paper)
    cli("restore", f"latest:{tree}", place / "back", *with_paper)
    assert (place / "back" / "big").read_bytes() == (tree / "big").read_bytes()
    (place / "words").write_text("new words\n")
    lost = cli("key", "list", "--json", *with_paper).json["keys"][0]["id"]
    cli("key", "add", "--new-password-file", place / "words", *with_paper)
    cli("key", "remove", lost, *with_paper)
    cli("snapshot", tree, "--password-file", place / "words")


@pytest.mark.parametrize("words", [("--shares", "3"), ("--of", "5"), ("--shares", "4", "--of", "3")])
def test_shares_that_make_no_sense_are_wrong_usage(cli, place, words):
    """Nothing is made."""
    cli("key", "recovery", *words, "--output", place / "paper", expected=2)
    assert not list(place.glob("paper*"))
    assert len(cli("key", "list", "--json").json["keys"]) == 1


def test_files_that_are_there_stay_and_no_slot_is_made(cli, place):
    """A key is never written over something, and where the third file cannot be made the first two go."""
    (place / "paper-3").write_text("precious")
    cli("key", "recovery", "--shares", "2", "--of", "4", "--output", place / "paper", expected=2)
    assert [path.name for path in place.glob("paper*")] == ["paper-3"]
    assert (place / "paper-3").read_text() == "precious"
    assert len(cli("key", "list", "--json").json["keys"]) == 1


def test_files_go_where_the_slot_cannot_be_made(cli, place, monkeypatch):
    """A key that opens nothing misleads."""
    for number in range(15):
        cli("key", "add", "--new-key-file", place / f"key-{number}")
    assert "16 key slots" in cli("key", "recovery", "--output", place / "paper", expected=2).err
    assert not (place / "paper").exists()


def test_three_of_five_shares_open(cli, place):
    """Any three, in one file, in any order; two of them do not, nor three with one of another set."""
    made = cli("key", "recovery", "--shares", "3", "--of", "5", "--output", place / "share.txt", "--json").json
    files = [place / f"share-{number}.txt" for number in range(1, 6)]
    assert made["files"] == [str(path) for path in files]
    assert made["use"] == "shares 3/5"
    texts = [path.read_text() for path in files]
    assert "Share 2 of 5" in texts[1]
    (place / "three").write_text(texts[4] + texts[0] + texts[2])
    assert cli("key", "test", "--key-file", place / "three", "--json").json["id"] == made["key"]
    (place / "two").write_text(texts[4] + texts[0])
    few = cli("key", "test", "--key-file", place / "two", expected=2).err
    assert "3 different shares are needed" in few
    assert "hint: ask for the shares of others" in few
    cli("key", "recovery", "--shares", "3", "--of", "5", "--output", place / "other.txt")
    (place / "mixed").write_text(texts[4] + texts[0] + (place / "other-1.txt").read_text())
    assert "another key" in cli("key", "test", "--key-file", place / "mixed", expected=2).err
    assert "recovery key in shares 3/5" in cli("key", "list").out


def test_recovery_key_is_typed(cli, place, typing):
    """Line by line, in small letters; a slip is said at once and the line typed again."""
    cli("key", "recovery", "--output", place / "paper")
    first, second = key_of(place / "paper").lower().encode().split(b"\n")
    other = b"x" if first[:1] != b"x" else b"y"
    typing()
    status, shown = talk(["key", "test", "--recovery"], [other + first[1:], second, first, second])
    assert status == 0, shown
    assert b"probably in group 1" in shown
    assert b"28 more letters" in shown
    assert b"recovery key, made" in shown


def test_what_is_typed_is_wiped_off_the_screen(cli, place, typing):
    """Whoever comes to the terminal later does not read it."""
    cli("key", "recovery", "--output", place / "paper")
    typing()
    status, shown = talk(["key", "test", "--recovery"], key_of(place / "paper").encode().split(b"\n"))
    assert status == 0
    assert shown.count(b"\x1b[J") == 2
    screen = b""
    for part in re.split(rb"(\x1b\[1A\r\x1b\[J)", shown):
        screen = screen.rpartition(b"\r\n")[0].rpartition(b"\r\n")[0] if part.startswith(b"\x1b") else screen + part
    assert not GROUPS.search(screen.decode().upper())


def test_shares_are_typed_one_after_another(cli, place, typing):
    """It says how many more it takes; a wrong one is said and left out."""
    cli("key", "recovery", "--shares", "2", "--of", "3", "--output", place / "share")
    cli("key", "recovery", "--shares", "2", "--of", "3", "--output", place / "other")
    words = [" ".join(re.findall("[a-z]+", key_of(place / name))) for name in ("share-1", "other-1", "share-3")]
    typing()
    status, shown = talk(["key", "test", "--recovery"], [line.encode() for line in (words[0], *words[1:])])
    assert status == 0, shown
    assert b"another share" in shown
    assert b"it is left out" in shown
    assert b"in shares 2/3" in shown


def test_recovery_key_of_another_repository_is_12(cli, place):
    """A key without a mistake that opens nothing is a wrong key."""
    cli("init", "-r", place / "other")
    cli("key", "recovery", "-r", place / "other", "--output", place / "paper")
    cli("key", "test", "--key-file", place / "paper", expected=12)


def test_recovery_is_shown_on_a_terminal(cli, place):
    """The groups and the code stand there; what is shown opens."""
    status, shown = talk(["key", "recovery"], [])
    assert status == 0
    text = shown.decode()
    assert "▀" in text or os.environ.get("LC_ALL") == "C"
    if "▀" in text:
        assert read_shown(text) == " ".join(GROUPS.findall(text))
    key = parse_recovery("\n".join(GROUPS.findall(text)))
    (place / "typed").write_bytes(key.key)
    assert cli("key", "test", "--key-file", place / "typed", "--json").json["use"] == "recovery"


def test_without_a_terminal_nothing_can_be_typed(cli):
    """The error says what to do instead."""
    ran = cli("key", "test", "--recovery", expected=2)
    assert "--key-file FILE" in ran.err
    cli("key", "test", "--recovery", "--key-file", "x", expected=2)
