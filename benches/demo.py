"""Shows Respaldo at work on real files: backs up, edits, damages, verifies, restores, compares; leaves nothing behind.

Runs the real command line, and prints every command before it runs it. What is backed up is a copy of this project with
its installed environment, and a directory of awkward things (holes, hard links, odd names). Run it with: make demo
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
RESPALDO = Path(sys.executable).with_name("respaldo")
LEFT_OUT = {
    ".git",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".import_linter_cache",
    "build",
    "dist",
}
BOLD, DIM, RED, GREEN, PLAIN = (
    ("\033[1m", "\033[2m", "\033[31m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("",) * 5
)


class DemoFailed(Exception):
    """Says what was not as it should be."""


def main() -> int:
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="respaldo-demo-") as folder:
        try:
            figures = show(Path(folder))
        except DemoFailed as error:
            print(f"\n{RED}{BOLD}FAILED: {error}{PLAIN}")
            return 1
        finally:
            make_removable(Path(folder))
    print(f"\n{BOLD}Figures{PLAIN}")
    for name, value in figures:
        print(f"  {name:<34} {value}")
    print(f"\n{GREEN}{BOLD}Everything came back as it was.{PLAIN} ({time.monotonic() - started_s:.1f} s in all)")
    return 0


def show(folder: Path) -> list[tuple[str, str]]:
    """Runs the whole story in an empty directory; returns figures."""
    source = folder / "source"
    run = Commands(folder)
    say("Files to back up: a copy of this project and its environment, and some awkward things")
    copy(PROJECT, source / "project")
    environment = Path(sys.prefix)
    if environment != Path(sys.base_prefix) and PROJECT not in environment.parents:
        copy(environment, source / "environment")
    awkward(source / "awkward")
    before = walk(source)
    print(f"  {len(before):,} entries, {size(content_bytes(before))}")

    say("A new repository")
    (folder / "passphrase").write_text("correct horse battery staple\n")
    run("init")

    say("The first snapshot")
    first = run.json("snapshot", str(source))

    say("The same again: nothing changed, so nothing is read")
    again = run.json("snapshot", str(source))

    say("An edit: one line in one file, a new file, a file less, a directory renamed")
    edit(source)
    after = walk(source)
    second = run.json("snapshot", str(source), "--milestone", "edited", "--reason", "to show what an edit costs")
    compare_changes(before, after, second["changes"])
    run("snapshots")
    run("snapshots", "--last", "1", "--long")

    say("What is in it")
    run("ls", "-l", f"latest:{source}/awkward")
    stats = run.json("stats")

    say("Damage: one byte of the biggest pack is changed")
    with damaged(folder / "repository"):
        run("verify", "--keyless", expected=4)
        run("verify", "--read-data", expected=4, lines=8)
    print(f"  {DIM}(the byte is put back){PLAIN}")
    verified = run.json("verify", "--read-data")

    say("The disaster: restore the latest snapshot, and compare every file with the original")
    restored_s = run.timed("restore", f"latest:{source}", str(folder / "restored"))
    compare(after, walk(folder / "restored"))
    rsync(source, folder / "restored")

    say("And the first one, as it was before the edit")
    run("restore", f"{first['label']}:{source}", str(folder / "first"))
    compare(before, walk(folder / "first"))

    say("One file, from before the edit")
    run("restore", f"{first['label']}:{source}/project/README.md", str(folder / "README.md"), "--json")
    compare_one(before[b"project/README.md"], folder / "README.md")
    return report(first, again, second, stats, verified, restored_s, content_bytes(after))


def report(first, again, second, stats, verified, restored_s, restored_bytes) -> list[tuple[str, str]]:
    figures = first["figures"]
    repeated = again["figures"]
    changed = second["figures"]
    return [
        ("files, directories", f"{figures['files']:,}, {figures['directories']:,}"),
        ("size", size(figures["bytes"])),
        ("after deduplication", size(figures["new_bytes"])),
        ("after compression, as stored", size(figures["stored_bytes"])),
        ("first snapshot", f"{figures['duration_s']:.2f} s, {speed(figures['bytes'], figures['duration_s'])}"),
        ("again, nothing changed", f"{repeated['duration_s']:.2f} s, {size(repeated['read_bytes'])} read"),
        (
            "after the edit",
            (
                f"{changed['duration_s']:.2f} s, {size(changed['read_bytes'])} read, "
                f"{size(changed['stored_bytes'])} stored"
            ),
        ),
        ("repository, three snapshots", f"{size(stats['stored_bytes'])} for {size(stats['raw_bytes'])}"),
        ("verification of everything", speed(verified["read_bytes"], verified["duration_s"])),
        ("restore, command and all", f"{restored_s:.2f} s, {speed(restored_bytes, restored_s)}"),
    ]


class Commands:
    """Runs the command line with a repository, caches and state in a directory of their own."""

    def __init__(self, folder: Path) -> None:
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RESPALDO_")} | {
            "RESPALDO_REPOSITORY": str(folder / "repository"),
            "RESPALDO_PASSWORD_FILE": str(folder / "passphrase"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        print(f"{DIM}export RESPALDO_REPOSITORY={folder}/repository RESPALDO_PASSWORD_FILE={folder}/passphrase{PLAIN}")

    def run(self, *words: str, expected: int = 0) -> str:
        print(f"{BOLD}$ respaldo {shlex.join(words)}{PLAIN}", flush=True)
        result = subprocess.run(
            [RESPALDO, *words], env=self.environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if result.returncode != expected:
            raise DemoFailed(
                f"respaldo {words[0]} ended with status {result.returncode}, not {expected}\n{result.stdout}"
            )
        return result.stdout

    def __call__(self, *words: str, expected: int = 0, lines: int = 40) -> None:
        output = self.run(*words, expected=expected).splitlines()
        for line in output[:lines]:
            print(f"  {line}")
        if len(output) > lines:
            print(f"  {DIM}… {len(output) - lines} more lines{PLAIN}")
        if expected:
            print(f"  {DIM}exit status {expected}{PLAIN}")

    def json(self, *words: str) -> dict:
        document = json.loads(self.run(*words, "--json"))
        figures = document.get("figures", document)
        shown = (
            "files",
            "files_new",
            "files_changed",
            "files_unchanged",
            "read_bytes",
            "stored_bytes",
            "duration_s",
            "ok",
        )
        line = ", ".join(f"{name} {figures[name]:,}" for name in shown if name in figures)
        print(f"  {line}")
        return document

    def timed(self, *words: str) -> float:
        started_s = time.monotonic()
        self(*words)
        return time.monotonic() - started_s


def say(text: str) -> None:
    print(f"\n{BOLD}— {text}{PLAIN}", flush=True)


def size(length_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if length_bytes < 1024 or unit == "GiB":
            break
        length_bytes /= 1024
    return f"{length_bytes:.0f} {unit}" if unit == "B" else f"{length_bytes:.1f} {unit}"


def speed(length_bytes: float, duration_s: float) -> str:
    return f"{size(length_bytes / max(duration_s, 1e-9))}/s"


def copy(source: Path, target: Path) -> None:
    """Copies a tree as it is; what vanishes meanwhile (somebody else's test run) is left out."""

    def copy_file(file: str, to: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(file, to, follow_symlinks=False)

    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(
        source,
        target,
        symlinks=True,
        copy_function=copy_file,
        ignore=lambda folder, names: LEFT_OUT & set(names) if Path(folder) == source else set(),
    )


def awkward(folder: Path) -> None:
    """Makes what backups get wrong."""
    folder.mkdir()
    with (folder / "sparse").open("wb") as file:
        file.seek(64 << 20)
        file.write(b"the end")
    (folder / "one name").write_bytes(b"linked")
    os.link(folder / "one name", folder / "another name")
    (folder / "dangling").symlink_to("nowhere/at/all")
    (folder / "empty directory").mkdir()
    os.mkfifo(folder / "fifo", 0o640)
    os.mkdir(folder / "sticky")
    (folder / "sticky").chmod(0o1777)
    (folder / "program").write_bytes(b"#!/bin/sh\n")
    (folder / "program").chmod(0o4755)
    (folder / "read-only").write_bytes(b"x")
    (folder / "read-only").chmod(0o400)
    Path(os.fsdecode(os.fsencode(folder) + b"/not utf-8 \xff\xfe")).write_bytes(b"bytes")
    (folder / "\x1b[31mred\n").write_bytes(b"a name that writes to terminals")
    with contextlib.suppress(OSError):
        os.setxattr(folder / "one name", "user.comment", b"an extended attribute")
    os.utime(folder / "program", ns=(1_000_000_001, -123_456_789))
    os.utime(folder / "dangling", ns=(0, 987_654_321), follow_symlinks=False)


def edit(source: Path) -> None:
    readme = source / "project" / "README.md"
    readme.write_text(readme.read_text("utf-8") + "\nOne more line.\n", "utf-8")
    (source / "project" / "new.txt").write_text("new\n")
    (source / "project" / "LICENSE").unlink()
    (source / "project" / "tests").rename(source / "project" / "tests-renamed")


@contextlib.contextmanager
def damaged(repository: Path):
    pack = max((path for path in repository.glob("packs/*/*") if path.is_file()), key=lambda path: path.stat().st_size)
    mode = pack.stat().st_mode
    pack.chmod(0o600)
    at = pack.stat().st_size // 3

    def flip() -> None:
        with pack.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 0xFF]))

    flip()
    yield
    flip()
    pack.chmod(mode)


