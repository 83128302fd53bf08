"""The tools that are compared, each behind one adapter: encryption on, zstd level 3 or what the tool calls its default.

Every tool keeps its repository and its caches in a directory of its own. What cannot be had says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from pathlib import Path

from benches.measure import Command

PASSPHRASE = "benchmark"  # noqa: S105 - it keeps no secret
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "respaldo-bench"


class Unavailable(Exception):
    """Says why a tool or a set of data cannot be had."""


class Tool(ABC):
    """Makes the commands of one backup tool, on a repository below ``folder``."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository = folder / "repository"
        self.environment: dict[str, str] = {}

    @abstractmethod
    def version(self) -> str:
        """Finds or installs the program, and returns its version; raises `Unavailable`."""

    @abstractmethod
    def init(self) -> Command:
        """Makes the repository."""

    @abstractmethod
    def backup(self, source: Path, number: int) -> Command:
        """Backs a directory up; ``number`` is different for each snapshot of a repository."""

    @abstractmethod
    def restore(self, source: Path, number: int, target: Path) -> Command:
        """Restores the whole directory into an empty one."""

    @abstractmethod
    def one(self, source: Path, number: int, inner: Path, target: Path) -> Command:
        """Restores one file of it."""

    @abstractmethod
    def verify(self) -> Command:
        """Reads and checks all that is stored."""

    def landed(self, source: Path, target: Path) -> Path:
        """Returns where in the target a restore has put the directory."""
        return target

    def command(self, *words: str | Path, cwd: Path | None = None) -> Command:
        return Command(words=words, environment=self.environment, cwd=cwd)


class Respaldo(Tool):
    """Is this project's command line, as installed beside the running Python."""

    name = "respaldo"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = Path(sys.executable).with_name("respaldo")
        self.environment = {
            "RESPALDO_REPOSITORY": str(self.repository),
            "RESPALDO_PASSWORD": PASSPHRASE,
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
        }

    def version(self) -> str:
        return _version(self._program, "--version")

    def init(self) -> Command:
        return self.command(self._program, "init", "-q")

    def backup(self, source: Path, number: int) -> Command:
        return self.command(self._program, "snapshot", "-q", source)

    def restore(self, source: Path, number: int, target: Path) -> Command:
        return self.command(self._program, "restore", "-q", f"latest:{source}", target)

    def one(self, source: Path, number: int, inner: Path, target: Path) -> Command:
        return self.command(self._program, "restore", "-q", f"latest:{source / inner}", target / inner.name)

    def verify(self) -> Command:
        return self.command(self._program, "verify", "-q", "--read-data")


class Borg(Tool):
    """Is Borg 1.4 in a virtual environment of its own, built once into the user's cache directory."""

    name = "borg"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._venv = CACHE / "borg-1.4"
        self._program = self._venv / "bin" / "borg"
        self.environment = {
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(folder / "base"),
            "BORG_REPO": str(self.repository),
        }

    def version(self) -> str:
        if not self._program.exists():
            print("borg: installing it once; without a wheel it is compiled, which takes minutes", flush=True)
            for words in (
                [sys.executable, "-m", "venv", self._venv],
                [self._venv / "bin" / "pip", "install", "--quiet", "borgbackup==1.4.*"],
            ):
                done = subprocess.run(words, capture_output=True, text=True, check=False)
                if done.returncode:
                    shutil.rmtree(self._venv, ignore_errors=True)
                    raise Unavailable(
                        "it cannot be installed (needs libacl1-dev libssl-dev liblz4-dev libzstd-dev libxxhash-dev "
                        f"pkg-config and a compiler): {done.stderr.strip()[-300:]}"
                    )
        return _version(self._program, "--version")

    def init(self) -> Command:
        # What Borg's manual advises: SHA-256 where the processor has instructions for it, BLAKE2 elsewhere.
        flags = _cpu_flags()
        mode = "repokey" if flags & {"sha_ni", "sha2"} else "repokey-blake2"
        return self.command(self._program, "init", "-e", mode)

    def backup(self, source: Path, number: int) -> Command:
        # By its path, not as ".": of that, Borg does not restore the time of the directory itself.
        return self.command(self._program, "create", "-C", "zstd,3", f"::{number}", source)

    def restore(self, source: Path, number: int, target: Path) -> Command:
        target.mkdir()
        return self.command(self._program, "extract", f"::{number}", cwd=target)

    def one(self, source: Path, number: int, inner: Path, target: Path) -> Command:
        path = (source / inner).relative_to("/")
        return self.command(self._program, "extract", f"::{number}", path, cwd=target)

    def verify(self) -> Command:
        return self.command(self._program, "check", "--verify-data")

    def landed(self, source: Path, target: Path) -> Path:
        return target / source.relative_to("/")


class Restic(Tool):
    """Is restic as Debian packages it: installed, or unpacked into the user's cache directory."""

    name = "restic"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._program = Path(shutil.which("restic") or CACHE / "restic" / "usr" / "bin" / "restic")
        self.environment = {
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_CACHE_DIR": str(folder / "cache"),
        }

    def version(self) -> str:
        if not self._program.exists():
            fetch_deb("restic", CACHE, CACHE / "restic")
        return _version(self._program, "version")

    def init(self) -> Command:
        return self.command(self._program, "init", "-q", "--repository-version", "2")

    def backup(self, source: Path, number: int) -> Command:
        return self.command(self._program, "backup", "-q", "--compression", "auto", source)

    def restore(self, source: Path, number: int, target: Path) -> Command:
        return self.command(self._program, "restore", "-q", "latest", "--target", target)

    def one(self, source: Path, number: int, inner: Path, target: Path) -> Command:
        words = ["latest", "--include", source / inner, "--target", target]
        return self.command(self._program, "restore", "-q", *words)

    def verify(self) -> Command:
        return self.command(self._program, "check", "-q", "--read-data")

    def find(self, pattern: str) -> Command:
        """Looks for a name in all snapshots."""
        return self.command(self._program, "find", pattern)

    def landed(self, source: Path, target: Path) -> Path:
        return target / source.relative_to("/")


TOOLS: tuple[type[Tool], ...] = (Respaldo, Borg, Restic)


def fetch_deb(package: str, cache: Path, target: Path, version: str = "") -> None:
    """Downloads a package of Debian's into a directory, once, and unpacks it into another; raises `Unavailable`."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable(f"{package} is not installed, and there is no apt-get to fetch it with")
    cache.mkdir(parents=True, exist_ok=True)
    # apt writes the colon of an epoch as %3a; the packages that are asked for here have none.
    pattern = f"{package}_{version or '*'}_*.deb"
    if not list(cache.glob(pattern)):
        wanted = f"{package}={version}" if version else package
        done = subprocess.run(["apt-get", "download", wanted], cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"apt-get cannot fetch {wanted}: {done.stderr.strip()[-300:]}")
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(["dpkg-deb", "-x", max(cache.glob(pattern)), target], check=True)


def _version(program: Path, option: str) -> str:
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Unavailable(f"{program} does not run: {error}") from None
    found = [word.rstrip(",") for word in done.stdout.split() if word[:1].isdecimal()]
    return found[0] if found else done.stdout.strip()


def _cpu_flags() -> set[str]:
    try:
        return set(Path("/proc/cpuinfo").read_text("ascii", "replace").split())
    except OSError:
        return set()
