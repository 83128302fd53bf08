"""The product as its users run it: the command line's own entry point, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from respaldo.cli.main import main


@dataclass(frozen=True)
class Ran:
    """Is what a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Product:
    """Runs commands on a repository of its own below a directory; opens it with a key file, which costs no Argon2id."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.repository = place / "repository"
        place.mkdir(exist_ok=True)
        key = place / "key"
        if not key.exists():
            key.write_bytes(bytes(range(32)))
            self.run("init")

    def words(self, *words: str | bytes | Path) -> list[str]:
        """Returns the arguments of a command, with what names the repository."""
        where = {"--repo": "repository", "--key-file": "key", "--cache-dir": "cache"}
        common = [text for option, name in where.items() for text in (option, str(self.place / name))]
        return [*map(os.fsdecode, words), *common]

    @property
    def environment(self) -> dict[str, str]:
        return {"XDG_STATE_HOME": str(self.place / "state")}

    def run(self, *words: str | bytes | Path, expected: int | None = 0) -> Ran:
        """Runs a command in this process, or whichever this is called in."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
        with (
            patch.dict(os.environ, self.environment),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main(self.words(*words))
        texts = []
        for stream in (out, err):
            stream.flush()
            texts.append(stream.buffer.getvalue().decode("utf-8", "surrogateescape"))
        assert expected in {None, status}, f"{words}: {status}\n{texts[0]}\n{texts[1]}"
        return Ran(status, *texts)

    def spawn(self, *words: str | bytes | Path, measured: bool = False) -> subprocess.Popen:
        """Starts a command as a process of its own; ``measured``: its last line says what memory it took."""
        start = [sys.executable, "-c", MEASURED] if measured else [sys.executable, "-m", "respaldo.cli.main"]
        return subprocess.Popen(
            [*start, *self.words(*words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | self.environment,
        )

    def snapshot(self, *words: str | bytes | Path, expected: int = 0) -> dict:
        """Makes a snapshot; returns what the JSON says."""
        return self.run("snapshot", *words, "--json", expected=expected).json

    def restore(self, name: str | Path | bytes, target: Path | bytes, *words: str, expected: int | None = 0) -> dict:
        """Restores what a name means, or of the latest snapshot a path; returns what the JSON says."""
        text = os.fsdecode(name)
        text = f"latest:{text}" if text.startswith("/") else text
        return self.run("restore", text, target, *words, "--json", expected=expected).json


MEASURED = """
import os, sys, threading, time
from pathlib import Path
from respaldo.cli.main import main
peak = 0
def look():
    global peak
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.02)
threading.Thread(target=look, daemon=True).start()
status = main(sys.argv[1:])
print(f"RssAnon {peak >> 10}")
sys.exit(status)
"""
"""A program that runs a command and says in the end how many MiB of memory of its own it had at its peak."""
