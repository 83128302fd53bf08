"""What is done to a hostile repository: every command that reads it, and every one that writes it on what it says.

Each of those that change something has a copy of the repository of its own. Beside the targets lies what nobody may
touch.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from respaldo.api import Places, Secret, init
from tests.fidelity.compare import differences, picture
from tests.hostile.forge import KEY
from tests.hostile.runner import Ended, Runner

READING = {
    "snapshots": ("snapshots", "--long"),
    "snapshots --json": ("snapshots", "--json"),
    "snapshots --trash": ("snapshots", "--trash"),
    "ls": ("ls", "-lR", "latest"),
    "ls --json": ("ls", "-R", "latest", "--json"),
    "find": ("find", "*"),
    "history": ("history", "/source/kept"),
    "diff": ("diff", "good", "latest"),
    "stats": ("stats",),
    "verify": ("verify",),
    "verify --read-data": ("verify", "--read-data"),
    "repair --dry-run": ("repair", "--dry-run"),
    "dump": ("dump", "latest:/source/kept"),
    "dump a tree": ("dump", "latest:/source"),
    "export tar": ("export", "latest", "--format", "tar", "-o", "{room}/exported.tar"),
    "export zip": ("export", "latest", "--format", "zip", "-o", "{room}/exported.zip"),
    "checksums": ("checksums", "latest"),
    "log": ("log", "show"),
    "key list": ("key", "list"),
    "prune --dry-run": ("prune", "--dry-run"),
    "restore": ("restore", "latest:/source", "{room}/target"),
    "restore --preview": ("restore", "latest:/source", "{room}/filled", "--preview"),
    "restore --delete": ("restore", "latest:/source", "{room}/filled", "--delete", "--overwrite", "always"),
    "mount": ("mount", "--foreground", "{room}/mounted"),
    "restore --in-place": ("restore", "latest:/source", "{room}/written", "--in-place", "--verify", "-vv"),
}
"""By name: words, in which ``{room}`` is the room."""

WRITING = {
    "prune": ("prune",),
    "rewrite": ("rewrite", "latest", "--exclude", "other"),
    "repair": ("repair", "--yes", "--read-data"),
    "copy": ("copy", "--to", "{room}/other", "--other-key-file", "{room}/key"),
    "snapshot": ("snapshot", "{room}/source", "--as", "/source", "--host", "host", "-vv"),
}

MENDING = frozenset({"repair"})
"""After which nothing is damaged any more, where it ends with 0."""
COMMANDS = (*READING, *WRITING)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
RAW = frozenset({"dump", "dump a tree", "checksums"})
"""Whose standard output is what was backed up, or names as they are, for programs."""
KEPT = {"kept": b"kept", "folder/kept": b"kept, too"}
"""What the honest snapshot holds, and the filled target."""

ROOM = frozenset(
    {"outside", "key", "filled", "written", "source", "other", "target", "part", "out", "err", "mounted"}
    | {"exported.tar", "exported.tar.sha256", "exported.zip", "exported.zip.sha256"}
)
"""All that there may be in the room."""


def write_tree(top: Path) -> None:
    """Writes a small honest tree."""
    for name, content in KEPT.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(slots=True)
class Ground:
    """Is a hostile repository, a room for what comes of it, and what must stay as it is."""

    place: Path
    run: Runner
    results: dict[str, Ended] = field(default_factory=dict)
    _outside: dict = field(init=False)
    _stored: dict = field(init=False)

    @property
    def room(self) -> Path:
        return self.place / "room"

    @property
    def repository(self) -> Path:
        return self.place / "product" / "repository"

    def prepare(self, spoil=None) -> None:
        """Makes the room: targets, a second repository, and what must not be touched; spoils what is to be spoilt."""
        outside = self.room / "outside"
        (outside / "folder").mkdir(parents=True)
        for name in ("file", "folder/file", "kept"):
            (outside / name).write_bytes(b"precious")
        (self.room / "key").write_bytes(KEY)
        for target in ("filled", "written", "source"):
            write_tree(self.room / target)
        (self.room / "filled" / "more").write_bytes(b"not in any snapshot")
        (self.room / "filled" / "way out").symlink_to(outside)
        places = Places(cache_dir=self.place / "aside" / "cache", state_dir=self.place / "aside" / "state")
        init(str(self.room / "other"), Secret(key=KEY), places=places)
        if spoil is not None:
            spoil(self)
        self._outside = picture(outside)
        self._stored = objects(self.repository)

    def do(self, command: str, *, timeout_s: float) -> Ended:
        """Runs a command by its name; looks at what no command may do."""
        words = (READING | WRITING)[command]
        product = self.place / "product"
        if command in WRITING:
            product = self.place / "copy"
            shutil.rmtree(product, ignore_errors=True)
            product.mkdir()
            shutil.copytree(self.repository, product / "repository", symlinks=True, copy_function=copy_anything)
            shutil.copy(self.place / "product" / "key", product / "key")
        ended = self.words(command, words, product, timeout_s=timeout_s)
        if command in WRITING:
            self.words(command + ": snapshots", ("snapshots", "--json"), product)
            if command in MENDING and not ended.status:
                after = self.words(command + ": verify", ("verify", "--read-data"), product)
                assert after.status == 0, f"{command} says that all is well: {after.out.decode()} {after.err}"
            shutil.rmtree(self.place / "after", ignore_errors=True)
            product.rename(self.place / "after")
        return ended

    def words(self, command: str, words, product: Path | None = None, *, timeout_s: float = 20.0) -> Ended:
        """Runs any words on a repository; looks at what no command may do."""
        product = product or self.place / "product"
        where = ["--repo", product / "repository", "--key-file", product / "key", "--cache-dir", product / "cache"]
        texts = [os.fspath(word).replace("{room}", str(self.room)) for word in (*words, *where)]
        environment = {"XDG_STATE_HOME": str(product / "state"), "TZ": "UTC", "COLUMNS": "200"}
        ended = self.run(texts, self.room, environment, timeout_s)
        self.results[command] = ended
        self._look_at(command, ended)
        return ended

    def _look_at(self, command: str, ended: Ended) -> None:
        where = f"{command}: {ended.status}\n{ended.out[-2000:].decode('utf-8', 'replace')}\n{ended.err[-3000:]}"
        assert "Traceback" not in ended.err, where
        assert "should not have happened" not in ended.err, where
        assert "Timeout (" not in ended.err, f"hangs: {where}"
        assert ended.status in {0, 1, 3, 4, 10, 12, 130}, where
        assert bool(ended.status) or "error:" not in ended.err, f"an error, and status 0: {where}"
        printed = ended.err if command in RAW else ended.err + ended.out.decode("utf-8")
        assert CONTROL.search(printed) is None, f"control characters are printed: {where}"
        assert differences(self._outside, picture(self.room / "outside")) == [], where
        assert set(os.listdir(self.place)) <= {"room", "product", "aside", "copy", "after"}, where
        assert set(os.listdir(self.room)) <= ROOM, where

    def look_at_repository(self) -> None:
        """Looks whether reading changed nothing that was there, and put only what says what was read."""
        now = objects(self.repository)
        for name, content in self._stored.items():
            assert now[name] == content, f"{name} was changed by commands that only read"
        for name in now.keys() - self._stored.keys():
            assert name.startswith(("log/", "verified/", "sums/", "snapshots")), f"{name} was put by a reader"


def copy_anything(source: str, target: str) -> str:
    """Copies a file, or makes a FIFO as a FIFO is."""
    if Path(source).is_fifo():
        os.mkfifo(target)
        return target
    return shutil.copy2(source, target)


def objects(repository: Path) -> dict[str, bytes]:
    """Returns all regular files of a repository."""
    found = {}
    for path in repository.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[str(path.relative_to(repository))] = path.read_bytes()
    return found


def listing(top: Path) -> dict[str, object]:
    """Returns what is below a directory: content of files, targets of links, a word for the rest."""
    found: dict[str, object] = {}
    for name, seen in picture(top, root=False).items():
        path = Path(os.fsdecode(os.fsencode(top) + b"/" + name))
        kind = seen.mode & 0o170000
        found[os.fsdecode(name)] = {
            0o100000: lambda path=path: path.read_bytes(),
            0o120000: lambda seen=seen: ("link", seen.target),
            0o040000: lambda: "directory",
        }.get(kind, lambda: "special")()
    return found
