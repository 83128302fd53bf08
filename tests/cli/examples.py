"""The examples that people are shown, in README.md and on the pages of the commands, and a world in which they can run.

Every path, snapshot and key that an example names is there: below a directory of its own that stands for the root.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from respaldo.cli.main import main
from respaldo.cli.run import group

CHECKOUT = Path(__file__).parents[2]
_PLAIN = r"(?:'[^']*'|[^'|;&<>$*\"])*"
PIPED = re.compile(rf"(respaldo {_PLAIN}(?:#.*)?)(?:\| (.*))?")
AND = re.compile(rf"{_PLAIN}(?: && {_PLAIN})+")
ROOTS = re.compile(r"(?<![\w./~-])/(?=(mnt|media|home|srv|etc|root|old|tmp|somewhere|shop\.dump|\.secrets)\b)")
INSIDE = ("/shop.dump", "/.secrets")
"""Paths in a snapshot that are no paths of this machine."""

TOOLS = {
    "respaldo": f'exec {shlex.quote(sys.executable)} -m respaldo "$@"',
    "ssh": 'shift; exec sh -c "$(printf %s "$*" | sed "s|-C / |-C $WORLD |")"',
    "mail": "exec cat >/dev/null",
    "pg_dump": "echo 'CREATE TABLE shop ();'",
    "pg_restore": "exec grep -q shop",
    "hostname": "echo granja",
}
POLICIES = """
[laptop]
keep-last = 3
keep-daily = 14
keep-within-weekly = "26w"
keep-kind = { full = "90d" }
grace = "7d"
sources = ["/home/ana"]
"""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yields every command that is none of a group, by its name as it is typed."""

    def below(found: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
        if not isinstance(found, click.Group):
            yield name, found
            return
        context = click.Context(found)
        for word in found.list_commands(context):
            inner = found.get_command(context, word)
            assert inner is not None
            yield from below(inner, f"{name} {word}")

    yield from below(group, "respaldo")


def of_pages() -> list[str]:
    """Returns every example on the pages of the commands, as they are defined."""
    first = group.get_help(click.Context(group)).partition("Examples:")[2]
    return [line.strip() for line in first.splitlines() if line.strip()] + [
        line for _, command in commands() for _, line in getattr(command, "_examples", ())
    ]


def of_readme() -> list[list[str]]:
    """Returns the blocks of commands in README.md, line by line."""
    text = (CHECKOUT / "README.md").read_text("utf-8")
    blocks = [
        found[2] for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if not found[1]
    ]
    return [[line for line in block.splitlines() if line.strip() and not line.startswith("#")] for block in blocks]


@dataclass
class World:
    """Is a directory that stands for the root, and what examples call the things in it."""

    root: Path
    names: dict[str, str]
    keys: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """What the commands see."""
        home = self.root / "home" / "ana"
        return {
            "HOME": str(home),
            "WORLD": str(self.root),
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "RESPALDO_REPOSITORY": str(self.root / "mnt/disk/backup"),
            "RESPALDO_KEY_FILE": str(self.root / "key"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_CONFIG_HOME": str(home / ".config"),
            "TMPDIR": str(self.root / "tmp"),
        }

    @property
    def aside(self) -> Path:
        """Where it is kept as it was made."""
        return self.root.with_name(f"{self.root.name} as it was")

    def keep(self) -> None:
        """Keeps it as it is."""
        shutil.copytree(self.root, self.aside, symlinks=True)

    def renew(self) -> None:
        """Makes it again what it was, at the same place, which snapshots know it by."""
        os.chdir(self.aside)
        shutil.rmtree(self.root)
        shutil.copytree(self.aside, self.root, symlinks=True)
        os.chdir(self.root / "work")

    def line(self, text: str) -> str:
        """Returns an example with the names that things have here."""
        if "respaldo-head-…" in text:
            text = text.replace("respaldo-head-…", (self.root / "work" / "head").read_text().strip())
        for name, real in (self.keys if re.search(r"\bkey (remove|rotate)", text) else self.names).items():
            text = re.sub(rf"(?<!\w){name}(?!\w)", real, text)
        text = re.sub(r"(?<=[ :=])/ ", f"{self.root}/ ", text) if "import" not in text else text
        return ROOTS.sub(lambda found: found[0] if text[found.start() :].startswith(INSIDE) else f"{self.root}/", text)

    def run(self, text: str) -> tuple[int, str]:
        """Runs one line; returns the status and what it said.

        What is simple runs in this process, with what is behind a pipe in a shell; a shell takes the rest.
        """
        text = self.line(text)
        said = f"{text}\n"
        for part in re.split(r" && ", text) if AND.fullmatch(text) else [text]:
            status, more = self._step(part)
            said += more
            if status:
                return status, said
        return 0, said

    def _step(self, text: str) -> tuple[int, str]:
        found = PIPED.fullmatch(text)
        if not found:
            return _shell(text, subprocess.DEVNULL)
        words = [os.path.expanduser(word) for word in shlex.split(found[1], comments=True)[1:]]
        if found[2] is None:
            return main(words), ""
        with tempfile.TemporaryFile("w+") as pipe:
            with contextlib.redirect_stdout(pipe):
                status = main(words)
            pipe.seek(0)
            return (status, "") if status else _shell(found[2], pipe.fileno())


def _shell(text: str, stdin: int) -> tuple[int, str]:
    words = ["bash", "-c", f"set -o pipefail; {text}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=stdin)
    return done.returncode, f"{done.stdout}{done.stderr}"


def build(root: Path) -> World:
    """Makes the world: five snapshots of what a person and a server have, two keys more, a second repository.

    The environment is that of a world there already.
    """
    home = root / "home" / "ana"
    for folder in (
        "Documents",
        "Pictures",
        "Photos",
        "Papers",
        "thesis",
        "node_modules",
        ".config/respaldo",
        ".config/fish/completions",
    ):
        (home / folder).mkdir(parents=True)
    for folder in (
        "bin", "tmp", "work", "srv/www", "srv/app", "etc/nginx", "etc/respaldo", "root", "old", "somewhere/else",
        "mnt/back", "mnt/cold", "mnt/copy", "mnt/new", "mnt/newdisk", "mnt/home-snap", "media/stick", "mnt/second",
    ):  # fmt: skip
        (root / folder).mkdir(parents=True, exist_ok=True)
    for path in (
        *("Documents/a.txt", "Pictures/p.jpg", "Photos/q.jpg", "Papers/scan-1.pdf", "thesis/t", "node_modules/x"),
        *("thesis.tex", "a.txt", "notes.txt", ".secrets"),
    ):
        (home / path).write_text(f"{path}\n" * 20)
    for path in ("srv/www/index.html", "srv/app/app.py", "etc/fstab", "etc/nginx/nginx.conf", "mnt/home-snap/x"):
        (root / path).write_text(f"{path}\n" * 20)
    for name, script in TOOLS.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (root / "bin" / name).chmod(0o755)
    (root / "key").write_bytes(bytes(range(32)))
    for path in ("etc/respaldo/passphrase", "work/old", "work/new", "work/new-passphrase", "home/ana/.second"):
        (root / path).write_text(f"{path}\n")
    (home / ".config/respaldo/policies.toml").write_text(POLICIES.replace("/home", f"{root}/home"))
    world = World(root, {}, {})

    def respaldo(*words: str) -> dict:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert main([*words, "--json"]) == 0, words
        return json.loads(said.getvalue())

    respaldo("init")
    respaldo("init", "-r", str(root / "mnt/second/backup"), "--like", str(root / "mnt/disk/backup"))
    sources = [str(root / name) for name in ("home", "srv", "etc")]
    labels = ["before-the-move", "v1.0", "v1.1", "before-upgrade"]
    ids = []
    for number, label in enumerate(labels):
        (home / "a.txt").write_text(f"version {number}\n" * 10)
        (home / f"came {number}").write_text("came\n")
        ids.append(respaldo("snapshot", *sources, "--label", label, "--host", "laptop")["snapshot"])
    respaldo("snapshot", str(root / "etc"), "--host", "server")
    respaldo("snapshot", str(home), "--host", "granja")
    world.names = {"3f358ae3": ids[1], "4f1c09ab": ids[2], "d2997cec": ids[3]}
    first, second = (respaldo("key", "add", "--new-key-file", str(root / name))["key"] for name in ("k1", "k2"))
    world.keys = {"3f35": first, "3f358ae3": first, "d2997cec9e28f22c": second}
    world.keep()
    return world
