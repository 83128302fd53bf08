"""What both kernels make of system calls that fail or fall short, and of files that change while they are read."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest

from respaldo.kernel import layout
from tests.kernel.conftest import NATIVE

CHANGED = layout.GATHER_CHANGED

# Runs in a process of its own, under LD_PRELOAD. Arguments: kernel, verb, directory, options.
PROGRAM = """
import json, os, struct, sys
which, verb, place, options = sys.argv[1:]
if which == "native":
    from respaldo import kernel
    assert kernel.NATIVE
else:
    from respaldo.kernel import reference as kernel
from respaldo.kernel import layout
fd = os.open(place, os.O_RDONLY)
faults = os.environ.pop("LATER")
if verb == "gather":
    names, meta, ident = kernel.scan(fd, 2**63 - 1, 0)
    out = bytearray(sum(row[4] for row in layout.META.iter_unpack(meta)))
    os.environ["FAULTS"] = faults
    rows = list(layout.GATHERED.iter_unpack(kernel.gather(fd, names, meta, ident, out)))
else:
    sizes = [5, 9000]
    meta = b"".join(layout.META.pack(0o104755, os.geteuid(), os.getegid(), 0, size, 1, 0) for size in sizes)
    pieces = [b"12345", b"x" * 4000, b"", bytes(5000)]
    os.environ["FAULTS"] = faults
    found = kernel.scatter(fd, b"a\\0b\\0", meta, struct.pack("<2I", 1, 3), pieces, b".new-", int(options))
    rows = list(layout.SCATTERED.iter_unpack(found))
    out = b""
