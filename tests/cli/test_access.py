"""The access log: nothing is handed out on a machine that is not written down there before."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

UNREAD = "it was changed, belongs to another line, or was sealed to another key"


@pytest.fixture
def taken(cli, repository, tree):
    """Has a snapshot of the tree taken; returns its id."""
    return cli("snapshot", tree, "--json").json["snapshot"]


def accesses(cli, *words):
    return cli("log", "show", "--access", "--json", *words).json["accesses"]


def files(place):
    [folder] = (place / "state" / "respaldo" / "logs").iterdir()
    return folder / "access"


def lines(place):
    return (files(place) / "log").read_bytes().splitlines(keepends=True)


def test_all_that_is_handed_out_is_written_down(cli, taken, tree, place, monkeypatch):
    """Restores, dumps, exports, checksums, copies and changes of keys, with what, where to, how much, and the end."""
    assert not files(place).joinpath("log").exists(), "a snapshot is no access"
    path = f"{taken}:{tree}/docs"
    cli("restore", path, place / "back")
    cli("dump", f"{path}/a.txt")
    cli("export", path, "-o", place / "docs.tar.zst")
    cli("checksums", path)
    cli("dump", f"{path}/nothing", expected=1)  # there was nothing to hand out
    for looking in (["ls", taken], ["find", "*.txt"], ["diff", taken, "--live"], ["snapshots"], ["stats"], ["verify"]):
        cli(*looking)
    cli("restore", path, place / "other", "--dry-run")
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "second"))
    cli("init", "--like", place / "repository")
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "repository"))
    cli("copy", taken, "--to", place / "second", "--dry-run")
    cli("copy", taken, "--to", place / "second")
    cli("key", "add", "--new-key-file", place / "new", "--label", "ana")
    new = next(key["id"] for key in cli("key", "list", "--json").json["keys"] if key["label"] == "ana")
    cli("key", "remove", new, "--dry-run")
    cli("key", "remove", new)
    cli("key", "recovery", "--output", place / "paper")
    found = accesses(cli)
    assert [item["verb"] for item in found] == [
        "restore",
        "dump",
        "export",
        "checksums",
        "init --like",
        "copy",
        "key add",
        "key remove",
        "key recovery",
    ]
    assert {item["outcome"] for item in found} == {"done"}
    restore, dump, export, checksums, like, copy, *keys = found
    docs = f"{tree}/docs"
    assert [item["path"] for item in restore["paths"]] == [docs]
    assert restore["snapshots"] == [taken]
    assert restore["target"] == str(place / "back")
    assert restore["bytes"] == 600 + 400 + 5
    assert dump["paths"][0]["path"] == docs + "/a.txt"
    assert dump["bytes"] == 600
    assert (export["target"], export["note"]) == (str(place / "docs.tar.zst"), "tar.zst")
    assert export["bytes"] == (place / "docs.tar.zst").stat().st_size
    assert checksums["snapshots"] == [taken]
    assert like["target"] == copy["target"] == str(place / "second")
    assert copy["bytes"] > 300_000
    assert [new in key["note"] or key["note"] == "ana" for key in keys[:2]] == [True, True]
    used = cli("key", "list", "--json").json["keys"][0]["id"]
    for item in found:
        assert (item["uid"], item["host"], item["key"]) == (os.getuid(), os.uname().nodename, used)
        assert item["ended"] >= item["time"]
    shown = cli("log", "show").out
    assert f"-> {place / 'back'}" in shown
    assert "commit" in shown
    assert "commit" not in cli("log", "show", "--access").out
    assert "restore" not in cli("log", "show", "--no-access").out
    assert len(accesses(cli, "--since", "7d")) == len(found)
    assert accesses(cli, "--until", "7d") == []
    cli("log", "show", "--since", "1d", "--until", "2d", expected=2)
    assert cli("log", "check").err == ""


def test_lines_are_sealed_and_for_this_user_alone(cli, taken, tree, place):
    """Whoever takes the file learns no name, no path, and not how long they are."""
    old = os.umask(0)
    try:
        cli("restore", f"{taken}:{tree}/docs/a.txt", place / "x")
        cli("restore", f"{taken}:{tree}/docs/keep.log", place / "a-longer-name")
    finally:
        os.umask(old)
    folder = files(place)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    text = (folder / "log").read_bytes()
    for secret in (b"restore", b"docs", taken.encode(), bytes.fromhex(taken), os.fsencode(place)):
        assert secret not in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_it_outlives_the_cache(cli, taken, place):
    """What lies in the cache may be thrown away at any time; this lies elsewhere."""
    cli("restore", taken, place / "back")
    shutil.rmtree(place / "cache")
    assert [item["verb"] for item in accesses(cli)] == ["restore"]


@pytest.fixture
def full(place, monkeypatch):
    """Lets the access log be on a disk that is full."""

    def fill(log, public, access):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("respaldo.store.accesses.AccessLog.append", fill)


def test_what_cannot_be_written_down_is_not_handed_out(cli, taken, tree, place, monkeypatch, full):
    """Not a byte, and no change of keys; whoever must have it all the same says so, and is told what that means."""
    path = f"{taken}:{tree}/docs/a.txt"
    before = sorted((place / "repository" / "keys").iterdir())
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "second"))
    cli("init")
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "repository"))
    for words in (
        ["restore", path, place / "back"],
        ["restore", path, tree / "docs" / "a.txt", "--in-place", "--overwrite", "always"],
        ["dump", path],
        ["export", path, "-o", place / "archive"],
        ["export", path, "-o", "-"],
        ["checksums", path],
        ["copy", taken, "--to", place / "second"],
        ["key", "add", "--new-key-file", place / "new"],
        ["key", "recovery", "--output", place / "paper"],
        ["bench", "--sample", "1MiB"],
    ):
        ran = cli(*words, expected=1)
        assert "the access log cannot be written, and so nothing was handed over" in ran.err, words
        assert "No space left on device" in ran.err
        assert "--allow-unrecorded" in ran.err
        assert ran.out == ""
    assert sorted((place / "repository" / "keys").iterdir()) == before
    for name in ("back", "archive", "new", "paper"):
        assert not (place / name).exists()
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "second"))
    assert cli("snapshots", "--json").json["snapshots"] == []
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "repository"))
    ran = cli("dump", path, "--allow-unrecorded")
    assert ran.out == "alpha\n" * 100
    assert "warning: this is not in the access log" in ran.err
    cli("snapshot", tree)  # hands nothing out


def test_a_home_that_cannot_be_written_to_restores_only_when_told(cli, taken, place, monkeypatch):
    """A rescue system has no home to speak of: it takes one option, which the error names."""
    (place / "file").write_text("in the way")
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "file"))
    assert "--allow-unrecorded" in cli("restore", taken, place / "back", expected=1).err
    assert not (place / "back").exists()
    cli("restore", taken, place / "back", "--allow-unrecorded")
    assert (place / "back").exists()
    assert cli("log", "show", "--access", "--json").json["accesses"] == []


def test_a_wrong_secret_is_written_down_by_who_has_none(cli, taken, place):
    """It is sealed to the public key that the last success left; where there was none, nothing is left."""
    (place / "wrong").write_bytes(b"w" * 32)
    cli("snapshots", "--key-file", place / "wrong", expected=12)
    [item] = accesses(cli)
    assert (item["verb"], item["outcome"], item["key"]) == ("failed unlock", "refused", "")
    assert item["target"] == str(place / "repository")
    shutil.rmtree(place / "state")
    cli("snapshots", "--key-file", place / "wrong", expected=12)
    assert accesses(cli) == []


def test_an_access_that_is_killed_is_unfinished(cli, spawn, taken, tree, place):
    """The line was there before the first byte."""
    process = spawn("dump", taken)  # which is longer than what a pipe takes
    process.stdout.read(1)
    process.kill()
    process.wait()
    [item] = accesses(cli)
    assert (item["verb"], item["outcome"], item["ended"]) == ("dump", "unfinished", None)


def test_damage_and_failure_are_outcomes(cli, taken, tree, place):
    """What could not be read, and what could not be written, stand in it."""
    (place / "file").write_text("in the way")
    cli("restore", taken, place / "file" / "below", expected=None)
    for pack in (place / "repository" / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[100] ^= 1
            pack.write_bytes(data)
    cli("restore", taken, place / "back", expected=None)
    cli("dump", f"{taken}:{tree}/big", expected=4)
    assert [item["outcome"] for item in accesses(cli)] == ["failed", "damaged", "failed"]


# --- what is signed ------------------------------------------------------------------------------------------------


def signed(cli, taken, tree, place):
    """Has four lines written and signed by a snapshot."""
    cli("dump", f"{taken}:{tree}/docs/a.txt")
    cli("dump", f"{taken}:{tree}/docs/b.log")
    cli("snapshot", tree)
    assert cli("log", "check", "--json").json == {"ok": True, "clients": 0, "findings": [], "notes": []}
    return lines(place)


def findings(cli):
    return cli("log", "check", "--json", expected=4).json["findings"]


def test_lines_that_are_cut_off_are_missed(cli, taken, tree, place):
    """The client's own entry in the repository says how far it went; whoever accepts that says so there."""
    whole = signed(cli, taken, tree, place)
    (files(place) / "log").write_bytes(b"".join(whole[:2]))
    gone = "lines 3 to 4 of the access log are gone, which entry 1 of this client's log has signed"
    assert findings(cli) == [gone]
    assert f"the history is not what it was: {gone}" in cli("log", "check", expected=4).err
    (files(place) / "log").unlink()
    assert findings(cli) == ["lines 1 to 4 of the access log are gone, which entry 1 of this client's log has signed"]
    cli("log", "check", "--accept-rollback")
    assert cli("log", "check").err == ""
    [entry] = [item for item in cli("log", "show", "--json").json["entries"] if item["verb"] == "accept"]
    assert "lines 1 to 4 of the access log are gone" in entry["note"]
    cli("dump", f"{taken}:{tree}/docs/a.txt")
    assert cli("log", "check").err == ""


