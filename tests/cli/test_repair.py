"""Repair from the command line, healing, and a local cache that is made anew by itself."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from respaldo.cli.run import run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A repository with a snapshot of files, and the way to run commands on it."""
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(tmp_path / "repo"))
    monkeypatch.setenv("RESPALDO_PASSWORD", "x")
    monkeypatch.setenv("RESPALDO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "stdin", None)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"f{number}").write_bytes(os.urandom(40_000))
    assert run(["init", "-q"]) == 0
    assert run(["snapshot", str(source), "-q", "--label", "one"]) == 0
    return tmp_path


def flip(tmp_path: Path, at: int) -> Path:
    """Changes a byte of the only pack."""
    [pack] = (tmp_path / "repo" / "packs").glob("*/*")
    content = bytearray(pack.read_bytes())
    content[at] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(bytes(content))
    return pack


def test_repair_from_plan_to_healing(place, capsys):
    """The plan is shown and nothing done; nobody to ask is an error; then it is done, and a snapshot heals it."""
    pack = flip(place, 5000)
    assert run(["verify", "--read-data", "-q"]) == 4
    capsys.readouterr()
    assert run(["repair", "--dry-run", "--json"]) == 4
    plan = json.loads(capsys.readouterr().out)
    assert plan["dry_run"] is True
    assert [step["verb"] for step in plan["plan"]] == ["rescue", "mark"]
    assert pack.exists()
    assert run(["repair"]) == 2
    assert "nobody to ask" in capsys.readouterr().err
    assert run(["repair", "--yes", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["left"], done["lost_entries"] > 0, len(done["renamed"])) == ([], True, 1)
    assert not pack.exists()
    assert f"lost+found/packs.{pack.name}" in done["aside"]
    assert run(["ls", "-lR", "one"]) == 0
    assert capsys.readouterr().out.count("[lost]") == done["lost_entries"]
    assert run(["restore", f"one:{place}/source", str(place / "back"), "-q"]) == 3
    assert "its content was lost to damage" in capsys.readouterr().err
    assert run(["verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost_count"] == done["lost_entries"]
    assert run(["snapshot", str(place / "source")]) == 0
    assert "healed " in capsys.readouterr().out
    assert run(["restore", f"one:{place}/source", str(place / "whole"), "-q"]) == 0
    for number in range(3):
        assert (place / f"whole/f{number}").read_bytes() == (place / f"source/f{number}").read_bytes()
    assert run(["repair"]) == 0
    assert "nothing to repair" in capsys.readouterr().out


@pytest.mark.parametrize("first", [0, 2 * 4096], ids=["not to be opened", "opens"])
def test_damaged_cache_is_made_anew_at_once(place, capsys, first):
    """A local index that rotted is thrown away, said to be, and the command does what it was asked for."""
    [data] = (place / "cache").glob("*/index/data.mdb")
    content = bytearray(data.read_bytes())
    for at in range(first, len(content), 64):
        content[at] ^= 0xFF
    data.write_bytes(bytes(content))
    assert run(["ls", f"one:{place}/source"]) == 0
    told = capsys.readouterr()
    assert told.out.count("/source/f") == 3
    assert "is made anew" in told.err
    assert run(["snapshots"]) == 0
    assert "note:" not in capsys.readouterr().err


def test_cache_that_turns_out_damaged_later_is_made_anew_at_once(place, capsys, monkeypatch):
    """So is one whose damage shows while a command runs: the command runs again by itself, once."""
    import lmdb

    from respaldo.store.repo import Repo

    damaged = [True]
    synchronise = Repo.synchronise

    def once(self, *arguments, **options):
        if damaged:
            damaged.pop()
            raise lmdb.CorruptedError("a page is not what it was")
        return synchronise(self, *arguments, **options)

    monkeypatch.setattr(Repo, "synchronise", once)
    assert run(["ls", f"one:{place}/source"]) == 0
    told = capsys.readouterr()
    assert told.out.count("/source/f") == 3
    assert "note: local cache: a page is not what it was: it was thrown away and is made anew" in told.err


def test_what_verify_says_is_to_be_done_loses_nothing(place, capsys):
    """A new snapshot of the same sources, then a repair: what was damaged is whole again, in the old snapshot too."""
    flip(place, 5000)
    assert run(["verify", "--read-data"]) == 4
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("what to do: a new snapshot of the same sources")
    assert run(["snapshot", str(place / "source"), "-q"]) == 0
    assert run(["repair", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost_entries"] == 0
    assert run(["restore", f"one:{place}/source", str(place / "whole"), "-q"]) == 0
    assert run(["verify", "--read-data", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lost_count"] == 0
