"""The data that is backed up: the Linux source, big files that do not compress, a PostgreSQL cluster.

A set lies in memory and shows one of two versions at a path that stays the same, as a directory does that somebody
works in. `show` exchanges them as it would happen: an unpacked tree is another one altogether, a database and an edited
file keep what did not change.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from benches.postgres import make_cluster
from benches.tools import CACHE, Unavailable, fetch_deb

PACKAGE = "linux-source-6.1"
QUICK_PARTS = ("fs", "net", "kernel", "include")
MIB = 1 << 20


class DataSet(ABC):
    """Is a directory in two versions. ``live`` is the path at which one of them can be seen."""

    name: str
    fresh_limit: str
    """The limit of a first backup, a pipe of the shell that is run in the directory and writes to standard output."""

    def __init__(self, folder: Path, *, quick: bool) -> None:
        self.live = folder / self.name
        self.other = folder / f"{self.name}-other"
        self.quick = quick
        self._shown = 0

    @abstractmethod
    def make(self) -> None:
        """Makes both versions and shows the first; raises `Unavailable`."""

    @abstractmethod
    def exchange(self, version: int) -> None:
        """Puts a version in the place of the other."""

    def show(self, version: int) -> None:
        if version != self._shown:
            self.exchange(version)
            self._shown = version

    def remove(self) -> None:
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.rmtree(self.other, ignore_errors=True)

    def files(self) -> Iterator[tuple[Path, int]]:
        """Yields the path, relative, and the size of each regular file."""
        for top, folders, names in os.walk(self.live):
            folders.sort()
            for name in sorted(names):
                path = Path(top, name)
                if path.is_file() and not path.is_symlink():
                    yield path.relative_to(self.live), path.lstat().st_size

    def one_file(self) -> Path:
        """Returns the file that is restored alone: the one in the middle of those of 4 KiB and more."""
        found = [path for path, size in self.files() if size >= 4096]
        return found[len(found) // 2]


class Linux(DataSet):
    """Is the source of Linux 6.1, and an update of it of which every file was written anew."""

    name = "linux"
    fresh_limit = "tar c . | zstd -q -3 -T2"

    def __init__(self, folder: Path, *, quick: bool, trees: tuple[Path, ...] = ()) -> None:
        super().__init__(folder, quick=quick)
        self._trees = trees
        self._folder = folder

    def make(self) -> None:
        targets = (self.live, self.other)
        if self._trees:
            for tree, target in zip(self._trees, targets, strict=True):
                self._copy(tree, target)
            return
        for version, target in zip(linux_versions(), targets, strict=True):
            unpacked = self._folder / "deb"
            fetch_deb(PACKAGE, CACHE, unpacked, version)
            archive = next(unpacked.rglob("*.tar.xz"))
            parts = [f"{PACKAGE}/{part}" for part in QUICK_PARTS] if self.quick else []
            subprocess.run(["tar", "xf", archive, "-C", unpacked, *parts], check=True)
            (unpacked / PACKAGE).rename(target)
            shutil.rmtree(unpacked)

    def _copy(self, tree: Path, target: Path) -> None:
        parts = [part for part in QUICK_PARTS if (tree / part).is_dir()] if self.quick else []
        if not parts:
            subprocess.run(["cp", "-a", tree, target], check=True)
            return
        target.mkdir()
        subprocess.run(["cp", "-a", *(tree / part for part in parts), target], check=True)

    def exchange(self, version: int) -> None:
        spare = self.other.with_name("spare")
        self.live.rename(spare)
        self.other.rename(self.live)
        spare.rename(self.other)


class Big(DataSet):
    """Is four files of 512 MiB that do not compress; in one, some bytes were inserted in a hundred places."""

    name = "big"
    fresh_limit = "cat * | zstd -q -3 -T2"

    def make(self) -> None:
        self.live.mkdir()
        self.other.mkdir()
        # From one seed, so that every run has the same bytes.
        source = random.Random(6)
        for number in range(4):
            with (self.live / f"{number}.bin").open("wb") as file:
                for _ in range(64 if self.quick else 512):
                    file.write(source.randbytes(MIB))
        edited = self.live / "1.bin"
        step = edited.stat().st_size // 100
        with edited.open("rb") as file, (self.other / "1.bin").open("wb") as out:
            while piece := file.read(step):
                out.write(piece)
                out.write(source.randbytes(100))

    def exchange(self, version: int) -> None:
        live, other, spare = self.live / "1.bin", self.other / "1.bin", self.other / "spare"
        live.rename(spare)
        other.rename(live)
        spare.rename(other)


class Postgres(DataSet):
    """Is the directory of a PostgreSQL cluster that was stopped, before and after 600 transactions of pgbench."""

    name = "postgres"
    fresh_limit = "tar c . | zstd -q -3 -T2"

    def make(self) -> None:
        self._before = self.other.with_name("postgres-before")
        make_cluster(self.live, self._before, scale=3 if self.quick else 100)
        self.live.rename(self.other)
        subprocess.run(["cp", "-a", self._before, self.live], check=True)

    def exchange(self, version: int) -> None:
        # A database writes into its files; what it did not write to keeps inode and times.
        wanted = self.other if version else self._before
        words = ["rsync", "-a", "--checksum", "--inplace", "--delete", f"{wanted}/", f"{self.live}/"]
        subprocess.run(words, check=True)

    def remove(self) -> None:
        super().remove()
        shutil.rmtree(self.other.with_name("postgres-before"), ignore_errors=True)


def linux_versions() -> tuple[str, str]:
    """Returns the two newest versions of the package that have different sources: cached ones, else what apt knows."""
    listed = {path.name.split("_")[1] for path in CACHE.glob(f"{PACKAGE}_*.deb")}
    if len(_upstream(listed)) < 2:
        if shutil.which("apt-cache") is None:
            raise Unavailable("there is no apt to fetch the Linux source with; name two trees: --tree DIR --next DIR")
        done = subprocess.run(["apt-cache", "madison", PACKAGE], capture_output=True, text=True, check=False)
        listed |= {line.split("|")[1].strip() for line in done.stdout.splitlines() if line.count("|") == 2}
    newest = _upstream(listed)
    if len(newest) < 2:
        raise Unavailable(f"apt knows fewer than two versions of {PACKAGE}; name two trees: --tree DIR --next DIR")
    return newest[-2], newest[-1]


def _upstream(versions: set[str]) -> list[str]:
    """Returns the newest revision of each source, oldest source first."""

    def key(version: str) -> tuple[int, ...]:
        digits = "".join(character if character.isdecimal() else " " for character in version)
        return tuple(int(word) for word in digits.split())

    found = {key(version)[:3]: version for version in sorted(versions, key=key)}
    # 6.1.176-1 and 6.1.170-3 differ in their third number; the rest is Debian's revision.
    return [found[source] for source in sorted(found)]