def test_a_log_that_grew_again_is_still_another_one(cli, taken, tree, place):
    """Neither more accesses nor more entries hide that lines were taken away before, and every client can see it."""
    signed(cli, taken, tree, place)
    (files(place) / "log").unlink()
    cli("dump", f"{taken}:{tree}/docs/a.txt")
    (tree / "new").write_text("new")
    cli("snapshot", tree)
    shorter = "had 4 lines in its entry 1 and 2 in entry 2"
    assert any(shorter in text for text in findings(cli))
    for _ in range(3):
        cli("dump", f"{taken}:{tree}/docs/a.txt")
    found = findings(cli)
    assert "line 4 of the access log is not the one that entry 1 has signed" in found
    assert any(shorter in text for text in found)
    shutil.rmtree(place / "state")  # another client
    assert [shorter in text for text in findings(cli)] == [True]


@pytest.mark.parametrize("place_of", [0, 1, 3])
def test_a_line_that_was_changed_is_missed(cli, taken, tree, place, place_of):
    """By the one behind it, or by what was signed."""
    whole = signed(cli, taken, tree, place)
    line = bytearray(whole[place_of])
    line[200] = ord("A") if line[200] != ord("A") else ord("B")
    whole[place_of] = bytes(line)
    (files(place) / "log").write_bytes(b"".join(whole))
    found = findings(cli)
    number = place_of + 1
    unread = f"line {number} of the access log cannot be read: {UNREAD}"
    if number < 4:
        assert found == [f"line {number} of the access log is not the one that line {number + 1} was written behind"]
        assert cli("log", "check", "--json", expected=4).json["notes"] == [unread]
    else:
        assert found == [unread, "line 4 of the access log is not the one that entry 1 has signed"]
    assert len(accesses(cli)) == 2 - (number % 2)


