"""`unlock`, `lock`, and the commands that are not asked in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_passphrase import SOURCES, talk


@pytest.fixture
def run_dir(place, monkeypatch):
    """Has a directory of the login."""
    made = place / "run"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(made))
    return made


@pytest.fixture
def unlock(run_dir, place, cli, repository, monkeypatch):
    """Unlocks; afterwards nothing names a secret any more. Ends every agent in the end."""
    seen = set()

    def run(*words):
        made = cli("unlock", "--key-file", place / "key", *words, "--json").json
        seen.add(made["pid"])
        return made

    for name in SOURCES:
        monkeypatch.delenv(name, raising=False)
    yield run
    cli("lock", expected=None)
    assert all(gone(pid) for pid in seen)


def gone(pid, timeout_s=60):
    """Waits until a process has ended."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def test_key_that_was_rotated_is_locked_again(unlock, cli, place, tree):
    """What an agent holds opens what is older only: it is not used any more, and the next command asks."""
    unlock("--for", "10m", "--idle", "5m")
    cli("snapshot", tree, "--label", "before")
    cli("key", "rotate", "--key-file", place / "key")
    assert "locked again" in cli("snapshots", expected=2).err
    unlock("--for", "10m", "--idle", "5m")
    assert "before" in cli("snapshots").out


def test_commands_do_not_ask_until_it_is_locked(unlock, cli, tree):
    """A script is asked once; after lock it is asked again."""
    cli("snapshots", expected=2)
    made = unlock("--for", "10m", "--idle", "5m")
    assert 590 < made["left_s"] <= 600
    assert 290 < made["idle_left_s"] <= 300
    cli("snapshot", tree)
    assert len(cli("snapshots", "--json").json["snapshots"]) == 1
    [held] = cli("unlock", "--status", "--json").json["unlocked"]
    assert (held["pid"], held["repository"], held["key"]) == (made["pid"], made["repository"], made["key"])
    assert made["repository"][:8] in cli("unlock", "--status").out
    assert cli("lock", "--json").json == {"locked": 1}
    assert gone(made["pid"])
    cli("snapshots", expected=2)
    assert cli("lock").out == "nothing was unlocked\n"
    assert cli("unlock", "--status").out == "nothing is unlocked\n"


def test_commands_that_change_keys_ask_all_the_same(unlock, cli, place):
    """Nobody who finds the machine unlocked makes a key of his own, or takes one away."""
    key = unlock()["key"]
    cli("key", "list")
    for words in (
        ("add", "--new-key-file", place / "mine"),
        ("remove", key),
        ("recovery", "--output", place / "mine"),
        ("passwd", "--new-password-file", place / "key"),
        ("test",),
    ):
        assert "no passphrase" in cli("key", *words, expected=2).err
    assert not (place / "mine").exists()
    assert "no passphrase" in cli("unlock", "--for", "2d", expected=2).err


def test_secret_that_is_named_goes_before_the_agent(unlock, cli, place, monkeypatch):
    """An option or a variable that is wrong is wrong, whatever is unlocked."""
    unlock()
    (place / "wrong").write_bytes(b"w" * 32)
    cli("snapshots", "--key-file", place / "wrong", expected=12)
    monkeypatch.setenv("RESPALDO_KEY_FILE", str(place / "wrong"))
    cli("snapshots", expected=12)


def test_key_of_one_repository_opens_no_other(unlock, cli, place, repository, monkeypatch):
    """Neither elsewhere nor, when somebody exchanged it, at the same place."""
    unlock()
    cli("init", "-r", place / "other", "--key-file", place / "key")
    cli("snapshots", "-r", place / "other", expected=2)
    repository.rename(place / "away")
    (place / "other").rename(repository)
    assert "another repository lies there" in cli("snapshots", expected=4).err
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state-of-another"))
    cli("snapshots", expected=2)


def test_agents_of_two_repositories_are_ended_one_by_one(unlock, cli, place):
    """`lock -r` ends one, `lock` all."""
    cli("init", "-r", place / "other", "--key-file", place / "key")
    first, second = unlock(), unlock("-r", place / "other")
    assert len(cli("unlock", "--status", "--json").json["unlocked"]) == 2
    assert cli("lock", "-r", place / "other", "--json").json == {"locked": 1}
    assert gone(second["pid"])
    cli("snapshots")
    assert cli("lock", "--json").json == {"locked": 1}
    assert gone(first["pid"])


def test_unlocking_again_means_the_new_time(unlock, cli):
    """There is one agent for a repository: the old one ends."""
    first, second = unlock("--for", "1h"), unlock("--for", "1m")
    assert gone(first["pid"])
    [held] = cli("unlock", "--status", "--json").json["unlocked"]
    assert held["pid"] == second["pid"]
    assert held["left_s"] <= 60