def walk(top: Path) -> dict[bytes, tuple]:
    """Returns what every entry below a directory is: type, mode, owner, times, content, link target, attributes."""
    found: dict[bytes, tuple] = {}
    links: dict[tuple[int, int], bytes] = {}
    root = os.fsencode(top)
    stack = [b""]
    while stack:
        folder = stack.pop()
        for name in sorted(os.listdir(os.path.join(root, folder))):
            path = os.path.join(folder, name)
            found[path] = describe(os.path.join(root, path), path, links)
            if stat.S_ISDIR(found[path][0]):
                stack.append(path)
    return found


def describe(path: bytes, name: bytes, links: dict[tuple[int, int], bytes]) -> tuple:
    seen = os.lstat(path)
    content: object = None
    if stat.S_ISREG(seen.st_mode):
        with open(path, "rb") as file:
            content = (seen.st_size, hashlib.file_digest(file, "blake2b").hexdigest())
    elif stat.S_ISLNK(seen.st_mode):
        content = os.readlink(path)
    first = links.setdefault((seen.st_dev, seen.st_ino), name) if seen.st_nlink > 1 and content else name
    attributes = tuple(
        (attribute, os.getxattr(path, attribute, follow_symlinks=False))
        for attribute in sorted(os.listxattr(path, follow_symlinks=False))
    )
    return (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_mtime_ns, content, first, attributes)