def test_a_line_that_is_taken_out_is_missed(cli, taken, tree, place):
    """Also where nothing was signed yet; and what is sealed in a line fits in no other place."""
    cli("dump", f"{taken}:{tree}/docs/a.txt")
    cli("dump", f"{taken}:{tree}/docs/b.log")
    whole = lines(place)
    (files(place) / "log").write_bytes(b"".join(whole[:1] + whole[2:]))
    assert findings(cli) == ["line 2 of the access log is gone"]
    moved = b" ".join([b"2", whole[1].split()[1], whole[2].split()[2]]) + b"\n"
    (files(place) / "log").write_bytes(whole[0] + moved)
    assert findings(cli) == ["line 2 of the access log cannot be read: " + UNREAD]


def test_a_torn_line_is_said_and_hides_nothing(cli, taken, tree, place):
    """What a crash leaves is no line: those before and behind it are read, and the chain goes on."""
    cli("dump", f"{taken}:{tree}/docs/a.txt")
    with (files(place) / "log").open("ab") as file:
        file.write(b"3 0123456789abcdef")
    cli("dump", f"{taken}:{tree}/docs/b.log")
    checked = cli("log", "check", "--json").json
    assert checked["findings"] == []
    assert checked["notes"] == [
        "behind line 2 of the access log lies a line that was cut off or changed, as a crash leaves it"
    ]
    assert [item["paths"][0]["path"].rpartition("/")[2] for item in accesses(cli)] == ["a.txt", "b.log"]


