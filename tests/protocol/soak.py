"""The soak: commands of the real program on one repository, for minutes, while others are killed with -9.

Three writers, two of them clients that share a cache, a restorer, a forgetter and two collectors, one of which has the
cache of nobody else, each of them one command after another. Now and then all markers go, as if a day had passed: then
collectors heed nobody. In the end everything is verified and restored, and what was left over must go.

Called as ``python -m tests.protocol.soak SECONDS [SEED [FOLDER]]``; prints what it did as JSON. A seed is no schedule:
it says what is done and killed, not when.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = [sys.executable, "-m", "respaldo"]
EXPECTED = ("again and again", "went away", "no snapshot", "has just been forgotten")
"""What a command may fail with because others were at work: it is said to be worth another try."""
KEPT_PER_SOURCE = 12
KILLED = 0.35
"""So many of the commands are killed, at any moment of theirs, or a little late."""
DAY_S = 86_400


class SoakError(AssertionError):
    """Says what was lost, or went wrong."""


@dataclass(slots=True)
class Source:
    """Is a directory that is backed up, and changes between two snapshots of it."""

    path: Path
    rng: random.Random

    def change(self) -> str:
        """Writes, appends, removes a few files; returns the digest of what is there then."""
        for _ in range(self.rng.randrange(1, 6)):
            folder = self.path / f"folder{self.rng.randrange(6)}" / f"deep{self.rng.randrange(2)}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"file{self.rng.randrange(8)}"
            chance = self.rng.random()
            if chance < 0.15:
                path.unlink(missing_ok=True)
            elif chance < 0.4:
                # Of few seeds, so that sources share content, and what was forgotten comes back.
                path.write_bytes(random.Random(self.rng.randrange(40)).randbytes(1 << self.rng.randrange(8, 19)))
            elif chance < 0.6 and path.exists():
                with path.open("ab") as file:
                    file.write(self.rng.randbytes(self.rng.randrange(1, 50_000)))
            else:
                path.write_bytes(self.rng.randbytes(self.rng.randrange(0, 200_000)))
        return digest(self.path)


def digest(folder: Path) -> str:
    """Returns what two equal trees, and no others, have in common."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder))
        kind, content = (b"d", b"") if path.is_dir() else (b"f", path.read_bytes())
        found.update(b"%s%d:%s%d:" % (kind, len(name), name, len(content)) + content)
    return found.hexdigest()


@dataclass(slots=True)
class Task:
    """Is a command that runs, and what it is about."""

    role: str
    process: subprocess.Popen[bytes]
    out: Path
    about: dict[str, str] = field(default_factory=dict)
    started_s: float = 0.0
    kill_s: float | None = None
    killed: bool = False


