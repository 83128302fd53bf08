"""Logs that are damaged: named, mended from what is kept, given up knowingly; nobody is locked out by one."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def other(place, monkeypatch):
    """Makes this client another one, or the first one again."""

    def become(name):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / f"cache{name}"))
        monkeypatch.setenv("XDG_STATE_HOME", str(place / f"state{name}"))

    return become


@pytest.fixture
def log(cli, repository, tree):
    """Has four entries written by this client; returns the objects, by number."""
    write(cli, tree, 4)
    return objects(repository)


def write(cli, tree, count):
    """Has so many entries written."""
    for number in range(count):
        (tree / "new").write_text(str(number))
        cli("snapshot", tree)


def objects(repository):
    found = {}
    for path in (repository / "log").rglob("*.*"):
        found[int(path.name.rpartition(".")[2], 16)] = path
    return dict(sorted(found.items()))


def spoil(path, how):
    """Damages an object; returns what a check says of it."""
    data = path.read_bytes()
    path.chmod(0o600)
    if how == "gone":
        path.unlink()
        return ""
    path.write_bytes({"torn": data[:1000], "empty": b"", "damaged": data[:500] + b"?" + data[501:]}[how])
    return "its closing hash does not fit its bytes; "


def damages(cli):
    found = cli("verify", "--json", expected=4).json
    return [(item["name"], item["reason"]) for item in found["damages"]], found["history"]


def steps(cli, *words, expected=0):
    ran = cli("repair", "--yes", "--json", *words, expected=expected).json
    return [[(step["verb"], step["name"], step["text"]) for step in ran[what]] for what in ("done", "left")]


HOWS = ["damaged", "torn", "empty", "gone"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_what_a_client_has_kept_is_put_again(cli, repository, log, other, how, number):
    """Byte by byte, whichever client it is of; everybody goes on as if nothing had been."""
    other("2")
    cli("snapshots")  # this one has seen all
    entries = cli("log", "show", "--json").json["entries"]
    name = f"log/{log[number].name}"
    who = log[number].name[:8]
    reason = spoil(log[number], how)
    found, history = damages(cli)
    assert found == [(name, f"{reason}entry {number} of client {who} is in no object")]
    rolled_back = f"entry 3 of client {who} is gone (the repository was rolled back)"
    assert history == ([rolled_back] if (how, number) == ("gone", 3) else [])
    checked = cli("log", "check", "--json", expected=4).json
    assert checked["findings"] == [*history, f"{name}: {reason}entry {number} of client {who} is in no object"]
    assert any("respaldo repair" in note for note in checked["notes"])
    done, left = steps(cli)
    aside = [("set aside", name, "what it said is kept here, and is put again")] if how != "gone" else []
    assert done == [*aside, ("put again", name, f"this machine has kept entry {number} of client {who}")]
    assert left == []
    cli("verify", "--read-data")
    assert cli("log", "show", "--json").json["entries"] == entries
    assert cli("repair", "--yes").out.strip() == "nothing to repair"
    for client in ("", "new"):
        other(client)
        cli("snapshots")
        assert cli("log", "check", "--json").json["ok"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("number", [0, 1, 3])
def test_what_nobody_has_kept_is_given_up_knowingly(cli, repository, tree, log, other, how, number):
    """It takes one word; then the log says so, signed, and neither old nor new clients are stopped by it."""
    other("author's rest")
    name = f"log/{log[number].name}"
    who = log[number].name[:8]
    reason = spoil(log[number], how)
    if (how, number) == ("gone", 3):  # storage shows less to one who has seen nothing: he cannot know
        cli("snapshots")
        return
    found, history = damages(cli)
    assert found == [(name, f"{reason}entry {number} of client {who} is in no object")]
    assert len(history) == 1
    refused = cli("snapshots", expected=4).err
    assert "--accept-rollback" in refused
    done, left = steps(cli, expected=4)
    text = (
        f"entry {number} of client {who} is in no object, and not kept on this machine; "
        "if you know why, say so in the log and go on with: respaldo repair --accept-rollback"
    )
    assert (done, left) == ([], [("leave", name, text)])
    planned = cli("repair", "--dry-run", "--accept-rollback", expected=4)
    assert "give up" in planned.out
    assert "accepted" not in planned.err
    assert damages(cli) == (found, history)
    done, left = steps(cli, "--accept-rollback")
    aside = [("set aside", name, "what it said is lost for good")] if how != "gone" else []
    lost = f"entry {number} of client {who} is lost for good, and the log will say so"
    assert (done, left) == ([("give up", name, lost), *aside], [])
    assert f"entry {number} of client {who} is known to be lost" in cli("verify").out
    for client in ("", "author's rest", "new"):
        other(client)
        cli("snapshots")
        (tree / "new").write_text(client)
        cli("snapshot", tree)
    other("")
    cli("verify")
    other("newest")
    cli("snapshots")
    entries = cli("log", "show", "--json").json["entries"]
    assert [entry["note"] for entry in entries if entry["verb"] == "lost"] == [f"entry {number} of client {who}"]
    assert sorted(entry["number"] for entry in entries if entry["client"].startswith(who)) == [
        other for other in range(5) if other != number
    ]


def test_the_author_can_put_again_what_others_gave_up(cli, repository, log, other):
    """To say that something is lost takes nothing from who still has it."""
    whole = log[1].read_bytes()
    spoil(log[1], "gone")
    other("2")
    steps(cli, "--accept-rollback")
    other("")
    log[1].write_bytes(whole)
    cli("snapshots")
    other("3")
    cli("snapshots")
    assert cli("verify").out.count("known to be lost") == 0


def test_what_another_object_repeats_is_not_missed(cli, repository, tree, other):
    """The object of the sixteenth entry repeats the others."""
    cli("snapshot", tree)
    early = objects(repository)[0]
    copied = early.read_bytes()
    write(cli, tree, 15)
    assert list(objects(repository)) == [15]
    early.write_bytes(copied[:-1])
    name = f"log/{early.name}"
    assert damages(cli) == ([(name, "its closing hash does not fit its bytes")], [])
    other("new")
    cli("snapshots")
    assert steps(cli) == [[("set aside", name, "what it said stands in other objects")], []]
    cli("verify")


def test_a_merged_object_is_mended_by_who_wrote_it_or_given_up(cli, repository, tree, other, place):
    """Sixteen entries at once, as one object again; and without them the rest goes on."""
    write(cli, tree, 17)
    late = objects(repository)
    assert list(late) == [15, 16]
    name, who = f"log/{late[15].name}", late[15].name[:8]
    shutil.copytree(repository, place / "whole")
    spoil(late[15], "torn")
    reason = f"its closing hash does not fit its bytes; entries 0 to 15 of client {who} are in no object"
    assert damages(cli)[0] == [(name, reason)]
    assert steps(cli)[0][1] == ("put again", name, f"this machine has kept entries 0 to 15 of client {who}")
    assert list(objects(repository)) == [15, 16]
    other("new")
    assert len(cli("log", "show", "--json").json["entries"]) == 17
    spoil(late[15], "damaged")
    shutil.rmtree(place / "statenew")
    done, left = steps(cli, "--accept-rollback")
    assert ("give up", name, f"entries 0 to 15 of client {who} are lost for good, and the log will say so") in done
    assert left == []
    other("third")
    cli("snapshots")
    other("")
    cli("snapshots")
    cli("prune")
    cli("verify")


def test_a_rollback_is_put_right_by_who_has_seen_more(cli, repository, tree, place, other):
    """Entries come back byte by byte; the snapshots that they speak of do not, and are missed until accepted."""
    cli("snapshot", tree)
    shutil.copytree(repository, place / "before")
    for number in range(2):
        (tree / "new").write_text(str(number))
        cli("snapshot", tree)
    head = cli("log", "head").out.strip()
    late = objects(repository)
    shutil.rmtree(repository)
    (place / "before").rename(repository)
    assert len(damages(cli)[0]) == 1
    done, left = steps(cli)
    assert [step[0] for step in done] == ["put again"]
    assert left == []
    assert max(objects(repository)) == max(late)
    assert cli("log", "check", head, "--json").json["findings"] == []
    gone = cli("snapshots", expected=4).err
    assert "rolled back" not in gone
    assert "nobody has forgotten them" in gone
    cli("repair", "--accept-rollback", "--yes")
    cli("snapshots")


def test_names_that_nobody_wrote_cost_nothing(cli, repository, log):
    """Storage may list an object of any number: it is damaged, and says nothing of what lies before it."""
    stray = log[1].with_name(log[1].name[:33] + "f" * 16)
    stray.write_bytes(b"x" * 100)
    name = f"log/{stray.name}"
    assert damages(cli)[0] == [(name, "its closing hash does not fit its bytes")]
    done, left = steps(cli)
    assert ([step[:2] for step in done], left) == ([("set aside", name)], [])
    cli("verify")