def test_a_read_only_repository_is_no_reason_to_write_nothing_down(cli, taken, tree, place):
    """The access log lies with the user, not in the repository."""
    subprocess.run(["chmod", "-R", "a-w", place / "repository"], check=True)
    try:
        cli("dump", f"{taken}:{tree}/docs/a.txt")
        assert len(accesses(cli)) == 1
    finally:
        subprocess.run(["chmod", "-R", "u+w", place / "repository"], check=True)


def test_old_lines_go_with_a_word_that_must_be_believable(cli, taken, tree, place, monkeypatch):
    """Full files go, the oldest first, and nothing is missed; a line that only says so hides nothing."""
    from respaldo.api import accessed as api
    from respaldo.store import accesses as store

    path = f"{taken}:{tree}/docs/a.txt"
    cli("dump", path)
    cli("snapshot", tree)  # signs two lines that will be gone
    monkeypatch.setattr(store, "FILE_BYTES", 2000)
    monkeypatch.setattr(store, "FILES_KEPT", 2)
    for _ in range(6):
        cli("dump", path)
    assert len(list(files(place).glob("log.*"))) == 2
    found = findings(cli)
    assert any(text.startswith("lines 1 to ") for text in found), "too little lies between"
    monkeypatch.setattr(api, "DROP_BYTES_MIN", 4000)
    assert cli("log", "check", "--json").json == {"ok": True, "clients": 0, "findings": [], "notes": []}
    assert {item["verb"] for item in accesses(cli)} == {"dump"}
    for full in files(place).glob("log.*"):
        full.unlink()
    assert findings(cli)


def test_an_unlock_is_written_down(cli, taken, place, monkeypatch):
    """Before the key goes into memory."""
    (place / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
    cli("unlock", "--for", "1m")
    try:
        [item] = accesses(cli)
        assert (item["verb"], item["outcome"], item["note"]) == ("unlock", "done", "for 60 s, idle 0 s")
    finally:
        cli("lock")


def test_nothing_is_unlocked_or_mounted_that_is_not_written_down(cli, taken, place, monkeypatch, full):
    """No key in memory, no mount."""
    (place / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place / "run"))
    assert "access log cannot be written" in cli("unlock", expected=1).err
    assert cli("unlock", "--status", "--json").json == {"unlocked": []}
    (place / "mnt").mkdir()
    assert "access log cannot be written" in cli("mount", "--foreground", place / "mnt", expected=1).err
    assert not os.path.ismount(place / "mnt")


def test_a_wrong_passphrase_after_another_key_is_the_same(cli, taken, place, monkeypatch):
    """Passphrases as well as keys, and by whatever command."""
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    (place / "wrong").write_text("not it")
    cli("restore", taken, place / "back", "--password-file", place / "wrong", expected=12)
    cli("key", "test", "--password-file", place / "wrong", expected=12)
    found = accesses(cli, "--key-file", place / "key")
    assert [item["verb"] for item in found] == ["failed unlock"] * 2


def test_a_client_that_may_restore_writes_it_down_too(cli, repository, tree, place, monkeypatch):
    """It has no key of the repository: its lines are sealed to its own, and signed by what it writes next."""
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    monkeypatch.setenv("RESPALDO_CLIENT_FILE", str(place / "ana"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "there" / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "there" / "state"))
    cli("snapshot", tree)
    cli("restore", "latest", place / "back")
    [area] = (place / "there" / "state" / "respaldo" / "clients").iterdir()
    log = area / "access" / "log"
    assert len(log.read_bytes().splitlines()) == 2
    cli("snapshot", tree)
    assert [item["verb"] for item in accesses(cli)] == ["restore"]
    log.unlink()
    log.mkdir()
    assert "access log cannot be written" in cli("restore", "latest", place / "again", expected=1).err
    assert not (place / "again").exists()
    cli("restore", "latest", place / "again", "--allow-unrecorded")


def test_changes_of_keys_and_clients_are_written_down(cli, taken, place):
    """A rotation, a client that comes and one that goes; lines from before the rotation are read as before."""
    cli("key", "client", "add", "web", "--out", place / "web")
    cli("key", "client", "remove", "web")
    cli("key", "rotate")
    cli("dump", f"{taken}:/", "--quiet", expected=0)
    found = accesses(cli)
    assert [item["verb"] for item in found] == ["key client add", "key client remove", "key rotate", "dump"]
    assert {item["outcome"] for item in found} == {"done"}
    assert cli("log", "check", "--json").json["ok"]