class Soak:
    """Is one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.repository = folder / "repository"
        self.key = folder / "key"
        self.key.write_text(hashlib.sha256(b"soak").hexdigest() + "\n")
        self.counts: Counter[str] = Counter()
        self.planned: dict[str, tuple[Source, str]] = {}
        """Label of a snapshot → what it must hold."""
        self.done: dict[str, str] = {}
        """Id of a snapshot that was reported → its label."""
        self.leaving: set[str] = set()
        """Ids of snapshots that somebody was told to forget."""
        self.sources = [Source(folder / f"source{number}", random.Random(seed + number)) for number in range(3)]
        self.tasks: dict[str, Task] = {}
        self.peak_bytes = 0
        self.typical_s: dict[str, float] = {}
        """How long a command of a kind takes, about: so that kills hit all its moments, however busy the machine is."""
        self.number = 0
        for source in self.sources:
            source.path.mkdir()
            for _ in range(10):
                source.change()

    # --- commands --------------------------------------------------------------------------------------------------

    def command(self, *words: str, cache: str) -> list[str]:
        """Returns a command as it is run."""
        common = ["--json", "-r", str(self.repository), "--cache-dir", str(self.folder / cache)]
        return [*PROGRAM, *words, *common, "--key-file", str(self.key)]

    def run(self, *words: str, cache: str, status: int = 0) -> dict[str, Any]:
        """Runs a command to its end; returns what it printed."""
        done = subprocess.run(
            self.command(*words, cache=cache), capture_output=True, check=False, env=self.environment()
        )
        if done.returncode != status:
            msg = (
                f"{words}: exit status {done.returncode}: {done.stderr.decode()[-2000:]} {done.stdout.decode()[-2000:]}"
            )
            raise SoakError(msg)
        return json.loads(done.stdout)

    def environment(self) -> dict[str, str]:
        """Returns the environment of commands: state lies in the folder, too."""
        return {**os.environ, "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONDONTWRITEBYTECODE": ""}

    def start(self, role: str, *words: str, cache: str, **about: str) -> None:
        """Starts a command."""
        self.number += 1
        out = self.folder / f"{role}.out"
        with out.open("wb") as file, out.with_suffix(".errors").open("wb") as errors:
            words = tuple(self.command(*words, cache=cache))
            process = subprocess.Popen(words, stdout=file, stderr=errors, env=self.environment())
        task = self.tasks[role] = Task(role=role, process=process, out=out, about=about, started_s=time.monotonic())
        if self.rng.random() < KILLED:
            task.kill_s = task.started_s + 1.2 * self.rng.random() * self.typical_s.get(kind_of(role), 1.0)

    def begin(self, role: str) -> None:
        """Starts what a role does next."""
        kind, _, number = role.partition(" ")
        if kind == "writer":
            source = self.sources[int(number)]
            label = f"run-{self.number}"
            self.planned[label] = (source, source.change())
            cache = ("client one", "client one", "client two")[int(number)]
            self.start(role, "snapshot", str(source.path), "--label", label, cache=cache, label=label)
        elif kind == "collector":
            if self.rng.random() < 0.3:
                self.drop_markers()
            share = self.rng.choice(("50%", "80%", "95%"))
            self.start(role, "prune", "--repack-below", share, cache=("client one", "client three")[int(number)])
        elif kind == "forgetter":
            staying = self.staying()
            chosen = self.rng.sample(sorted(staying), min(len(staying), self.rng.randrange(1, 4)))
            if len(staying) > KEPT_PER_SOURCE * len(self.sources) * self.rng.random():
                self.leaving |= set(chosen)
                self.start(role, "forget", *chosen, cache="client two")
        else:
            staying = self.staying()
            if staying:
                chosen_id = self.rng.choice(sorted(staying))
                source, _ = self.planned[self.done[chosen_id]]
                target = self.folder / "restored"
                shutil.rmtree(target, ignore_errors=True)
                cache = self.rng.choice(("client one", "client four", f"fresh {self.number}"))
                words = ("restore", f"{chosen_id}:{source.path}", str(target))
                self.start(role, *words, cache=cache, snapshot=chosen_id, used=cache)

    def staying(self) -> set[str]:
        """Returns the snapshots that were reported and that nobody was told to forget."""
        return self.done.keys() - self.leaving

    def drop_markers(self) -> None:
        """Takes all markers away, as if a day had gone by."""
        for path in (self.repository / "sessions").glob("[!.]*"):  # what is being written is no marker yet
            path.unlink(missing_ok=True)
        self.counts["markers dropped"] += 1

    # --- what comes of them ------------------------------------------------------------------------------------------

    def finish(self, task: Task) -> None:
        """Takes in what a command came to."""
        kind = kind_of(task.role)
        if not task.killed:
            lasted_s = time.monotonic() - task.started_s
            self.typical_s[kind] = 0.8 * self.typical_s.get(kind, lasted_s) + 0.2 * lasted_s
        status = task.process.returncode
        said = task.out.with_suffix(".errors").read_text(errors="replace")
        if "Traceback" in said:
            raise SoakError(f"{task.role}: {said}")
        if task.killed:
            self.counts[f"{kind} killed"] += 1
        elif status == 0:
            self.counts[kind] += 1
            self.succeeded(kind, task, json.loads(task.out.read_bytes()))
        elif kind == "restorer" and task.about["snapshot"] in self.leaving:
            self.counts["restorer too late"] += 1
        elif status == 1 and any(word in said for word in EXPECTED):
            self.counts[f"{kind} gave up"] += 1
        else:
            raise SoakError(f"{task.role} ended with {status}: {said[-3000:]}")
        if kind == "restorer" and task.about["used"].startswith("fresh"):
            shutil.rmtree(self.folder / task.about["used"], ignore_errors=True)

    def succeeded(self, kind: str, task: Task, found: dict[str, Any]) -> None:
        """Takes in what a command that succeeded said."""
        if kind == "writer":
            snapshot = found["snapshot"]
            self.done[snapshot] = task.about["label"]
        elif kind == "collector":
            for word in ("deleted_packs", "new_packs", "copied_chunks", "expired"):
                self.counts[word] += found[word]
            if found["damages"]:
                raise SoakError(f"prune met damage: {found['damages']}")
        elif kind == "restorer":
            self.compare(task.about["snapshot"], self.folder / "restored")

    def compare(self, snapshot: str, target: Path) -> None:
        """Compares what was restored with what was backed up."""
        _, expected = self.planned[self.done[snapshot]]
        if digest(target) != expected:
            raise SoakError(f"snapshot {snapshot} was restored, and holds something else than what was backed up")

    # --- the run -----------------------------------------------------------------------------------------------------

    def soak(self, seconds: float) -> None:
        """Lets all work, and kills at random, for so long."""
        subprocess.run(
            self.command("init", cache="client one"), check=True, stdout=subprocess.DEVNULL, env=self.environment()
        )
        roles = ["writer 0", "writer 1", "writer 2", "collector 0", "collector 1", "forgetter", "restorer"]
        end = time.monotonic() + seconds
        measured = 0
        while time.monotonic() < end:
            time.sleep(0.02)
            for role in roles:
                task = self.tasks.get(role)
                if task is not None and task.process.poll() is not None:
                    del self.tasks[role]
                    self.finish(task)
                    task = None
                if task is None and self.rng.random() < (0.05 if role in {"forgetter", "restorer"} else 0.3):
                    self.begin(role)
            for task in self.tasks.values():
                if task.kill_s is not None and time.monotonic() > task.kill_s and not task.killed:
                    task.killed = task.process.poll() is None
                    task.process.kill()
            if self.number > measured + 20:
                measured = self.number
                self.peak_bytes = max(self.peak_bytes, size(self.repository))
        for task in self.tasks.values():
            task.killed = True
            task.process.kill()
            task.process.wait()
            self.finish(task)
        self.tasks.clear()

    def check(self) -> dict[str, Any]:
        """Verifies and restores everything; collects, and looks whether anything is left that should not be."""
        before = size(self.repository)
        for cache in ("client one", "client two", "last client"):
            found = self.run("verify", "--read-data", cache=cache)
            if found.get("damages"):
                raise SoakError(f"damage: {found['damages']}")
        self.restore_all()
        self.drop_markers()
        for path in self.repository.rglob(".*"):
            os.utime(path, (time.time() - 2 * DAY_S,) * 2)  # what the killed left is a day old now
        self.run("prune", cache="client two")
        self.run("prune", cache="client three")
        plan = self.run("prune", "--dry-run", cache="last client")
        self.restore_all()
        names = Counter(path.parent.name for path in self.repository.glob("*/*") if path.is_file())
        snapshots = plan["snapshots"]
        left = {
            "condemned": names["condemned"],
            "sessions": names["sessions"],
            "undecided": plan["undecided"],
            "manifests too many": names["pending"] - snapshots,
            "dead packs": plan["dead"]["packs"],
            "temporary": sum(1 for _ in self.repository.rglob(".*")),
        }
        if any(left.values()):
            raise SoakError(f"left over: {left}")
        live, packs = plan["live_bytes"], plan["pack_bytes"]
        if packs > 2.5 * live + (4 << 20):
            raise SoakError(f"packs take {packs} bytes for {live} that are live")
        return {
            "commands": self.number,
            "snapshots": snapshots,
            "reported": len(self.done),
            "forgotten": len(self.leaving),
            "bytes": {"at its peak": self.peak_bytes, "in the end": before, "collected": size(self.repository)},
            "live_bytes": live,
            "pack_bytes": packs,
            "objects": dict(names),
            "aborts": names["outcome"] - snapshots,
            "cache_bytes": {path.name: size(path) for path in sorted(self.folder.glob("client *"))},
            **dict(sorted(self.counts.items())),
        }

    def restore_all(self) -> None:
        """Restores every snapshot and compares it; looks whether all that must be there are."""
        shown = self.run("snapshots", cache="last client")["snapshots"]
        there = {item["id"]: item["label"] for item in shown}
        missing = self.staying() - there.keys()
        if missing:
            raise SoakError(f"snapshots were reported and are not there: {sorted(missing)}")
        for snapshot, label in there.items():
            if self.done.setdefault(snapshot, label) != label:
                raise SoakError(f"snapshot {snapshot} is another one than what was reported")
            source, _ = self.planned[label]
            target = self.folder / "restored"
            shutil.rmtree(target, ignore_errors=True)
            self.run("restore", f"{snapshot}:{source.path}", str(target), cache="last client")
            self.compare(snapshot, target)


def kind_of(role: str) -> str:
    """Returns what a role does, whichever of several it is."""
    return role.partition(" ")[0]


def size(folder: Path) -> int:
    """Returns what the files below a directory take, while others change them."""
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(above, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def main() -> None:
    """Runs; the folder stays where something is wrong."""
    seconds = float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="respaldo-soak-", dir=where))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"soaking for {seconds:.0f} s, seed {seed}, in {folder}", file=sys.stderr)
    soak = Soak(folder, seed)
    try:
        soak.soak(seconds)
        found = soak.check()
    finally:
        for task in soak.tasks.values():
            task.process.kill()
    print(json.dumps({"seed": seed, "seconds": seconds, **found}, indent=1))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