del os.environ["FAULTS"]
print(json.dumps([rows, out.decode("latin-1"), sorted(os.listdir("/proc/self/fd"))]))
"""


@pytest.fixture(params=[NATIVE, "reference"])
def run(request, faults, folder):
    """Gives a function that runs a verb while system calls fail, and returns its rows and its buffer."""

    def run(verb, what, options=0):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, request.param, verb, folder.path, str(options)],
            env=os.environ | {"LD_PRELOAD": str(faults), "LATER": what},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows, out, descriptors = json.loads(done.stdout)
        assert descriptors == ["0", "1", "2", "3", "4"]  # 3: the directory, 4: this list's own
        return [tuple(row) for row in rows], out

    return run


OK = (0, layout.STAGE_OK, 0)


def both(error, stage, flags=0):
    return [(error, stage, flags)] * 2


def test_without_faults_the_program_works(run, folder):
    """The tests below fail for the faults and for nothing else."""
    assert run("scatter", "") == ([OK, OK], "")
    assert folder.names() == [b"a", b"b"]
    assert run("gather", "")[1] == "12345" + "x" * 4000 + "\0" * 5000


@pytest.mark.parametrize("options", [0, layout.SCATTER_SPARSE])
@pytest.mark.parametrize("how", ["short", "interrupt"])
def test_writes_that_fall_short_are_continued(run, folder, how, options):
    """Partial and interrupted writes lose and double nothing."""
    assert run("scatter", f"pwrite={how}", options) == ([OK, OK], "")
    assert (folder.path / "a").read_bytes() == b"12345"
    assert (folder.path / "b").read_bytes() == b"x" * 4000 + bytes(5000)


@pytest.mark.parametrize("how", ["short", "interrupt"])
def test_reads_that_fall_short_are_continued(run, folder, how):
    """Partial and interrupted reads are read on, up to the end."""
    folder.write("a", b"12345")
    folder.write("b", b"")
    folder.write("c", os.urandom(0) + b"xyz" * 100)
    rows, out = run("gather", f"readv={how}")
    assert rows == [(5, 0, 0, 0, 0), (0, 0, 0, 0, 0), (300, 0, 0, 0, 0)]
    assert out == "12345" + "xyz" * 100


def test_read_that_fails_is_an_error_of_its_row(run, folder):
    """An unreadable sector is the file's error, not the run's."""
    folder.write("a", b"12345")
    folder.write("b", b"12345")
    assert run("gather", f"readv={errno.EIO}")[0] == [(0, errno.EIO, 0, 0, 0)] * 2


@pytest.mark.parametrize(("how", "length"), [("grow", 5), ("shrink", 1), ("touch", 5)])
def test_change_during_the_read_is_noticed(run, folder, how, length):
    """A file that grows, shrinks or is touched after its first fstat is marked."""
    folder.write("a", b"12345")
    assert run("gather", f"readv={how}")[0] == [(length, 0, CHANGED, 0, 0)]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS])
def test_without_renameat2_files_are_linked(run, folder, number):
    """Where renameat2 knows no flags, link and unlink do the same, and still replace nothing."""
    folder.write("a", b"old")
    assert run("scatter", f"renameat2={number}")[0] == [(errno.EEXIST, layout.STAGE_RENAME, 0), OK]
    assert folder.names() == [b"a", b"b"]
    assert (folder.path / "a").read_bytes() == b"old"
    assert (folder.path / "b").stat().st_nlink == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_links_files_are_renamed_after_a_look(run, folder, number):
    """Where there are no links either, the name is looked at before the rename; a symlink counts as existing."""
    (folder.path / "a").symlink_to("nowhere")
    rows, _ = run("scatter", f"renameat2={errno.EINVAL},linkat={number}")
    assert rows == [(errno.EEXIST, layout.STAGE_RENAME, 0), OK]
    assert folder.names() == [b"a", b"b"]
    assert (folder.path / "a").is_symlink()
    assert (folder.path / "b").stat().st_size == 9000


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (f"pwrite={errno.EIO}", both(errno.EIO, layout.STAGE_WRITE)),
        (f"fchmod={errno.EPERM}", both(errno.EPERM, layout.STAGE_MODE)),
        (f"futimens={errno.EPERM}", both(errno.EPERM, layout.STAGE_TIMES)),
        (f"fdatasync={errno.EIO}", both(errno.EIO, layout.STAGE_WRITE)),
        (f"close={errno.EIO}", both(errno.EIO, layout.STAGE_CLOSE)),
        (f"renameat2={errno.EACCES}", both(errno.EACCES, layout.STAGE_RENAME)),
        (f"renameat2={errno.EINVAL},linkat={errno.EMLINK}", both(errno.EMLINK, layout.STAGE_RENAME)),
    ],
)
def test_failure_at_any_stage_leaves_nothing(run, folder, fault, expected):
    """Whatever fails, the stage is told and the temporary is gone."""
    assert run("scatter", fault, layout.SCATTER_SYNC)[0] == expected
    assert folder.names() == []
    if "renameat2" not in fault:
        assert run("scatter", fault, layout.SCATTER_SYNC | layout.SCATTER_PRIVATE)[0] == expected
        assert folder.names() == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize(
    ("call", "stage"),
    [
        ("pwrite", layout.STAGE_WRITE),
        ("fdatasync", layout.STAGE_WRITE),
        ("close", layout.STAGE_CLOSE),
        ("renameat2", layout.STAGE_RENAME),
    ],
)
def test_lack_of_space_at_any_stage_stops_the_batch(run, folder, number, call, stage):
    """Errors that the next file would meet too end the batch, and nothing is left of the file at hand."""
    rows, _ = run("scatter", f"{call}={number}", layout.SCATTER_SYNC)
    assert rows == [(number, stage, 0), (errno.ECANCELED, layout.STAGE_OPEN, 0)]
    assert folder.names() == []


def test_owner_that_cannot_be_set_is_remembered_and_the_file_made(run, folder):
    """A chown that fails is a flag of the row, and set-id bits are left out."""
    rows, _ = run("scatter", f"fchown={errno.EPERM}", layout.SCATTER_OWNER)
    assert rows == both(0, layout.STAGE_OK, layout.SCATTER_OWNER_FAILED)
    assert (folder.path / "a").stat().st_mode == 0o100755


def test_owner_that_failed_is_remembered_beside_a_later_failure(run):
    """The flag stays when a later stage fails."""
    rows, _ = run("scatter", f"fchown={errno.EPERM},fchmod={errno.EIO}", layout.SCATTER_OWNER)
    assert rows == both(errno.EIO, layout.STAGE_MODE, layout.SCATTER_OWNER_FAILED)
