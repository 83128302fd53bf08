"""Names of snapshots on the command line: times, conditions, and what is said before something is taken away."""

from __future__ import annotations

import json
import time

import pytest

from tests.cli.test_completion import completed


@pytest.fixture
def dated(cli, repository, tree, monkeypatch):
    """Has three snapshots on two days of November, in Madrid, the file `n` numbered in each; returns their ids."""
    monkeypatch.setenv("TZ", "Europe/Madrid")
    time.tzset()
    made = []
    for number, (when, kind) in enumerate(
        (("2026-11-18 22:00:00", "full"), ("2026-11-19 10:00:00", "incremental"), ("2026-11-19 22:00:00", "full"))
    ):
        (tree / "n").write_text(str(number))
        made.append(cli("snapshot", tree, "--time", when, "--kind", kind, "--json").json["snapshot"])
    yield made
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("2026-11-19", 2),
        ("2026-11-18", 0),
        ("2026-11-19 10:00:00", 1),
        ("2026-11-19T20:59:59Z", 1),
        ("latest:kind=incremental", 1),
        ("latest~1", 1),
        ("2026-11-19 12:00:kind=full", 0),
    ],
)
def test_file_of_a_time(cli, dated, tree, place, name, number):
    """Every command that reads takes every name, with a path behind it and without."""
    assert cli("dump", f"{name}:{tree}/n").out == str(number)
    assert cli("ls", f"{name}:{tree}/n").out == f"{tree}/n\n"
    assert cli("restore", name, place / "back", "--json").json["snapshot"] == dated[number]
    assert cli("export", name, "-o", place / "out.tar", "--json").json["snapshot"] == dated[number]
    assert cli("diff", name, f"latest:{tree}", "--json").json["before"]["snapshot"] == dated[number]


def test_time_of_the_listing_is_a_name(cli, dated):
    """Both forms, that for people and that for programs."""
    shown = cli("snapshots").out.splitlines()[2].split()
    assert cli("ls", f"{shown[1]} {shown[2]}", "--json").json["snapshot"] == dated[1]
    listed = cli("snapshots", "--json").json["snapshots"]
    assert [cli("ls", item["time"], "--json").json["snapshot"] for item in listed] == dated


def test_error_says_what_was_understood(cli, dated):
    """And what there is instead."""
    ran = cli("ls", "2026-11-17", expected=1)
    assert "not after 2026-11-17 23:59:59 +0100" in ran.err
    assert f"the oldest is {dated[0][:8]} of 2026-11-18 22:00:00 +0100" in ran.err
    ran = cli("ls", "latest:kind=ful", "--json", expected=1)
    assert "kind=full" in json.loads(ran.err)["error"]["hint"]


def test_forget_refuses_a_time_that_is_no_exact_name(cli, dated):
    """A day without a snapshot, or with two, takes nothing away, and the error says which one it would have been."""
    for name in ("2026-11-20", "2026-11-19", "1 hour ago"):
        ran = cli("forget", name, expected=1)
        assert dated[2][:8] in ran.err
    assert len(cli("snapshots", "--json").json["snapshots"]) == 3


def test_forget_says_which_snapshot_a_name_meant(cli, dated):
    """Before it goes."""
    ran = cli("forget", "2026-11-18", "latest:kind=incremental")
    assert f"note: 2026-11-18 is {dated[0][:8]} of 2026-11-18 22:00:00" in ran.err
    assert f"note: latest:kind=incremental is {dated[1][:8]} of 2026-11-19 10:00:00" in ran.err
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == dated[2:]


@pytest.mark.parametrize("label", ["latest", "latest:verified", "latest~1", "a:/b"])
def test_label_that_would_mean_something_else_is_refused(cli, repository, tree, label):
    """A label is a name, and must not be one that is taken."""
    cli("snapshot", tree, "--label", label, expected=2)


def test_conditions_are_completed(cli, dated, spawn):
    """Those that some snapshot fulfils, one behind another; words for times once they are begun."""
    assert {"latest:kind=full", "latest:kind=incremental", "latest:verified"} <= completed(spawn, "ls", "latest:")
    assert completed(spawn, "ls", "latest:verified,kind=f") == {"latest:verified,kind=full"}
    assert "yesterday" in completed(spawn, "ls", "yes")
