"""Secrets stay where they belong: a whole run is watched from within, and all that it left is searched afterwards.

Needles are passphrases, keys of every kind and known content, as they are, in hex and in base 64. They may reach the
files that were asked to hold them (a new key file, a printed key, what is restored), and the pipe and socket of the
agent, which carry the master key. Nothing else: no command line, log, JSON, trace, temporary file, index.
"""

from __future__ import annotations

import base64
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from respaldo.api import Places, Secret, open_repository
from respaldo.cli.run import COMMANDS
from respaldo.codec.keys import KEY_BYTES, SEALED_KINDS
from respaldo.format.credential import parse_credential
from tests.hostile.runner import Runner

PASS, SECOND, WRONG = "sesame-4f1c-opens", "sesame-77aa-second", "sesame-0bad-wrong"
CONTENT = b"known content of a file, not to be seen anywhere: 1f0e9d8c"
NOISE = bytes(range(256))[::-1]


@pytest.fixture(scope="session")
def watch(tmp_path_factory):
    """Builds the library that watches (see watch.c)."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: a run cannot be watched from within")
    built = tmp_path_factory.mktemp("watch") / "watch.so"
    source = Path(__file__).with_name("watch.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True)
    return built


class Run:
    """Is a place in which commands run, watched, under umask 000."""

    def __init__(self, place: Path, library: Path) -> None:
        self.place = place
        self.library = library
        self.log = place / "watched"
        self.log.touch()
        self.needles: dict[str, bytes] = {}
        self.out = place / "out"
        self.out.mkdir()
        self.count = 0
        self._runner: Runner | None = None
        for name in ("tmp", "run"):
            (place / name).mkdir(mode=0o700)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RESPALDO_")}
        self.environment |= {
            "HOME": str(place / "home"),
            "TMPDIR": str(place / "tmp"),
            "XDG_RUNTIME_DIR": str(place / "run"),
            "XDG_CACHE_HOME": str(place / "home" / "cache"),
            "XDG_STATE_HOME": str(place / "home" / "state"),
            "XDG_CONFIG_HOME": str(place / "home" / "config"),
            "RESPALDO_REPOSITORY": str(place / "repository"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def seek(self, **needles: bytes) -> None:
        """Looks for these from now on."""
        self.stop()
        for name, needle in needles.items():
            self.needles[name] = needle
            if not needle.isascii() or name.startswith("key"):
                self.needles[f"{name} in hex"] = needle.hex().encode()
                self.needles[f"{name} in base 64"] = base64.b64encode(needle).rstrip(b"=")
        (self.place / "needles").write_text("".join(f"{needle.hex()}\n" for needle in self.needles.values()))

    def __call__(self, *words: str | Path, expected: int | None = 0, **environment: str) -> str:
        """Runs a command; returns what it printed, which went into files."""
        self.count += 1
        out, err = (self.out / f"{self.count}-{words[0]}.{name}" for name in ("out", "err"))
        status = self._started().into(words, out, err, environment, place=self.place / "tmp").status
        assert expected is None or status == expected, (words, err.read_text(), out.read_text(errors="replace"))
        return out.read_text(errors="replace") + err.read_text()

    def _started(self) -> Runner:
        """Returns the process of which every command is a fork, and which knows the needles that there are now."""
        if self._runner is None:
            watching = {
                "LD_PRELOAD": str(self.library),
                "WATCH_LOG": str(self.log),
                "WATCH_NEEDLES": str(self.place / "needles"),
            }
            self._runner = Runner(self.environment | watching, umask=0).__enter__()
        return self._runner

    def stop(self) -> None:
        """Ends that process, if there is one."""
        if self._runner is not None:
            self._runner.__exit__(None, None, None)
        self._runner = None

    def seen(self, kind: str) -> list[tuple[str, str]]:
        """Returns what was logged of a kind: (mode or needle, path)."""
        lines = self.log.read_text("utf-8", "surrogateescape").splitlines()
        return [(line.split(" ", 2)[1], line.split(" ", 2)[2]) for line in lines if line.startswith(kind + " ")]


@pytest.fixture(scope="module")
def run(tmp_path_factory, watch):
    """Has done all that can be done with a repository, and more than once wrongly."""
    place = tmp_path_factory.mktemp("secrets")
    made = Run(place, watch)
    key, tree = place / "given.key", place / "tree"
    key.write_bytes(bytes((7 * n + 3) % 256 for n in range(32)))
    for name, passphrase in (("pass", PASS), ("second", SECOND), ("wrong", WRONG)):
        (place / name).write_text(passphrase + "\n")
    tree.mkdir()
    (tree / "text").write_bytes(CONTENT * 50)
    (tree / "noise").write_bytes(NOISE * 2000)
    (tree / "small").write_bytes(CONTENT)
    made.seek(
        passphrase=PASS.encode(),
        second=SECOND.encode(),
        wrong=WRONG.encode(),
        key=key.read_bytes(),
        content=CONTENT,
        noise=NOISE,
    )
    made("init", "--password-file", place / "pass", "--new-key-file", place / "asked.key", "--parity", "5%")
    seek_keys(made, "first")
    made.seek(key_asked=bytes.fromhex((place / "asked.key").read_text().strip()))
    by_file = {"RESPALDO_PASSWORD_FILE": str(place / "pass")}
    made("key", "add", "--new-password-file", place / "second", "--label", "second", **by_file)
    made("key", "recovery", "--output", place / "asked.txt", "--svg", place / "asked.svg", "--json", **by_file)
    made("key", "recovery", "--shares", "2", "--of", "2", "--output", place / "asked-share", **by_file)
    groups = re.findall(r"(?:\w{4}-){6}\w{4}", (place / "asked.txt").read_text())
    words = re.findall("[a-z]+", (place / "asked-share-1").read_text().partition("1. ")[2])
    made.seek(
        recovery=groups[0].encode(),
        recovery_end=groups[1].encode(),
        share=" ".join(words[4:9]).encode(),
        recovery_small=groups[0].lower().encode(),
    )
    made("key", "test", RESPALDO_PASSWORD_COMMAND=f"cat {place / 'pass'}")
    made("key", "test", "--key-file", place / "asked.txt", "--json")
    made("key", "test", "-vv", RESPALDO_PASSWORD=PASS)
    made("snapshot", tree, "-vv", "--json", **by_file)
    (tree / "text").write_bytes(CONTENT * 70)
    made("snapshot", tree, "-vv", "--paranoid", "100%", **by_file)
    for command in (
        ("key", "list", "--json"),
        ("snapshots", "--json"),
        ("ls", "latest", "-vv"),
        ("find", "text"),
        ("history", str(tree / "text")),
        ("stats", "--json"),
        ("verify", "--read-data", "-vv"),
        ("log", "show", "--json"),
        ("log", "head"),
        ("repair", "--dry-run"),
        ("parity", "status"),
        ("prune", "--policy", "standard", "-vv"),
        ("export", "latest", "--format", "tar", "--output", str(place / "asked.tar")),
        ("restore", "latest", str(place / "asked-restored"), "--verify", "-vv"),
    ):
        made(*command, **by_file)
    # By a key from here on: a passphrase takes its time, and was among the needles often enough.
    by_key = {"RESPALDO_KEY_FILE": str(place / "asked.key")}
    every_other_command(made, tree, by_key)
    # What goes wrong, with traces.
    for debug in ({}, {"RESPALDO_DEBUG": "1"}):
        made("snapshots", "--password-file", place / "wrong", expected=None, **debug)
        made("snapshots", expected=None, RESPALDO_PASSWORD=WRONG, **debug)
        made("snapshots", expected=None, RESPALDO_PASSWORD_COMMAND=f"sh -c 'cat {place / 'pass'}; exit 1'", **debug)
        made("snapshots", "--key-file", place / "wrong", expected=None, **debug)
        (place / "bad.txt").write_text((place / "asked.txt").read_text()[:-3] + "ZZ\n")
        made("key", "test", "--key-file", place / "bad.txt", expected=None, **debug)
        bad = (place / "asked-share-1").read_text().replace(words[7], "academic")
        (place / "bad-share").write_text(bad)
        made("key", "test", "--key-file", place / "bad-share", expected=None, **debug)
        made("init", expected=None, **by_file, **debug)
    # The agent, and a change of passphrase.
    made("unlock", "--for", "10m", "--json", **by_file)
    made("snapshot", tree)
    made("unlock", "--status", "--json")
    made("lock")
    made("key", "passwd", "--password-file", place / "second", "--new-password-file", place / "wrong")
    yield made
    made.stop()


def every_other_command(made: Run, tree: Path, by_key: dict[str, str]) -> None:
    """Does what the other commands do; `test_all_commands_ran` sees that none that was added is left out."""
    place = made.place
    there = {**by_key, "RESPALDO_OTHER_PASSWORD_FILE": str(place / "second")}
    target = {"RESPALDO_REPOSITORY": str(place / "repository-2"), "RESPALDO_PASSWORD_FILE": str(place / "second")}
    head = made("log", "head", **by_key).split()[-1]
    for command in (
        ("diff", f"latest:{tree}", "--live", "-vv"),
        ("dump", "latest:" + str(tree / "text"), "--json"),
        ("dump", "latest:" + str(tree)),
        ("checksums", "latest", "--read-data", "--json"),
        ("ls", "-lR", "latest", "--json"),
        ("restore", f"latest:{tree}", str(place / "asked-restored-too"), "--preview", "--json"),
        ("restore", f"latest:{tree}", str(tree), "--overwrite", "always", "--delete", "--safety", "-vv"),
        ("export", "latest", "--format", "zip", "--output", str(place / "asked.zip"), "--json"),
        ("export", "latest", "--format", "tar.gz", "--output", str(place / "asked.tar.gz")),
        ("rewrite", "latest", "--exclude", "small", "-vv"),
        ("pin", "latest", "--json"),
        ("unpin", "latest"),
        ("forget", "--keep-last", "1", "--grace", "7d", "--json"),
        ("undo", "--all"),
        ("import", str(place / "asked.tar"), "--as", "/imported", "-vv"),
        ("import", str(place / "asked.tar.gz"), "--as", "/imported", "--json"),
        ("snapshot", "--stdin", "dump.sql", "--command", f"cat {tree / 'text'}"),
        ("parity", "mend"),
        ("log", "check", head),
        ("repair", "--yes", "--read-data", "-vv"),
        ("completion", "bash"),
    ):
        made(*command, **by_key)
    like = {**target, "RESPALDO_OTHER_PASSWORD_FILE": str(place / "pass")}
    made("init", "--like", str(place / "repository"), **like)
    made("copy", "--to", str(place / "repository-2"), "-vv", **there)
    made("sync", "--to", str(place / "repository-2"), "--json", **there)
    made("key", "remove", "--label", "second", expected=None, **by_key)
    as_clients(made, tree, by_key)
    made("key", "rotate", "--yes", "-vv", "--json", **by_key)
    seek_keys(made, "rotated")
    made("snapshot", tree, "-vv", **by_key)
    for command in (
        ("key", "reencrypt", "--json", "-vv"),
        ("key", "epochs", "--json"),
        ("ls", "latest"),
        ("log", "show"),
        ("log", "show", "--access", "--json"),
        ("log", "show", "--access", "-vv"),
    ):
        made(*command, **by_key)


def seek_keys(made: Run, name: str) -> None:
    """Looks for all keys that the repository has now, from now on."""
    place = made.place
    secret = Secret(passphrase=PASS.encode())
    places = Places(cache_dir=place / "aside" / "cache", state_dir=place / "aside" / "state")
    with open_repository(str(place / "repository"), secret, places=places) as repository:
        ring = repository._repo.ring
        found = {
            "master": ring.master,
            "root": ring._root,
            "hedge": ring.hedge,
            "chunker": ring.chunker_secret,
            "links": ring.link_group,
            "names": ring.name_order,
        }
        found |= {f"id_{kind.word}": key for kind, key in ring.id_keys.items()}
        found |= {f"seal_{kind}": ring.seal_key(kind) for kind in SEALED_KINDS}
    made.seek(**{f"key_{what}_{name}": key for what, key in found.items()})


def as_clients(made: Run, tree: Path, by_key: dict[str, str]) -> None:
    """Adds a client that reads nothing and one that reads its own; lets both work, and one try what it may not."""
    place = made.place
    made("key", "client", "add", "web", "--write-only", "--out", place / "asked-web", "--json", "-vv", **by_key)
    made("key", "client", "add", "ana", "--restore", "--out", place / "asked-ana", **by_key)
    for name in ("web", "ana"):
        credential = parse_credential((place / f"asked-{name}").read_bytes(), name)
        parts = [credential.sign_seed, credential.box_seed]
        parts += [
            credential.content_keys[at : at + KEY_BYTES] for at in range(0, len(credential.content_keys), KEY_BYTES)
        ]
        made.seek(
            **{f"key_{number}_of_{name}": part for number, part in enumerate(parts)},
            **{f"text_{name}": (place / f"asked-{name}").read_bytes().split()[-1][40:90]},
        )
    for name in ("web", "ana"):
        there = {f"XDG_{kind}_HOME": str(place / "home" / name / kind.lower()) for kind in ("CACHE", "STATE")}
        for debug in ({}, {"RESPALDO_DEBUG": "1"}):
            may = 0 if name == "ana" else None
            made("snapshot", tree, "--client-file", place / f"asked-{name}", "-vv", "--json", **there, **debug)
            made("snapshots", "--client-file", place / f"asked-{name}", "-vv", expected=may, **there, **debug)
            into = place / f"asked-restored-{name}-{len(debug)}"
            made("restore", "latest", into, "--client-file", place / f"asked-{name}", expected=may, **there, **debug)
    made("snapshots", "--client", "web", **by_key)
    made("restore", "latest", place / "asked-restored-of-web", "--client", "web", "-vv", **by_key)
    made("key", "client", "list", "--json", **by_key)
    made("key", "client", "remove", "web", "--json", **by_key)


def is_asked(path: str) -> bool:
    """Tells whether a path was named to hold secrets: files that were asked for, the tree itself, standard output."""
    asked = ("/asked" in path, "/.respaldo-export-" in path, "/tree/" in path)
    return any(asked) or re.search(r"/out/\d+-(dump|checksums)\.out$", path) is not None


def name_of(run, number):
    return list(run.needles)[int(number)]


def test_no_needle_was_written_but_where_it_was_asked_for(run):
    """To no file, temporary ones included, no pipe and no terminal; the agent gets the master key, and nothing else."""
    found = [(name_of(run, number), path) for number, path in run.seen("W") if not is_asked(path)]
    to_agent = [item for item in found if item[1].startswith(("pipe:", "socket:")) and "key_master" in item[0]]
    # By cat, to us, as it was told: the passphrase, and what was to be backed up.
    fed = {item for item in found if item[1].startswith("pipe:") and item[0] in {"passphrase", "content"}}
    assert sorted(set(found) - set(to_agent) - fed) == []
    assert len(to_agent) == 1


def test_watching_sees_what_there_is_to_see(run):
    """The library works: what was asked for was seen, with every kind of needle."""
    seen = {name_of(run, number) for number, path in run.seen("W") if is_asked(path)}
    assert {"content", "noise"} <= seen
    assert len(run.seen("F")) > 20
    assert len(run.seen("D")) > 10
    assert len(run.seen("S")) == 1


def test_no_needle_was_on_a_command_line_or_in_an_environment_of_ours(run):
    """What was started got no secret; a variable that a person has set goes to what the person has started, alone."""
    assert [(name_of(run, number), path) for number, path in run.seen("X")] == []


def test_everything_is_private_from_the_first_moment(run):
    """Files 0600, directories 0700, the socket 0600, whatever the umask; but what is restored has modes of its own."""
    wrong = [item for item in run.seen("F") if item[0] != "600" and not is_asked(item[1])]
    wrong += [item for item in run.seen("D") if item[0] != "700" and not is_asked(item[1])]
    wrong += [item for item in run.seen("S") if item[0] != "600"]
    assert wrong == []
    restored = [
        item for item in run.seen("F") + run.seen("D") if "/asked-restored/" in item[1]
    ]  # the target is a user's
    assert {mode for mode, _ in restored} <= {"600", "700"}
    keys = [item for item in run.seen("F") if "/asked" in item[1] and not item[1].endswith((".tar", ".sha256"))]
    assert {mode for mode, _ in keys} == {"600"}


def test_all_that_is_left_is_private(run):
    """Nobody widened it afterwards."""
    for top in ("repository", "home", "run", "tmp"):
        for path in [run.place / top, *(run.place / top).rglob("*")]:
            found = path.lstat()
            assert stat.S_IMODE(found.st_mode) == (0o700 if stat.S_ISDIR(found.st_mode) else 0o600), path


def test_no_needle_is_in_anything_that_is_left(run):
    """Repository, cache, state, temporary files, output and traces: searched byte by byte."""
    searched = 0
    for top in ("repository", "repository-2", "home", "run", "tmp", "out"):
        for path in (run.place / top).rglob("*"):
            if path.is_file() and not is_asked(str(path)):
                data = path.read_bytes()
                searched += 1
                assert [name for name, needle in run.needles.items() if needle in data] == [], path
    assert searched > 50
    assert list((run.place / "tmp").rglob("*")) == []


def test_all_commands_ran(run):
    """Nothing new stays unwatched.

    But for two: a mount gives content to whoever may have it, and a bench restores into a directory that it is told.
    """
    ran = {path.name.partition("-")[2].rpartition(".")[0] for path in run.out.iterdir()}
    assert set(COMMANDS) - ran == {"mount", "bench"}


def test_traces_were_among_what_was_searched(run):
    """With RESPALDO_DEBUG=1 the errors above came with a trace."""
    traces = [path for path in run.out.iterdir() if b"Traceback" in path.read_bytes()]
    assert len(traces) >= 5


@pytest.mark.parametrize("words", [("snapshots",), ("unlock", "--for", "1h")])
def test_no_core_is_left(run, words):
    """A command, or an agent, that is made to crash leaves no core, though its user allows any size."""
    place = run.place / "cores"
    place.mkdir(exist_ok=True)
    fifo = place / "fifo"
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo)
    if words[0] == "unlock":
        run(*words, "--password-file", run.place / "pass")
        import json

        pid = json.loads(run("unlock", "--status", "--json"))["unlocked"][0]["pid"]
        limits = Path(f"/proc/{pid}/limits").read_text()
        os.kill(pid, signal.SIGSEGV)
        assert re.search(r"Max core file size +0 +0 ", limits)
        assert not Path("/core").exists()
        run("lock")
        return

    def allow():
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    process = subprocess.Popen(  # it waits for a passphrase that does not come
        [sys.executable, "-m", "respaldo", *words, "--password-file", str(fifo)],
        cwd=place,
        env=run.environment,
        preexec_fn=allow,  # noqa: PLW1509 - no threads here
    )
    with fifo.open("wb"):
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.send_signal(signal.SIGSEGV)
        assert process.wait() == -signal.SIGSEGV
    assert re.search(r"Max core file size +0 ", limits)
    assert list(place.glob("core*")) == []
