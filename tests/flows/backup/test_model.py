"""A tree that changes at random is in every snapshot as it is: held against a walk of its own after each step."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from respaldo.core.errors import ChunkMissing, Interrupted
from respaldo.core.seams import Cancel
from respaldo.flows.backup import entries, files, opening, reader, walker
from tests.flows.backup.world import HOUR_NS, World, assert_changes, assert_equal, assert_figures, walk_model

NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff", b"long" * 40])
CONTENTS = st.one_of(st.sampled_from([b"", b"x", b"y", b"x" * 5000]), st.integers(1, 300_000).map(lambda n: b"z" * n))
# What is picked depends on what is there, and that on more than the rules (the order of a listing, times): a seed is
# drawn, not every pick, so that the same draws are always possible.
PICK = st.integers(0, 1 << 32).map(random.Random)
OPTIONS = st.sampled_from([{}, {}, {}, {"exclude": ("nothing-here",)}, {"trust_times": False, "one_file_system": True}])


class CancelAfter(Cancel):
    """Asks for a stop at the n-th look."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def check(self) -> None:
        self.looks -= 1
        if self.looks <= 0:
            raise Interrupted("SIGINT")


class ChangingTree(RuleBasedStateMachine):
    """Changes, runs, cuts runs short, loses caches; compares."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="respaldo-test-"))
        self.world = World(self.path)
        self.base = bytes(self.world.source)
        self.lossy: set[str] = set()
        """Snapshots that were there when a pack went."""
        self.frames_max = walker._OPEN_FRAMES_MAX
        walker._OPEN_FRAMES_MAX = 2

    def teardown(self) -> None:
        walker._OPEN_FRAMES_MAX = self.frames_max
        self.world.repo.close()
        shutil.rmtree(self.path)

    def paths(self, kind: str = "any") -> list[bytes]:
        found = []
        for above, directories, names in os.walk(self.base):
            if kind != "file":
                found += [os.path.join(above, name) for name in directories]
            if kind != "directory":
                found += [os.path.join(above, name) for name in names]
        return sorted(found) + ([self.base] if kind == "directory" else [])

    @initialize()
    def start(self) -> None:
        for place in (b"a", b"a/b", b"a/b/c", b"b"):
            os.mkdir(self.base + b"/" + place)
            Path(os.fsdecode(self.base + b"/" + place + b"/f")).write_bytes(place)

    @rule(random=PICK, name=NAMES, content=CONTENTS)
    def write(self, random, name, content) -> None:
        with contextlib.suppress(OSError), open(random.choice(self.paths("directory")) + b"/" + name, "wb") as file:
            file.write(content)

    @rule(random=PICK, name=NAMES)
    def make_directory(self, random, name) -> None:
        with contextlib.suppress(OSError):
            os.mkdir(random.choice(self.paths("directory")) + b"/" + name)

    @rule(random=PICK, name=NAMES, make=st.sampled_from(["symlink", "fifo", "link"]))
    def make_other(self, random, name, make) -> None:
        path = random.choice(self.paths("directory")) + b"/" + name
        with contextlib.suppress(OSError):
            if make == "symlink":
                os.symlink(b"to " + name, path)
            elif make == "fifo":
                os.mkfifo(path)
            elif self.paths("file"):
                os.link(random.choice(self.paths("file")), path, follow_symlinks=False)

    @rule(random=PICK)
    def remove(self, random) -> None:
        if not self.paths():
            return
        path = random.choice(self.paths())
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    @rule(random=PICK, name=NAMES)
    def move(self, random, name) -> None:
        if not self.paths():
            return
        with contextlib.suppress(OSError):
            os.rename(random.choice(self.paths()), random.choice(self.paths("directory")) + b"/" + name)

    @rule(random=PICK, mode=st.sampled_from([0o600, 0o755, 0o4711, 0o000]), value=st.binary(max_size=3))
    def change_attributes(self, random, mode, value) -> None:
        if not self.paths():
            return
        path = random.choice(self.paths())
        with contextlib.suppress(OSError):
            if mode % 3:
                os.setxattr(path, "user.v", value, follow_symlinks=False)
            elif not os.path.islink(path):
                os.chmod(path, mode if os.geteuid() == 0 else mode | 0o700)

    @rule(random=PICK)
    def change_keeping_times(self, random) -> None:
        files = [path for path in self.paths("file") if os.path.isfile(path) and not os.path.islink(path)]
        if files:
            path = random.choice(files)
            status = os.stat(path)
            with open(path, "r+b") as file:
                file.write(random.randbytes(min(4, status.st_size)))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    @rule(looks=st.integers(1, 40))
    def cut_short(self, looks) -> None:
        before = self.world.snapshots
        with contextlib.suppress(Interrupted):
            self.world.backup(cancel=CancelAfter(looks))
            return
        assert self.world.snapshots == before

    @rule(shift=st.sampled_from([0, HOUR_NS]))
    def change_clock(self, shift) -> None:
        self.world.clock.shift_ns = shift

    @rule(forget=st.booleans())
    def open_again(self, forget) -> None:
        self.world.reopen(forget=forget)

    @rule()
    def forget_snapshots(self) -> None:
        for folder in ("pending", "outcome"):
            for name, _ in list(self.world.backend.list(folder)):
                self.world.backend.delete(name)

    @rule(random=PICK)
    def lose_pack(self, random) -> None:
        packs = sorted(self.world.backend.list("packs"))
        if packs:
            self.world.backend.delete(random.choice(packs)[0])
            self.lossy.update(name.rpartition("/")[2] for name in self.world.snapshots)

    @rule(random=PICK, at=st.integers(0, 30), changes=st.integers(1, 4))
    def change_while_it_runs(self, random, at, changes) -> None:
        """Anything may happen between two steps of a run; it is not held against the tree, but the next one is."""
        left = [at]

        def now() -> None:
            left[0] -= 1
            if left[0] == -1:
                for _ in range(changes):
                    self.change(random)

        def wrapped(real):
            def call(*given):
                now()
                found = real(*given)
                now()
                return found

            return call

        shift, self.world.clock.shift_ns = self.world.clock.shift_ns, 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(walker, "scan", wrapped(walker.scan))
            patch.setattr(files, "gather", wrapped(files.gather))
            patch.setattr(reader, "open_source", wrapped(reader.open_source))
            patch.setattr(opening, "open_source", wrapped(opening.open_source))
            patch.setattr(entries, "_readlink", wrapped(entries._readlink))
            result = self.world.backup()
        self.world.clock.shift_ns = shift
        found = self.world.model(result)
        figures = result.figures
        assert figures.files == sum(stat.S_ISREG(seen.mode) for seen in found.values())
        assert figures.files_new + figures.files_changed + figures.files_unchanged == figures.files
        self.compare_changes(result)

    def change(self, random) -> None:
        name = random.choice([b"a", b"b", b"f"])
        what = random.randrange(7)
        if what == 0:
            self.write(random, name, random.randbytes(random.choice([0, 3, 3000, 2 << 20])))
        elif what == 1:
            self.make_directory(random, name)
        elif what == 2:
            self.make_other(random, name, random.choice(["symlink", "fifo", "link"]))
        elif what == 3 and self.paths():
            self.move(random, name)
        elif what == 4 and self.paths():
            self.change_attributes(random, random.choice([0o600, 0o755]), b"1")
        elif what == 5 and self.paths():
            self.remove(random)
        else:
            self.change_keeping_times(random)

    @rule(options=OPTIONS)
    def back_up(self, options) -> None:
        self.compare(options)

    def compare(self, options: dict[str, object]) -> None:
        result = self.world.backup(**options)
        assert result.complete, result.manifest.failed
        model = self.world.model(result)
        assert_equal(model, walk_model(self.base))
        assert_figures(result, model)
        self.compare_changes(result)

    def compare_changes(self, result) -> None:
        """Of a parent that has lost something, nothing exact can be said, and nothing is."""
        lost = result.manifest.parent.hex() in self.lossy  # which a clock that was set back leaves the newest for long
        if not lost or result.manifest.changes is not None:
            with contextlib.suppress(ChunkMissing) if lost else contextlib.nullcontext():
                assert_changes(self.world.repo, result)

    @invariant()
    def snapshot_is_the_tree(self) -> None:
        self.compare({})


TestChangingTree = ChangingTree.TestCase
TestChangingTree.settings = settings(
    max_examples=max(8, settings.default.max_examples // 5),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
