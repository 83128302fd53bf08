"""A client of a repository on a disk: the command line with a cache and a state of its own, and what it backs up."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.fidelity.compare import rsync_differences
from tests.fidelity.product import Product, Ran

HANGS_AFTER_S = 600
"""A command that takes longer hangs: what is asked of it takes a second."""
MIB = 1 << 20


class Client(Product):
    """Runs commands on a repository that lies elsewhere; remembers what each of its snapshots must hold."""

    def __init__(self, place: Path, repository: Path, *, host: str = "one") -> None:
        self.place = place
        self.repository = repository
        self.host = host
        self.source = place / "source"
        self.kept: dict[str, Path] = {}
        self.source.mkdir(parents=True)
        (place / "key").write_bytes(bytes(range(32)))
        if not repository.exists():
            self.run("init")

    def words(self, *words: str | bytes | Path) -> list[str]:
        where = {"--repo": self.repository, "--key-file": self.place / "key", "--cache-dir": self.place / "cache"}
        return [*map(os.fsdecode, words), *(text for option, path in where.items() for text in (option, str(path)))]

    def write(self, seed: int, *, files: int = 6, length_bytes: int = MIB) -> None:
        """Writes files that follow from a seed, beside those that are there."""
        folder = self.source / f"folder{seed % 3}"
        folder.mkdir(exist_ok=True)
        for number in range(files):
            (folder / f"{seed}-{number}").write_bytes(os.urandom(length_bytes // files))
        (self.source / "changing").write_bytes(b"%d\n" % seed * 1000)
        (folder / "link").unlink(missing_ok=True)
        (folder / "link").symlink_to(f"{seed}-0")

    def take(self) -> str:
        """Makes a snapshot of the source, keeps a copy of what it must hold, returns its id."""
        snapshot = self.snapshot(self.source, "--host", self.host)["snapshot"]
        copy = self.place / f"copy-{snapshot}"
        subprocess.run(["cp", "-a", self.source, copy], check=True)
        self.kept[snapshot] = copy
        return snapshot

    def listed(self) -> set[str]:
        """Returns the ids of all snapshots."""
        return {row["id"] for row in self.run("snapshots", "--json").json["snapshots"]}

    def check(self, reader: Client | None = None) -> None:
        """Restores every snapshot, as another client perhaps, and compares it with what it must hold."""
        reader = reader or self
        assert self.kept.keys() <= reader.listed()
        for snapshot, copy in self.kept.items():
            target = reader.place / "target"
            reader.restore(f"{snapshot}:{self.source}", target)
            differences = rsync_differences(copy, target)
            assert differences == [], differences[:5]
            shutil.rmtree(target)

    def start(self, *words: str | bytes | Path) -> subprocess.Popen[bytes]:
        """Starts a command as a process of its own, which reads what it is given."""
        return subprocess.Popen(
            [sys.executable, "-m", "respaldo.cli.main", *self.words(*words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | self.environment,
        )

    def finish(self, process: subprocess.Popen[bytes], data: bytes = b"") -> Ran:
        """Waits for a process to end; one that hangs fails the test."""
        try:
            out, err = process.communicate(data, timeout=HANGS_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        return Ran(process.returncode, out.decode(), err.decode())

    def packs(self) -> int:
        """Returns the number of packs."""
        return sum(len(files) for _, _, files in os.walk(self.repository / "packs"))

    def stream(self, action: Callable[[], None]) -> Ran:
        """Backs up a stream; something is done when a pack of it is in the repository and more on its way."""
        process = self.start("snapshot", "--stdin", "stream")
        stdin, before = process.stdin, self.packs()
        assert stdin is not None
        while self.packs() == before and process.poll() is None:
            stdin.write(os.urandom(MIB))
        action()
        return self.finish(process, os.urandom(8 * MIB))

    def stopped(self, *words: str | Path, when: Callable[[], bool], action: Callable[[], None]) -> Ran:
        """Runs a command and stops it at a moment; goes on after something was done meanwhile."""
        process = self.start(*words)
        while not when() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        action()
        process.send_signal(signal.SIGCONT)
        return self.finish(process)
