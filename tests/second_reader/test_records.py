"""What the document says of logs, access logs, checksums and states is enough to read what the product has written."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import json
import os
import subprocess

import pytest

from respaldo.cli.main import main
from tests.second_reader.test_reader import RECORDS, run


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A repository that everything was done to that leaves a record, by one machine and by another."""
    top = tmp_path_factory.mktemp("records")
    source = top / "source"
    (source / "below").mkdir(parents=True)
    (source / "below" / "a").write_text("alpha\n" * 100)
    (source / "odd \\ name\n").write_text("odd\n")
    (source / "empty").touch()
    (source / "long").write_bytes(os.urandom(3_000_000))
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    (top / "key").write_bytes(bytes(range(32)))
    (top / "wrong").write_bytes(bytes(32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESPALDO_REPOSITORY", str(top / "repository"))
        patch.setenv("RESPALDO_KEY_FILE", str(top / "key"))

        def respaldo(*words, expected=0, machine="one"):
            patch.setenv("XDG_CACHE_HOME", str(top / machine / "cache"))
            patch.setenv("XDG_STATE_HOME", str(top / machine / "state"))
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                assert main([*map(str, words), "--json"]) == expected
            return json.loads(said.getvalue() or "{}")

        respaldo("init")
        made = []
        for number in range(18):
            (source / "changes").write_text(f"{number}\n")
            made.append(respaldo("snapshot", source, machine="two" if number == 5 else "one")["snapshot"])
        respaldo("pin", made[3], "--reason", "año")
        respaldo("forget", made[2])
        respaldo("forget", made[4], "--grace", "7d")
        respaldo("verify", "--read-data")
        respaldo("restore", f"{made[6]}:{source}/below", top / "back")
        respaldo("snapshots", "--key-file", top / "wrong", expected=12)
        before = respaldo("log", "head")["head"]
        respaldo("key", "rotate", "--yes")
        respaldo("forget", made[7])
        respaldo("snapshot", source)
        head = respaldo("log", "head")["head"]
        accessed = respaldo("log", "show")["accesses"]
        respaldo("key", "client", "add", "web", "--out", top / "web.client")
        patch.delenv("RESPALDO_KEY_FILE")
        of_web = [
            respaldo("snapshot", source, "--client-file", top / "web.client", machine="web")["snapshot"]
            for _ in range(2)
        ]
        patch.setenv("RESPALDO_KEY_FILE", str(top / "key"))
        respaldo("forget", of_web[0], "--client", "web")
        respaldo("key", "client", "renew", "web", "--out", top / "new.client")
        patch.delenv("RESPALDO_KEY_FILE")
        of_web.append(respaldo("snapshot", source, "--client-file", top / "new.client", machine="web")["snapshot"])
        patch.setenv("RESPALDO_KEY_FILE", str(top / "key"))
        respaldo("forget", of_web[1], "--client", "web")
    return {"top": top, "source": source, "made": made, "heads": (before, head), "accessed": accessed, "web": of_web}


def read(kept, *words, location=None, **environment):
    return run(
        location or kept["top"] / "repository",
        *words,
        script=RECORDS,
        RESPALDO_KEY_FILE=str(kept["top"] / "key"),
        **environment,
    )


def lines(kept, *words, **environment):
    done = read(kept, *words, **environment)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr
    return done.stdout.decode().splitlines()


def test_log_is_checked_and_read(kept):
    """Entries of two clients and two epochs, each signed, in one chain a client; and the heads that were kept."""
    told = [line.split() for line in lines(kept, "log", *kept["heads"])]
    assert len({client for client, *_ in told}) == 2
    subjects = [line[3] for line in told if line[2] == "commit"]
    assert subjects[:18] == kept["made"]
    assert [line[3] for line in told if line[2] == "forget"] == [kept["made"][2], kept["made"][7]]
    assert [line[2] for line in told].count("rotate") == 1


def test_log_of_an_area_is_checked_and_read(kept):
    """Of a client that cannot read and was renewed, what it did and what the owner did there."""
    told = [line.split() for line in lines(kept, "log", RESPALDO_CLIENT="web")]
    assert [line[2:] for line in told] == [
        ["commit", kept["web"][0]],
        ["commit", kept["web"][1]],
        ["forget", kept["web"][0]],
        ["commit", kept["web"][2]],
        ["forget", kept["web"][1]],
    ]
    assert told[0][0] == told[1][0] == told[3][0] != told[2][0]
    assert [line.split()[0] for line in lines(kept, "states", RESPALDO_CLIENT="web")] == [kept["web"][2]]


def test_entry_that_is_gone_is_found(kept, tmp_path):
    """By the numbers, or by the head that another client has signed, or by one that was kept."""
    forged = tmp_path / "forged"
    subprocess.run(["cp", "-a", str(kept["top"] / "repository"), str(forged)], check=True)
    for _ in range(3):  # those of the newest entries, down to one that the head speaks of
        max((forged / "log").iterdir(), key=lambda path: path.name.partition(".")[2]).unlink()
    assert b"is gone" in read(kept, "log", kept["heads"][1], location=forged).stderr


def test_access_log_is_checked_and_read(kept):
    """Every line that the product shows is there, says the same, and the end of what was signed is known."""
    (folder,) = {
        path.parent for path in (kept["top"] / "one" / "state").rglob("log") if (path.parent / "lock").exists()
    }
    found = [ast.literal_eval(line) for line in lines(kept, "access", folder)]
    begun = [item for item in found if item["verb"] != "end"]
    shown = [(item["number"], item["verb"]) for item in kept["accessed"]]
    assert [(item["number"], item["verb"]) for item in begun][: len(shown)] == shown
    (restored,) = [item for item in begun if item["verb"] == "restore"]
    assert restored["snapshots"] == [kept["made"][6]]
    assert any(item["of"] == restored["number"] and item["outcome"] == "done" for item in found)
    assert "failed unlock" in {item["verb"] for item in begun}
    assert any(item["signed"] for item in found)


def test_lists_of_checksums_are_read(kept, tmp_path):
    """What they say is what sha256sum finds in what the reader extracts, names that have to be escaped too."""
    snapshot = kept["made"][17]
    key = str(kept["top"] / "key")
    assert run(kept["top"] / "repository", snapshot, tmp_path / "out", RESPALDO_KEY_FILE=key).returncode in (0, 3)
    listed = read(kept, "sums", snapshot)
    assert listed.returncode == 0
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict"], input=listed.stdout, cwd=tmp_path / "out", capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert listed.stdout.count(b"\n") == 6
    assert hashlib.sha256(b"").hexdigest().encode() in listed.stdout


def test_states_are_read(kept):
    """Pins with their reasons, the trash, and what was verified."""
    told = dict(line.split(" ", 1) for line in lines(kept, "states"))
    made = kept["made"]
    assert told[made[3]] == "pinned a\\xf1o, verified by verify"
    assert told[made[4]].startswith("trash")
    assert told[made[5]] == "verified by verify"
    assert not {made[2], made[7]} & set(told)


def test_what_repeats_says_the_same(kept):
    """Segments and catalogues, merged ones too."""
    (line,) = lines(kept, "repeats")
    packs, rows = (int(word) for word in line.split() if word.isdigit())
    assert packs >= 18
    assert rows > 0
