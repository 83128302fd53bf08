"""What lies in the directories of state, cache and configuration may be anything: no command waits for it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

_MOST_S = 20


@contextlib.contextmanager
def _no_wait():
    """Ends the test where something waits."""

    def end(_number, _frame):
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(_MOST_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_fifo_in_the_place_of_a_file_is_not_waited_for(cli, repository, tree, place, monkeypatch):
    """With a FIFO for each file in turn, a command that uses it goes on without it, or fails and names it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    cli("snapshot", tree)
    cli("dump", f"latest:{tree}/docs/a.txt")  # so that there is an access log
    (place / "config" / "respaldo").mkdir(parents=True)
    (place / "config" / "respaldo" / "policies.toml").write_text("[mine]\nkeep-last = 3\n")
    tops = ("state", "cache", "config")
    files = [path for top in tops for path in (place / top).rglob("*") if path.is_file()]
    assert {"memory", "identity", "seen", "lock", "key", "log", "swept", "memo.lock", "data.mdb", "lock.mdb"} <= {
        path.name for path in files
    }
    waited = []
    for path in files:
        kept = path.with_name("kept")
        path.rename(kept)
        os.mkfifo(path)
        for words in (["snapshots"], *_users(path, tree)):
            with _no_wait():
                ran = cli(*words, "--accept-rollback", expected=None)
            refused = "it is no regular file" in ran.err and _named(ran.err, path)
            if ran.status and not refused:
                waited.append((path, words, ran))
        path.unlink(missing_ok=True)
        if kept.exists():
            kept.rename(path)
    assert waited == []


def test_an_access_log_that_cannot_be_read_is_a_failure_and_no_wrong_usage(cli, repository, tree, place):
    """The one who asked did nothing wrong."""
    cli("snapshot", tree)
    cli("dump", f"latest:{tree}/docs/a.txt")
    (log,) = (place / "state").rglob("access/log")
    log.rename(log.with_name("kept"))
    log.mkdir()
    for words in (["log", "show"], ["log", "check"]):
        assert "the access log cannot be read" in cli(*words, expected=1).err


def _users(path: Path, tree: Path) -> list[list[str]]:
    """Returns commands that use a file."""
    if path.parent.name == "access":
        return [["dump", f"latest:{tree}/docs/a.txt"], ["log", "show"]]
    if path.name == "policies.toml":
        return [["forget", "--dry-run", "--policy", "standard"]]
    if path.name in {"memory", "identity", "memo.lock", "swept"} or path.parent.name == "memo":
        return [["snapshot", str(tree)]]
    return []


def _named(text: str, path: Path) -> bool:
    """Whether a message names a file, or for the access log and the lock of a cache its directory or what it guards."""
    return any(str(name) in text for name in (path, path.with_suffix(""), path.parent))


def test_a_policy_may_come_from_a_fifo_that_is_named(cli, repository, place):
    """What somebody names may be anything that can be read: `--policy <(…)`."""
    read, write = os.pipe()
    os.write(write, b"[mine]\nkeep-last = 3\n")
    os.close(write)
    try:
        assert cli("forget", "--policy", f"/dev/fd/{read}", "--dry-run", "--json").json["policy"]["keep"]
    finally:
        os.close(read)


def test_a_policy_file_that_is_only_begun_hides_no_policy(cli, repository, place, monkeypatch):
    """A file without a policy yet leaves the program's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    (place / "config" / "respaldo").mkdir(parents=True)
    (place / "config" / "respaldo" / "policies.toml").write_text("# [laptop]\n\n  # keep-daily = 7\n")
    assert cli("forget", "--policy", "standard", "--dry-run", "--json").json["policy"]["keep"]