def test_agent_that_does_not_answer_is_replaced_and_ends_when_it_wakes(unlock, cli, monkeypatch):
    """It cannot be talked to, but its socket can be taken from it."""
    first = unlock()
    os.kill(first["pid"], signal.SIGSTOP)
    try:
        second = unlock()
        cli("snapshots")
    finally:
        os.kill(first["pid"], signal.SIGCONT)
    assert gone(first["pid"])
    assert [held["pid"] for held in cli("unlock", "--status", "--json").json["unlocked"]] == [second["pid"]]


def test_lock_kills_an_agent_that_does_not_answer(unlock, cli):
    """At once means at once."""
    made = unlock()
    os.kill(made["pid"], signal.SIGSTOP)
    assert cli("lock", "--json").json == {"locked": 1}
    assert gone(made["pid"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_whatever_ends_the_agent_commands_ask_again(unlock, cli, run_dir, number):
    """Also when it had no time to tidy up; and unlock works over what it left."""
    made = unlock()
    os.kill(made["pid"], number)
    assert gone(made["pid"])
    if number != signal.SIGKILL:
        assert os.listdir(run_dir / "respaldo") == []
    assert "no passphrase" in cli("snapshots", expected=2).err
    unlock()
    cli("snapshots")


def test_removed_key_unlocks_nothing_any_more(unlock, cli, place):
    """Where the slot that was opened has been removed, by whomever, what it gave is not used, and goes."""
    cli("key", "add", "--key-file", place / "key", "--new-key-file", place / "second")
    made = unlock("--key-file", place / "second")
    cli("snapshots")
    cli("key", "remove", made["key"], "--key-file", place / "key")
    ran = cli("snapshots", expected=2)
    assert "was removed or rotated; it is locked again" in ran.err
    assert gone(made["pid"])


def test_it_ends_with_the_login(unlock, cli, run_dir):
    """The system removes the directory of the login at its end."""
    import shutil

    made = unlock()
    shutil.rmtree(run_dir)
    assert gone(made["pid"])


def test_without_a_directory_of_the_login_it_ends_with_the_session(place, cli, repository, monkeypatch):
    """In a cron job or a container, say: a script that unlocks and forgets to lock leaves nothing behind."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    script = (
        'set -e; "$0" -m respaldo unlock --for 1h --json > /dev/null; unset RESPALDO_KEY_FILE; '
        '"$0" -m respaldo unlock --status --json; "$0" -m respaldo snapshots > /dev/null'
    )
    ran = subprocess.run(
        ["sh", "-c", script, sys.executable], capture_output=True, text=True, check=True, start_new_session=True
    )
    import json

    [held] = json.loads(ran.stdout)["unlocked"]
    assert gone(held["pid"])
    assert cli("unlock", "--status", "--json").json == {"unlocked": []}
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    cli("snapshots", expected=2)


def test_directory_that_is_not_safe_is_said_and_not_used(unlock, cli, run_dir, place):
    """Unlocking refuses it; other commands warn and ask."""
    (run_dir / "respaldo").symlink_to(place)
    assert "is not safe" in cli("unlock", "--key-file", place / "key", expected=1).err
    ran = cli("snapshots", expected=2)
    assert "warning: the agent's directory" in ran.err
    (run_dir / "respaldo").unlink()
    (run_dir / "respaldo").mkdir(mode=0o755)
    assert "is not safe" in cli("unlock", "--key-file", place / "key", expected=1).err
    (run_dir / "respaldo").chmod(0o700)


def test_directory_of_the_login_that_others_can_reach_is_none(unlock, cli, run_dir, place):
    """As one of another user: sudo may keep its name in the environment."""
    run_dir.chmod(0o755)
    unlock()
    assert not (run_dir / "respaldo").exists()
    assert (place / "state" / "respaldo" / "agent").stat().st_mode & 0o777 == 0o700
    cli("snapshots")


def test_agent_knows_nothing_that_it_need_not(unlock, place, monkeypatch):
    """No secret in its environment or its command line, no core, locked memory, no terminal, nobody's directory."""
    monkeypatch.setenv("RESPALDO_PASSWORD", "sesame")
    pid = unlock()["pid"]
    about = Path(f"/proc/{pid}")
    assert (about / "cmdline").read_bytes().split(b"\0")[1:] == [b"-m", b"respaldo.ops.agent.server", b""]
    status = (about / "status").read_text()
    assert int(next(line for line in status.splitlines() if line.startswith("VmLck")).split()[1]) > 0
    limits = (about / "limits").read_text()
    assert next(line for line in limits.splitlines() if line.startswith("Max core")).split()[4:6] == ["0", "0"]
    assert os.getsid(pid) == pid
    if os.geteuid():  # its own user may not look any further
        for name in ("environ", "maps"):
            with pytest.raises(PermissionError):
                (about / name).read_bytes()
        with pytest.raises(PermissionError):
            os.readlink(about / "cwd")
        return
    assert b"RESPALDO" not in (about / "environ").read_bytes()
    assert b"sesame" not in (about / "environ").read_bytes()
    assert os.readlink(about / "cwd") == "/"
    for fd in (0, 2):
        assert not os.path.exists(about / "fd" / str(fd)) or "pts" not in os.readlink(about / "fd" / str(fd))


@pytest.mark.root
def test_agent_of_a_user_cannot_be_looked_into():
    """It is not dumpable: what is its in /proc belongs to root, and no other process of the user may trace it."""
    script = (
        "import ctypes, os, sys\n"
        "from respaldo.ops.agent.locked import harden\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        "before = os.stat('/proc/self/environ').st_uid\n"
        "harden()\n"
        "print(before, os.stat('/proc/self/environ').st_uid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "65534 0\n"
        peek = (
            "import os\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"try: open('/proc/{process.pid}/mem', 'rb'); print('opened')\n"
            "except PermissionError: print('refused')\n"
        )
        seen = subprocess.run([sys.executable, "-c", peek], capture_output=True, text=True, check=True)
        assert seen.stdout == "refused\n"
        process.stdin.close()


@pytest.mark.root
def test_ordinary_user_can_unlock(place, tmp_path_factory, monkeypatch):
    """Without any privilege, and through the whole of it."""
    import shutil
    import tempfile

    home = Path(tempfile.mkdtemp(prefix="respaldo-test-"))
    try:
        os.chown(home, 65534, 65534)
        script = (
            "set -e; mkdir -m 700 run; export XDG_RUNTIME_DIR=$PWD/run RESPALDO_REPOSITORY=$PWD/r "
            "XDG_CACHE_HOME=$PWD/c XDG_STATE_HOME=$PWD/s; unset RESPALDO_KEY_FILE; head -c 32 /dev/urandom > key; "
            '"$0" -m respaldo init -q --key-file key; "$0" -m respaldo unlock -q --key-file key; '
            '"$0" -m respaldo snapshots; "$0" -m respaldo lock'
        )
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        where = [sys.path[0], *(path for path in sys.path if path.endswith(("/src", "/site-packages")))]
        env = {**os.environ, "PYTHONPATH": ":".join(where)}
        for python in (sys.executable, "/usr/bin/python3"):  # the first may lie in a home of root's
            works = [*as_nobody, "sh", "-c", '"$0" -c "import respaldo.api.repository, nacl"', python]
            if not subprocess.run(works, cwd=home, capture_output=True, env=env, check=False).returncode:
                break
        else:
            pytest.skip("this Python is not for everybody")
        words = [*as_nobody, "sh", "-c", script, python]
        ran = subprocess.run(words, cwd=home, capture_output=True, text=True, env=env, check=False)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.splitlines()[-1] == "locked 1 repository"
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("words", [("--for", "0s"), ("--for", "5"), ("--for", "-1m"), ("--for", "1m", "--idle", "2m")])
def test_times_that_make_no_sense_are_wrong_usage(run_dir, cli, repository, words):
    """Nothing is unlocked."""
    cli("unlock", *words, expected=2)
    assert cli("unlock", "--status", "--json").json == {"unlocked": []}


def test_wrong_passphrase_unlocks_nothing(unlock, cli, place):
    """What would open nothing is not kept."""
    (place / "wrong").write_bytes(b"w" * 32)
    cli("unlock", "--key-file", place / "wrong", expected=12)
    assert cli("unlock", "--status", "--json").json == {"unlocked": []}


def test_script_at_a_terminal_is_asked_once(place, run_dir, monkeypatch):
    """The passphrase is typed for unlock, and for no command after it."""
    for name in SOURCES:
        monkeypatch.delenv(name, raising=False)
    assert talk(["init"], [b"sesame", b"sesame"])[0] == 0
    assert talk(["unlock"], [b"sesame"])[0] == 0
    status, shown = talk(["snapshots"], [])
    assert status == 0
    assert b"no snapshots" in shown
    assert b"passphrase" not in shown
    assert talk(["lock"], [])[0] == 0
    assert talk(["snapshots"], [b"sesame"])[0] == 0