def content_bytes(found: dict[bytes, tuple]) -> int:
    return sum(entry[4][0] for entry in found.values() if isinstance(entry[4], tuple))


def compare(expected: dict[bytes, tuple], found: dict[bytes, tuple]) -> None:
    missing = expected.keys() - found.keys()
    surplus = found.keys() - expected.keys()
    other = [path for path in expected.keys() & found.keys() if expected[path] != found[path]]
    if missing or surplus or other:
        worst = next(iter(sorted([*missing, *surplus, *other])))
        raise DemoFailed(
            f"{len(missing)} missing, {len(surplus)} too many, {len(other)} different; "
            f"{worst!r}: {expected.get(worst)} became {found.get(worst)}"
        )
    print(f"  {GREEN}{len(found):,} entries are equal{PLAIN}: content, mode, owner, time, links, attributes")


def compare_changes(before: dict[bytes, tuple], after: dict[bytes, tuple], counted: dict[str, int]) -> None:
    """Holds what a snapshot says has changed against what has."""
    was, now = (
        {path: entry for path, entry in found.items() if not stat.S_ISDIR(entry[0])} for found in (before, after)
    )
    expected = {
        "added": len(now.keys() - was.keys()),
        "changed": sum(was[path] != now[path] for path in was.keys() & now.keys()),
        "removed": len(was.keys() - now.keys()),
    }
    if counted != expected:
        raise DemoFailed(f"{counted} are said to have changed, and {expected} have")
    print(f"  {GREEN}{', '.join(f'{count:,} {what}' for what, count in counted.items())}{PLAIN}, as it should be")


def compare_one(expected: tuple, path: Path) -> None:
    found = describe(os.fsencode(path), b"", {})
    if (found[0], found[3], found[4]) != (expected[0], expected[3], expected[4]):
        raise DemoFailed(f"{path.name} is not what it was")
    print(f"  {GREEN}equal{PLAIN}")


def rsync(source: Path, target: Path) -> None:
    """Asks rsync for a second opinion, where it is there."""
    program = shutil.which("rsync")
    if program is None:
        print(f"  {DIM}(no rsync here: no second opinion){PLAIN}")
        return
    words = [program, "-naHAXi", "--checksum", "--delete", f"{source}/", f"{target}/"]
    print(f"{BOLD}$ rsync {shlex.join(words[1:])}{PLAIN}")
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    differences = result.stdout.splitlines()
    if result.returncode or differences:
        raise DemoFailed(f"rsync finds {len(differences)} differences: {differences[:3]} {result.stderr}")
    print(f"  {GREEN}rsync finds no difference{PLAIN}")


def make_removable(folder: Path) -> None:
    for top, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            os.chmod(top, 0o700)


if __name__ == "__main__":
    sys.exit(main())
