"""Tests of what says and makes space: what snapshots would free, and goals."""

from __future__ import annotations

import os
import pty
import random
import subprocess
import sys
import threading

import pytest

from respaldo.cli import goal as goals

SIZE = 400_000


@pytest.fixture
def history(cli, repository, tree):
    """Has snapshots made, each of which holds so much that no other holds; returns the ids."""
    rng = random.Random(1)
    (tree / "always").write_bytes(rng.randbytes(SIZE))
    found = []
    for number in range(5):
        (tree / "now").write_bytes(rng.randbytes(SIZE + 10 * number))
        found.append(cli("snapshot", tree, "--json").json["snapshot"])
    return found


def there(cli):
    return [item["id"] for item in cli("snapshots", "--json").json["snapshots"]]


def packed(repository) -> int:
    return sum(path.stat().st_size for path in (repository / "packs").rglob("*") if path.is_file())


def listing(repository) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in repository.rglob("*")}


def freed(plan) -> dict[str, int]:
    return {item["id"]: item["frees_bytes"] for group in plan["groups"] for item in group["snapshots"]}


def test_dry_run_says_what_each_snapshot_frees(cli, history, repository):
    """With a policy and without, to people and programs; and nothing is written."""
    before = listing(repository)
    plan = cli("prune", "--dry-run", "--json").json["retention"]
    assert list(freed(plan)) == history
    assert all(SIZE <= each <= SIZE + 4096 for each in freed(plan).values())
    assert (plan["forgotten"], plan["frees_bytes"]) == ([], 0)
    plan = cli("prune", "--keep-last", "2", "--dry-run", "--json").json["retention"]
    assert plan["forgotten"] == history[:3]
    assert plan["frees_bytes"] == sum(freed(plan)[each] for each in history[:3]) + _shared(plan, history)
    assert freed(plan) == freed(cli("forget", "--keep-last", "2", "--dry-run", "--json").json)
    text = cli("prune", "--keep-last", "2", "-n").out
    assert text.count(" KiB\n") >= 5
    assert "FREES" in text
    assert "would forget 3 snapshots, would keep 2; together that frees 1.1 MiB" in text
    assert listing(repository) == before


def _shared(plan, history):
    """Returns what the forgotten share with one another, and nobody else has: here nothing but directories."""
    rest = plan["frees_bytes"] - sum(freed(plan)[each] for each in history[:3])
    assert 0 <= rest < 4096
    return rest


def test_forget_dry_run_by_name_says_what_it_frees(cli, history):
    """Each alone, and all that are named together: what two share goes only with both."""
    planned = cli("forget", *history[:2], "--dry-run", "--json").json
    assert list(planned["alone_bytes"]) == history[:2]
    assert planned["frees_bytes"] >= sum(planned["alone_bytes"].values()) > 2 * SIZE
    text = cli("forget", *history[:2], "--dry-run").out
    assert text.count("which frees 39") == 2
    assert "together that frees 78" in text
    assert "alone_bytes" not in cli("forget", history[0], "--json").json


def test_two_equal_snapshots_free_nothing_alone(cli, repository, tree):
    """What both hold goes with neither; with both it does."""
    (tree / "now").write_bytes(os.urandom(SIZE))
    # Recorded at the top: what others do in the directories above it would make a difference.
    made = [cli("snapshot", tree, "--as", "/tree", "--json").json["snapshot"] for _ in range(2)]
    planned = cli("forget", *made, "--dry-run", "--json").json
    assert list(planned["alone_bytes"].values()) == [0, 0]
    assert planned["frees_bytes"] > SIZE


def test_forget_dry_run_of_damaged_repository_says_so(cli, history, repository):
    """What would go is still said, what it frees is not known, and damage is exit status 4."""
    for path in (repository / "packs").rglob("*"):
        if path.is_file():
            path.unlink()
    ran = cli("forget", history[0], "--dry-run", "--json", expected=4)
    assert ran.json["forgotten"] == history[:1]
    assert ran.json["frees_bytes"] is None
    assert "nobody can say what that would free" in ran.err


def test_free_forgets_the_oldest_that_it_takes(cli, history, repository):
    """Dry run and run agree; what is freed is no less than was asked for, and the rest is whole."""
    before, packs = listing(repository), packed(repository)
    plan = cli("prune", "--free", "600KB", "--dry-run", "--json").json
    assert plan["dry_run"] is True
    assert plan["retention"]["forgotten"] == history[:2]
    assert plan["goal"]["wanted_bytes"] == 600_000 <= plan["goal"]["freed_bytes"]
    rules = [item["rules"] for item in plan["retention"]["groups"][0]["snapshots"]]
    assert [[rule["rule"] for rule in each] for each in rules] == [[], [], ["spared"], ["spared"], ["last"]]
    assert listing(repository) == before
    done = cli("prune", "--free", "600KB", "--json").json
    assert done["retention"]["forgotten"] == history[:2]
    assert done["freed_bytes"] == packs - packed(repository) >= plan["goal"]["freed_bytes"] >= 600_000
    assert there(cli) == history[2:]
    cli("verify", "--read-data")


