"""Measures the whole command on a real tree, beside its limits and the peers that are installed, in one run.

Everything lies in memory (/dev/shm where there is one), so that the disk does not drown the difference. Wall and CPU
seconds, peak memory of the process tree's largest member, size of the repository; ratios against ``tar c | zstd -3
-T2`` and ``cp -a``.

python benches/run.py [--tree DIR] [--json FILE] [--runs N]

Without ``--tree`` it takes the source of Linux 6.1 from Debian's package linux-source-6.1 (downloaded once into the
user's cache directory); where apt cannot fetch it, the tree of the Python installation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PACKAGE = "linux-source-6.1"
RESPALDO = [sys.executable, "-m", "respaldo"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Is one run of one command: seconds, and peak resident MiB of the largest process."""

    name: str
    wall_s: float
    cpu_s: float
    peak_mib: float


def measure(name: str, command: Sequence[str] | str, **environment: str) -> Measured:
    """Runs a command and measures it; raises CalledProcessError where it fails."""
    # As an installed program runs: with its modules compiled once, not at every start.
    pid_env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | environment
    start = time.perf_counter()
    process = subprocess.Popen(
        command, shell=isinstance(command, str), env=pid_env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    errors = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code:
        sys.stderr.write(errors.decode(errors="replace"))
        raise subprocess.CalledProcessError(code, command)
    return Measured(name=name, wall_s=wall, cpu_s=usage.ru_utime + usage.ru_stime, peak_mib=usage.ru_maxrss / 1024)


def size_of(path: Path) -> int:
    """Returns the bytes of all files below a directory."""
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


def linux_source(scratch: Path) -> Path | None:
    """Unpacks the Linux source; None where it is not to be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "respaldo-bench"
    cache.mkdir(parents=True, exist_ok=True)
    packages = sorted(cache.glob(f"{PACKAGE}_*.deb"))
    if not packages:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            return None
        fetched = subprocess.run(["apt-get", "download", PACKAGE], cwd=cache, check=False, capture_output=True)
        packages = sorted(cache.glob(f"{PACKAGE}_*.deb"))
        if fetched.returncode or not packages:
            return None
    subprocess.run(["dpkg-deb", "-x", packages[-1], scratch / "deb"], check=True)
    archive = next((scratch / "deb").rglob("*.tar.xz"))
    subprocess.run(["tar", "xf", archive, "-C", scratch], check=True)
    shutil.rmtree(scratch / "deb")
    return scratch / PACKAGE


def compare(tree: Path, scratch: Path, runs: int) -> list[Measured]:
    """Measures everything on one tree; of several runs the median counts."""
    repository, target, copy = scratch / "repository", scratch / "target", scratch / "copy"
    respaldo = {
        "RESPALDO_REPOSITORY": str(repository),
        "RESPALDO_PASSWORD": "benchmark",
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "XDG_STATE_HOME": str(scratch / "state"),
    }

    def clean(*paths: Path) -> None:
        for path in paths:
            shutil.rmtree(path, ignore_errors=True)

    def median(name: str, command: Sequence[str] | str, before: Callable[[], None] | None = None) -> Measured:
        found = []
        for _ in range(runs):
            if before is not None:
                before()
            found.append(measure(name, command, **respaldo))
        return sorted(found, key=lambda item: item.wall_s)[len(found) // 2]

    def anew() -> None:
        clean(repository, scratch / "cache", scratch / "state")
        measure("init", [*RESPALDO, "init"], **respaldo)

    measured = [
        median("cp -a", ["cp", "-a", str(tree), str(copy)], lambda: clean(copy)),
        median("rsync -a, nothing to do", ["rsync", "-a", f"{tree}/", f"{copy}/"]),
        median("tar | zstd -3 -T2", f"tar c -C '{tree}' . | zstd -q -3 -T2 > '{scratch}/tar.zst'"),
        median("respaldo snapshot, fresh", [*RESPALDO, "snapshot", "-q", str(tree)], anew),
        median("respaldo snapshot, again", [*RESPALDO, "snapshot", "-q", str(tree)]),
        median("respaldo verify --read-data", [*RESPALDO, "verify", "-q", "--read-data"]),
        median(
            "respaldo restore",
            [*RESPALDO, "restore", "-q", f"latest:{tree}", str(target)],
            lambda: clean(target),
        ),
    ]
    different = subprocess.run(
        ["rsync", "-naHAXi", "--checksum", "--delete", f"{tree}/", f"{target}/"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    if different:
        sys.exit(f"the restored tree differs:\n{different[:2000]}")
    return measured


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="respaldo-bench-", dir=memory if memory.is_dir() else None) as name:
        scratch = Path(name)
        tree = options.tree or linux_source(scratch) or Path(sysconfig.get_path("stdlib"))
        tree = tree.resolve()
        files = [entry.lstat().st_size for entry in tree.rglob("*") if entry.is_file() and not entry.is_symlink()]
        print(f"{tree.name}: {len(files):,} files, {sum(files) / 1e6:,.1f} MB; {options.runs} runs each, medians\n")
        measured = compare(tree, scratch, options.runs)
        compressed = (scratch / "tar.zst").stat().st_size
        repository = size_of(scratch / "repository")
    by_name = {item.name: item.wall_s for item in measured}
    print(f"{'':32} {'wall s':>8} {'cpu s':>8} {'MiB':>6} {'MB/s':>8} {'x tar|zstd':>11} {'x cp -a':>8}")
    for item in measured:
        print(
            f"{item.name:32} {item.wall_s:8.2f} {item.cpu_s:8.2f} {item.peak_mib:6.0f} "
            f"{sum(files) / 1e6 / item.wall_s:8.0f} {item.wall_s / by_name['tar | zstd -3 -T2']:11.2f} "
            f"{item.wall_s / by_name['cp -a']:8.2f}"
        )
    print(
        f"\nrepository {repository / 1e6:.1f} MB = {repository / compressed:.3f} x tar | zstd -3; "
        f"resident peak of this harness {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"
    )
    if options.json:
        figures = {
            "files": len(files),
            "length_bytes": sum(files),
            "repository_bytes": repository,
            "tar_zstd_bytes": compressed,
            "measured": [asdict(item) for item in measured],
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
