"""`respaldo log`, and what every command says when a repository is not what it was."""

from __future__ import annotations

import errno
import io
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import segno

from tests.cli.codes import code_of, dark_modules, read_page, read_shown


@pytest.fixture
def other(place, monkeypatch):
    """Makes this client another one, or the first one again."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / f"cache{name}"))
        monkeypatch.setenv("XDG_STATE_HOME", str(place / f"state{name}"))

    return become


def take(cli, tree):
    return cli("snapshot", tree, "--json").json["snapshot"]


def test_log_shows_who_did_what(cli, repository, tree, other):
    """Commits, what was forgotten and what was pruned, of all clients, in order."""
    first = take(cli, tree)
    (tree / "big").write_bytes(b"another")
    other("2")
    second = take(cli, tree)
    cli("forget", first)
    cli("prune")
    other("")
    entries = cli("log", "show", "--json").json["entries"]
    assert [(entry["verb"], entry["snapshots"], entry["own"]) for entry in entries] == [
        ("commit", [first], True),
        ("commit", [second], False),
        ("forget", [first], False),
        ("prune", [], False),
    ]
    assert second[:8] in cli("log", "show").out
    assert cli("log", "show", "--since", "2100-01-01", "--json").json["entries"] == []
    cli("log", "show", "--since", "yesterweek", expected=2)


def test_a_rollback_is_refused_until_it_is_accepted(cli, repository, tree, place, other):
    """Every command says what is missing, with status 4; accepted once, all goes on."""
    kept = take(cli, tree)
    shutil.copytree(repository, place / "before")
    (tree / "big").write_bytes(b"another")
    lost = take(cli, tree)
    head = cli("log", "head").out.strip()
    assert "everything is there" in cli("log", "check", head).out
    shutil.rmtree(repository)
    (place / "before").rename(repository)
    for words in (
        ["snapshots"],
        ["restore", "latest", place / "target"],
        ["snapshot", tree],
        ["prune"],
        ["ls", "latest"],
    ):
        ran = cli(*words, expected=4)
        assert "rolled back" in ran.err
        assert f"snapshot {lost[:8]} is gone" in ran.err
        assert "--accept-rollback" in ran.err
    assert not (place / "target").exists()
    assert len(cli("verify", "--json", expected=4).json["history"]) == 2
    assert "rolled back" in cli("log", "check", head, expected=4).err
    other("new")  # has seen nothing, and has only the head
    assert len(cli("snapshots", "--json").json["snapshots"]) == 1
    assert "rolled back" in cli("log", "check", head, expected=4).err
    other("")
    assert "accepted" in cli("restore", "latest", place / "target", "--accept-rollback").err
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [kept]
    take(cli, tree)
    cli("verify", "--read-data")


def test_a_snapshot_that_vanished_is_missed(cli, repository, tree):
    """Whoever deletes its manifest has forgotten it without leave; who goes on knowingly is asked no more."""
    take(cli, tree)
    (tree / "big").write_bytes(b"another")
    second = take(cli, tree)
    (repository / "pending" / second).unlink()
    assert f"snapshot {second[:8]} is gone, and nobody has forgotten it" in cli("snapshots", expected=4).err
    assert len(cli("snapshots", "--accept-rollback", "--json").json["snapshots"]) == 1
    assert len(cli("snapshots", "--json").json["snapshots"]) == 1


def test_heads_that_are_none_are_wrong_usage(cli, repository, tree, place, monkeypatch):
    """A head that was mistyped, cut off, or is of another repository, is not compared at all."""
    take(cli, tree)
    head = cli("log", "head").out.strip()
    for word in ("", "nonsense", head[:-1], head[:20] + ("a" if head[20] != "a" else "b") + head[21:]):
        cli("log", "check", word, expected=2)
    assert cli("log", "check", head[:30].upper(), head[30:]).status == 0
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "another"))
    cli("init")
    assert "another repository" in cli("log", "check", head, expected=2).err


def test_a_read_only_home_backs_up_all_the_same(cli, repository, tree, place, monkeypatch):
    """Where nothing can be remembered there is no log, and no trouble either."""
    (place / "file").write_text("in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "file"))
    made = cli("snapshot", tree, "--json")
    assert "note: this is not in the log" in made.err
    assert "could not be pinned" in cli("snapshots", "-v").err
    forgotten = cli("forget", made.json["snapshot"], "--quiet")
    assert "(forget) is not in the log, and others will report it" in forgotten.err


def test_a_damaged_memory_of_the_log_is_said(cli, repository, tree, place):
    """Whoever cannot compare any more what is there with what was seen says so, once."""
    take(cli, tree)
    [memory] = place.glob("state/respaldo/logs/*/memory")
    memory.write_bytes(b"")
    assert "remembered of the log was damaged" in cli("snapshots", "--quiet").err
    assert cli("snapshots", "--quiet").err == ""


def test_a_full_disk_under_the_memory_of_the_log_leaves_nothing_behind(cli, repository, tree, place, monkeypatch):
    """What cannot be written whole is taken away again."""
    take(cli, tree)
    [folder] = place.glob("state/respaldo/logs/*")
    before = sorted(folder.iterdir())

    replace = Path.replace

    def full(path, name):
        if path.name.startswith("memory"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, name)

    monkeypatch.setattr(Path, "replace", full)
    assert "No space left on device" in cli("snapshot", tree).err
    assert sorted(folder.iterdir()) == before


def test_a_repair_says_that_it_put_a_snapshot_in_the_place_of_another(cli, repository, tree):
    """What a repair retires is not missed afterwards."""
    take(cli, tree)
    for pack in (repository / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[100] ^= 1
            pack.write_bytes(data)
    cli("repair", "--read-data", "--yes", expected=None)
    cli("snapshots")
    verbs = [entry["verb"] for entry in cli("log", "show", "--json").json["entries"]]
    assert "forget" in verbs


def test_a_head_is_a_page_with_a_qr_code(cli, repository, tree, place):
    """The code holds the very word, in capitals, which checks; it is for its owner alone and takes no file's place."""
    take(cli, tree)
    head = cli("log", "head").out.strip()
    ran = cli("log", "head", "--svg", place / "head.svg", "--json")
    assert ran.json == {"head": head, "svg": str(place / "head.svg")}
    assert (place / "head.svg").stat().st_mode & 0o777 == 0o600
    page = ET.fromstring((place / "head.svg").read_text())  # noqa: S314 - our own
    texts = [element.text for element in page.iter("{http://www.w3.org/2000/svg}text")]
    assert "".join(texts[3:]) == head
    assert all(len(text) <= 64 for text in texts[3:]), "wider than the page"
    assert "log check" in texts[2]
    assert dark_modules(page) == code_of(head.upper())
    assert read_page((place / "head.svg").read_text()) == head.upper()
    assert cli("log", "check", head.upper()).status == 0
    assert cli("log", "check", *texts[3:]).status == 0
    assert "exists already" in cli("log", "head", "--svg", place / "head.svg", expected=2).err


def test_a_head_is_shown_as_a_qr_code_when_asked_for(cli, repository, tree, monkeypatch):
    """Above the word, which stays the last line; not where it is piped, and said where the terminal is too narrow."""
    take(cli, tree)
    head = cli("log", "head").out.strip()
    assert head.startswith("respaldo-head-")
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli("log", "head", "--qr").out
    picture = io.StringIO()
    segno.make(head.upper(), error="m", micro=False).terminal(out=picture, compact=True)
    assert shown == picture.getvalue() + head + "\n"
    assert read_shown(shown) == head.upper()
    monkeypatch.setenv("COLUMNS", "20")
    ran = cli("log", "head", "--qr")
    assert ran.out.strip() == head
    assert "too narrow" in ran.err
    assert cli("log", "head", "--qr", "--json").json["head"] == head


def test_a_head_that_no_qr_code_holds_is_still_a_word(cli, repository, tree, monkeypatch):
    """With very many clients, that is."""
    take(cli, tree)
    monkeypatch.setattr("respaldo.api.history.History.head", lambda _: "respaldo-head-" + "a" * 5000)
    assert cli("log", "head").out.strip().endswith("aaa")
    assert "too many for a QR code" in cli("log", "head", "--qr", expected=2).err