def test_free_forgets_nothing_where_garbage_is_enough(cli, history):
    """What no snapshot needs any more goes first."""
    cli("forget", history[0], history[1])
    done = cli("prune", "--free", "500KB", "--json").json
    assert done["retention"]["forgotten"] == []
    assert done["freed_bytes"] >= 500_000
    assert there(cli) == history[2:]


def test_max_size_brings_the_repository_down(cli, history, repository):
    """Packs and segments take no more than the size afterwards; and where they do already, nothing goes."""
    assert cli("prune", "--max-size", "1GB", "--json").json["retention"]["forgotten"] == []
    done = cli("prune", "--max-size", "2.2MB", "--json").json
    assert 0 < len(done["retention"]["forgotten"]) < 4
    assert cli("stats", "--json").json["stored_bytes"] <= 2_200_000
    assert there(cli) == history[len(done["retention"]["forgotten"]) :]


def test_goal_takes_nothing_that_is_protected(cli, history, tree):
    """Pins, rules and the newest of another group stay, though they are older than what goes."""
    cli("pin", history[0])
    cli("forget", history[4])
    other = cli("snapshot", tree / "now", "--json").json["snapshot"]
    plan = cli("prune", "--free", "300KB", "--keep-last", "2", "-n", "--json").json["retention"]
    assert plan["forgotten"] == history[1:2]
    failed = cli("prune", "--free", "900KB", "--keep-last", "2", expected=1)
    assert "878.9 KiB cannot be freed: to forget all that may go (1 snapshot) frees " in failed.err
    assert "pinned ones stay" in failed.err
    assert there(cli) == [*history[:4], other]


def test_goal_that_cannot_be_reached_changes_nothing(cli, history, repository):
    """The error says how far one gets; that much can be had."""
    before = {path for path in listing(repository) if "sessions" not in path}
    failed = cli("prune", "--max-size", "100KB", "--json", expected=1)
    assert "cannot be brought to 97.7 KiB" in failed.err
    assert {path for path in listing(repository) if "sessions" not in path} == before
    assert there(cli) == history
    reachable = failed.err.partition("(--free ")[2].partition(")")[0]
    assert cli("prune", "--free", reachable, "--json").json["freed_bytes"] >= int(reachable)
    assert there(cli) == history[4:]


@pytest.mark.parametrize(
    "words",
    [
        ("--free", "1MB", "--max-size", "1MB"),
        ("--free", "much"),
        ("--yes",),
        ("--free", "1MB", "--grace", "7d"),
        ("--max-size", "1MB", "--keep-last", "1", "--grace", "7d"),
    ],
)
def test_goals_that_make_no_sense(cli, repository, words):
    """Two goals, no size, an answer to no question, and a trash that frees nothing are wrong usage."""
    cli("prune", *words, expected=2)


def test_goal_says_what_goes_before_it_goes(cli, history, monkeypatch):
    """The plan is out before anything is forgotten, also where nobody is asked."""
    seen = []
    apply = goals.policies.PolicyRun

    def spying(**fields):
        seen.append((fields["dry_run"], len(there_now())))
        return apply(**fields)

    def there_now():
        return os.listdir(os.path.join(os.environ["RESPALDO_REPOSITORY"], "pending"))

    monkeypatch.setattr(goals.policies, "PolicyRun", spying)
    out = cli("prune", "--free", "300KB").out
    assert seen == [(True, 5), (False, 4)]
    assert out.index("would forget 1 snapshot, would keep 4") < out.index("forgot 1 snapshot\n")
    assert "wanted      293.0 KiB less" in out


@pytest.mark.parametrize(("answer", "left", "status"), [(b"n\n", 5, 1), (b"\n", 5, 1), (b"y\n", 4, 0)])
def test_goal_asks_on_a_terminal(cli, history, answer, left, status):
    """Only a yes is a yes; and --yes asks nothing."""
    ran, told = on_terminal(["prune", "--free", "300KB"], answer)
    assert b"forget 1 snapshot for good? [y/N]" in told
    assert told.index(b"would forget 1 snapshot") < told.index(b"for good?")
    assert (ran, len(there(cli))) == (status, left)
    ran, told = on_terminal(["prune", "--free", "300KB", "--yes"], b"")
    assert (ran, b"for good?" in told) == (0, False)


def test_goal_asks_also_where_errors_go_into_a_file(cli, history):
    """Whoever types is asked where he sees it; without a terminal to type at, nobody is."""
    ran, told = on_terminal(["prune", "--free", "300KB"], b"n\n", stderr=subprocess.DEVNULL)
    assert b"for good?" in told
    assert (ran, len(there(cli))) == (1, 5)
    ran, told = on_terminal(["prune", "--free", "300KB"], b"", stdin=subprocess.DEVNULL)
    assert b"for good?" not in told
    assert (ran, len(there(cli))) == (0, 4)


def on_terminal(words, answer, **streams):
    """Runs a command on a terminal of its own and types an answer; returns its status and what was to be seen."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "respaldo", *words],
        **{"stdin": theirs, "stdout": theirs, "stderr": theirs, **streams},
        start_new_session=True,
    )
    os.close(theirs)
    told = bytearray()

    def read():
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:
                return
            if not data:
                return
            told.extend(data)
            if b"[y/N]" in told and answer and not typed.is_set():
                typed.set()
                os.write(ours, answer)

    typed = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    status = process.wait()
    reader.join()
    os.close(ours)
    return status, bytes(told)
