"""The soak: commands of the real program on one repository, side by side, for minutes.

Roles (`writers`, `readers`) say what is run; here it is started, stopped for a time, killed with -9, and judged: what
failed must have failed because others were at work, and say what to do about it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.protocol.soak import readers, writers
from tests.protocol.soak.ledger import HOMES, Command, Role, Scene, SoakError

PROGRAM = [sys.executable, "-m", "respaldo"]
EXPECTED = {
    "StorageFailed": ("again and again", "went away"),
    "NoSuchSnapshot": ("no such snapshot", "no snapshot"),
    "Refused": ("has just been forgotten", "is pinned", "not in the trash any more", "is gone", "that was cut off"),
}
"""What a command may fail with because others were at work, status 1, with a hint or a reason that says what to do."""
ROTATED = {"KeyRotated", "CredentialRenewed"}
"""The same while keys are rotated, status 12."""
AT_ONCE = 7
"""So many commands run side by side."""
KILLED, STOPPED = 0.2, 0.35
"""So many of the commands are killed, and stopped for a time, at any moment of theirs, or a little late."""
LONG_S = 12.0
HANGS_S = 300.0
"""After so long, a command that was not stopped hangs."""


@dataclass(slots=True)
class Task:
    """Is a command that runs, and what it is about."""

    role: Role
    command: Command
    process: subprocess.Popen[bytes]
    out: Path
    rotations: int
    started_s: float
    kill_s: float | None = None
    stops: list[tuple[float, float]] = field(default_factory=list)
    """When it is to be stopped, and for how long."""
    resume_s: float | None = None
    killed: bool = False


class Soak:
    """Is one run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.scene = Scene(folder=folder, rng=self.rng)
        self.repository = folder / "repository"
        self.key = folder / "key"
        self.key.write_text(hashlib.sha256(b"soak").hexdigest() + "\n")
        self.shares_state, self.shares_cache = seed % 4 in {0, 1}, seed % 4 in {1, 2}
        self.counts: Counter[str] = Counter()
        self.tasks: dict[str, Task] = {}
        self.peak_bytes = 0
        self.typical_s: dict[str, float] = {}
        """How long a command of a kind takes, about: so that kills hit all its moments, however busy the machine is."""
        self.rotations = 0
        """How many rotations and re-encryptions were begun or have ended."""
        self.begun: set[str] = set()
        """The names of roles that have begun something."""
        self.mount: subprocess.Popen[bytes] | None = None

    # --- commands --------------------------------------------------------------------------------------------------

    def command(self, *words: str, home: str, repository: Path | None = None) -> list[str]:
        """Returns a command as it is run."""
        cache = self.folder / ("cache shared" if self.shares_cache and home in HOMES else f"cache {home}")
        common = ["--json", "-r", str(repository or self.repository), "--cache-dir", str(cache)]
        key = [] if "--client-file" in words or "--keyless" in words else ["--key-file", str(self.key)]
        return [*PROGRAM, *words, *common, *key]

    def run(self, *words: str, home: str, status: int = 0, repository: Path | None = None) -> dict[str, Any]:
        """Runs a command to its end; returns what it printed."""
        command = self.command(*words, home=home, repository=repository)
        done = subprocess.run(command, capture_output=True, check=False, env=self.environment(home))
        if done.returncode != status:
            said = f"{done.stderr.decode()[-2000:]} {done.stdout.decode()[-2000:]}"
            raise SoakError(f"{words}: exit status {done.returncode}: {said}")
        return json.loads(done.stdout)

    def environment(self, home: str) -> dict[str, str]:
        """Returns the environment of commands: state lies in the folder, too."""
        state = self.folder / ("state shared" if self.shares_state and home in HOMES else f"state {home}")
        return {**os.environ, "XDG_STATE_HOME": str(state), "PYTHONDONTWRITEBYTECODE": ""}

    def start(self, role: Role, command: Command) -> None:
        """Starts a command."""
        out = self.folder / f"{role.name}.out"
        words = [sys.executable, *command.program, *command.words] if command.program else []
        words = words or self.command(*command.words, home=command.home)
        with out.open("wb") as file, out.with_suffix(".errors").open("wb") as errors:
            process = subprocess.Popen(words, stdout=file, stderr=errors, env=self.environment(command.home))
        now, rng = time.monotonic(), self.rng
        if isinstance(role, writers.ROTATING):
            self.rotations += 1
        task = Task(role, command, process, out, self.rotations, now)
        typical_s = self.typical_s.get(kind_of(role), 1.0)
        if rng.random() < KILLED:
            task.kill_s = now + 1.2 * rng.random() * typical_s
        while rng.random() < STOPPED:
            task.stops.append(
                (now + 1.1 * rng.random() * typical_s, rng.choice((0.05, 0.5, 3.0, rng.random() * LONG_S)))
            )
        task.stops.sort(reverse=True)
        self.tasks[role.name] = task
        self.begun.add(role.name)

    def drop_markers(self) -> None:
        """Takes all markers away, as if a day had gone by."""
        for sessions in (self.repository / "sessions", *self.repository.glob("clients/*/sessions")):
            for path in sessions.glob("[!.]*"):  # what is being written is no marker yet
                path.unlink(missing_ok=True)
        self.counts["markers dropped"] += 1

    # --- what comes of them ------------------------------------------------------------------------------------------

    def finish(self, task: Task) -> None:
        """Takes in what a command came to."""
        role, about, kind = task.role, task.command.about, kind_of(task.role)
        lasted_s = time.monotonic() - task.started_s
        if not task.killed:
            self.typical_s[kind] = 0.8 * self.typical_s.get(kind, lasted_s) + 0.2 * lasted_s
        rotated = self.rotations > task.rotations or any(
            isinstance(other.role, writers.ROTATING) for other in self.tasks.values()
        )
        if isinstance(role, writers.ROTATING):
            self.rotations += 1
        status = task.process.returncode
        said = task.out.with_suffix(".errors").read_text(errors="replace")
        told = f"{role.name}: {' '.join(task.command.words)} in {task.command.home} ended with {status}: {said[-6000:]}"
        if "Traceback" in said and not task.command.program:
            raise SoakError(told)
        role.ended(about)
        if task.killed:
            self.counts[f"{kind} killed"] += 1
        elif status == 0:
            self.counts[kind] += 1
            role.succeeded(about, json.loads(task.out.read_bytes()))
        elif task.command.program:
            self.counts[f"{kind} gave up"] += 1
            if about["label"] in role.ledger.staying() and not rotated:
                raise SoakError(told)
        elif not self.is_expected(task, status, said, rotated=rotated):
            raise SoakError(told)
        if task.command.home.startswith("fresh"):
            for what in ("cache", "state"):
                shutil.rmtree(self.folder / f"{what} {task.command.home}", ignore_errors=True)

    def is_expected(self, task: Task, status: int, said: str, *, rotated: bool) -> bool:
        """Whether a command may have failed so because others were at work."""
        kind = kind_of(task.role)
        try:
            error = json.loads(said[said.index("{") :])["error"]
        except (ValueError, KeyError):
            self.counts[f"{kind} ended with {status}"] += 1
            words = task.command.words
            # Status 3 says: not now, run it again.
            return status == 3 and words[:2] == ["key", "reencrypt"]
        self.counts[f"{kind}: {error['kind']}"] += 1
        if status == 12 and error["kind"] == "CredentialRenewed":  # one that was killed has left nobody the new one
            return bool(error["hint"]) and "renewer" in self.begun
        if status == 12:
            return rotated and error["kind"] in ROTATED and bool(error["hint"])
        label = task.command.about.get("label", "")
        named = task.role.ledger.leaving | task.role.ledger.trashed
        if error["kind"] == "NoSuchSnapshot" and any(word in named for word in (label, *task.command.words)):
            return status == 1
        return status == 1 and any(word in error["message"] for word in EXPECTED.get(error["kind"], ()))

    # --- the run -----------------------------------------------------------------------------------------------------

    def soak(self, seconds: float) -> None:
        """Lets all work, and stops and kills at random, for so long."""
        self.run("init", home="one")
        self.run("init", home="one", repository=self.folder / "second")
        self.run("key", "client", "add", "bob", "--out", str(self.folder / "bob.credential"), home="one")
        self.begin_mount()
        roles = make_roles(self.scene)
        end = time.monotonic() + seconds
        measured = 0
        while time.monotonic() < end:
            time.sleep(0.02)
            for task in list(self.tasks.values()):
                self.drive(task)
                if task.process.poll() is not None:
                    del self.tasks[task.role.name]
                    self.finish(task)
            idle = [role for role in roles if role.name not in self.tasks]
            if len(self.tasks) < AT_ONCE and self.rng.random() < 0.2:
                role = self.rng.choices(idle, [role.weight for role in idle])[0]
                self.scene.number += 1
                if self.rng.random() < 0.03:
                    self.drop_markers()
                command = role.begin()
                if command is not None:
                    self.start(role, command)
            if self.scene.number > measured + 20:
                measured = self.scene.number
                self.peak_bytes = max(self.peak_bytes, size(self.repository))
        for task in self.tasks.values():
            task.killed = True
            task.process.kill()
            task.process.wait()
            self.finish(task)
        self.tasks.clear()
        self.end_mount()

    def drive(self, task: Task) -> None:
        """Stops, resumes or kills a command whose time has come."""
        now = time.monotonic()
        if task.resume_s is not None:
            if now >= task.resume_s:
                task.process.send_signal(signal.SIGCONT)
                task.resume_s = None
                self.counts["stopped"] += 1
        elif task.stops and now >= task.stops[-1][0]:
            _, length_s = task.stops.pop()
            task.process.send_signal(signal.SIGSTOP)
            task.resume_s = now + length_s
        if task.kill_s is not None and now > task.kill_s and not task.killed:
            task.killed = task.process.poll() is None
            task.process.kill()
        if now > task.started_s + HANGS_S and task.process.poll() is None:
            raise SoakError(f"{task.role.name}: {' '.join(task.command.words)} hangs (process {task.process.pid})")

    def begin_mount(self) -> None:
        """Mounts the repository, where that can be done."""
        target = self.folder / "mounted"
        target.mkdir()
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.counts["no mount here"] += 1
            return
        with (self.folder / "mount.errors").open("wb") as errors:
            self.mount = subprocess.Popen(
                self.command("mount", "-f", str(target), home="three"),
                env=self.environment("three"),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        while not target.is_mount():
            if self.mount.poll() is not None:
                raise SoakError(f"no mount: {(self.folder / 'mount.errors').read_text()}")
            time.sleep(0.05)

    def end_mount(self) -> None:
        """Unmounts; the mount must have stood until then."""
        if self.mount is None:
            return
        mount, self.mount = self.mount, None
        if mount.poll() is None:
            mount.terminate()
        else:
            raise SoakError(f"the mount did not stand: {(self.folder / 'mount.errors').read_text()}")
        mount.wait()
        if "Traceback" in (said := (self.folder / "mount.errors").read_text()):
            raise SoakError(f"the mount: {said}")


def make_roles(scene: Scene) -> list[Role]:
    """Returns all that are at work."""
    one = [
        (writers.Collector, "collector 0"),
        (writers.Collector, "collector 1"),
        (writers.AreaCollector, "area collector"),
        (writers.Forgetter, "forgetter"),
        (writers.AreaForgetter, "area forgetter"),
        (writers.Undoer, "undoer"),
        (readers.Restorer, "restorer"),
        (readers.AreaRestorer, "area restorer"),
        (readers.Verifier, "verifier"),
        (readers.Lister, "lister 0"),
        (readers.Lister, "lister 1"),
        (readers.AreaLister, "area lister"),
        (readers.Historian, "historian"),
        (writers.Rewriter, "rewriter"),
        (writers.Pinner, "pinner"),
        (writers.Rotator, "rotator"),
        (writers.Keyer, "keyer"),
        (writers.Copier, "copier"),
        (writers.Mender, "mender"),
        (writers.Renewer, "renewer"),
        (readers.MountReader, "mount reader"),
    ]
    roles: list[Role] = [writers.Writer(f"writer {number}", scene, scene.sources[number]) for number in range(3)]
    roles += [writers.SameWriter(f"same writer {number}", scene, scene.sources[5]) for number in range(2)]
    roles += [writers.ClientWriter(f"client writer {number}", scene, scene.sources[3 + number]) for number in range(2)]
    return roles + [kind(name, scene) for kind, name in one]


def kind_of(role: Role) -> str:
    """Returns what a role does, whichever of several it is."""
    return role.name.rstrip(" 0123456789")


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
