"""`scan` in both kernels: what it says of a directory, against the reference and against the system's own calls."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from respaldo import kernel
from respaldo.kernel import layout, reference
from tests.kernel.scenes import as_ordinary_user, fill_with_every_type, tmpfs

NEVER = 2**63 - 1
ALWAYS = -(2**63)


def rows(found):
    """Returns what a scan found as a dict of name → (meta, ident), in order."""
    names, meta, ident = found
    assert names == b"" or names.endswith(b"\0")
    return dict(
        zip(
            names.split(b"\0")[:-1],
            zip(layout.META.iter_unpack(meta), layout.IDENT.iter_unpack(ident), strict=True),
            strict=True,
        )
    )


@pytest.fixture
def every_type(folder):
    fill_with_every_type(folder.path)
    return folder


@pytest.mark.parametrize("options", range(8))
@pytest.mark.parametrize("recent_ns", [NEVER, ALWAYS, 0, 1, -1_500_000_001])
def test_both_kernels_find_the_same(native, every_type, options, recent_ns):
    """The C kernel lists every type of entry as the reference does, under all options."""
    found = native.scan(every_type.fd, recent_ns, options)
    assert found == reference.scan(every_type.fd, recent_ns, options)
    assert list(rows(found)) == every_type.names()


@pytest.mark.parametrize("place", ["/", "/dev", "/etc", "/usr/bin", "/proc/self", "/proc/self/ns", "/sys", "/tmp"])
def test_both_kernels_find_the_same_in_the_system(native, place):
    """Devices, mount points and file systems without birth times are told alike."""
    if not Path(place).is_dir():
        pytest.skip(f"no {place}")
    fd = os.open(place, os.O_RDONLY)
    try:
        for _ in range(5):  # others may change it in between
            found = native.scan(fd, NEVER, 0)
            if found == reference.scan(fd, NEVER, 0):
                return
        pytest.fail(f"two scans of {place} differ")
    finally:
        os.close(fd)


def test_rows_say_what_lstat_says(verbs, every_type):
    """Every column holds what lstat tells of the entry."""
    for name, (meta, ident) in rows(verbs.scan(every_type.fd, NEVER, 0)).items():
        found = os.stat(name, dir_fd=every_type.fd, follow_symlinks=False)
        mode, uid, gid, attributes, size, mtime_ns, _ = meta
        ino, ctime_ns, nlink, flags = ident
        assert (mode, uid, gid, attributes) == (found.st_mode, found.st_uid, found.st_gid, 0)
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            assert size == found.st_size
        elif stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            assert (size >> 32, size & 0xFFFFFFFF) == (os.major(found.st_rdev), os.minor(found.st_rdev))
        else:
            assert size == 0
        assert mtime_ns == found.st_mtime_ns
        assert (ino, ctime_ns) == (found.st_ino, found.st_ctime_ns)
        assert nlink == (0 if stat.S_ISDIR(mode) else found.st_nlink)
        assert flags & ~layout.ENTRY_SPARSE == 0
        assert bool(flags & layout.ENTRY_SPARSE) == (stat.S_ISREG(mode) and found.st_blocks * 512 < found.st_size)


def test_holes_are_seen(verbs, folder):
    """A file with fewer blocks than bytes is marked, a full one is not."""
    with folder.write("sparse", b"").open("wb") as file:
        file.truncate(1 << 20)
    full = folder.write("full", b"x" * 10_000)
    os.sync() if full.stat().st_blocks * 512 < 10_000 else None  # ext4 allocates late
    found = rows(verbs.scan(folder.fd, NEVER, 0))
    assert found[b"sparse"][1][3] == layout.ENTRY_SPARSE
    assert found[b"full"][1][3] == 0


def test_names_are_in_bytewise_order(verbs, folder):
    """Names come in the order of their bytes as unsigned numbers, whatever their lengths."""
    names = [
        b"a",
        b"aa",
        b"a\x01",
        b"a\xff",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"12345678",
        b"123456789",
        b"1234567\xff",
        b"1234567",
    ]
    for name in names:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=folder.fd))
    assert verbs.scan(folder.fd, NEVER, 0)[0] == b"".join(name + b"\0" for name in sorted(names))


def test_empty_directory_has_no_rows(verbs, folder):
    """Nothing but "." and ".." is nothing."""
    assert verbs.scan(folder.fd, NEVER, 0) == (b"", b"", b"")


def test_scan_may_be_repeated(verbs, folder):
    """The descriptor stays open and is rewound, wherever it stood, and a change is seen."""
    folder.write("one", b"1")
    first = verbs.scan(folder.fd, NEVER, 0)
    assert verbs.scan(folder.fd, NEVER, 0) == first
    folder.write("two", b"2")
    assert list(rows(verbs.scan(folder.fd, NEVER, 0))) == [b"one", b"two"]


def test_change_of_one_file_changes_one_row(verbs, every_type):
    """What changes in a file shows in its row, and in no other."""
    before = rows(verbs.scan(every_type.fd, NEVER, 0))
    with (every_type.path / "regular").open("ab") as file:
        file.write(b"more")
    after = rows(verbs.scan(every_type.fd, NEVER, 0))
    assert {name for name in before if before[name] != after[name]} == {b"regular", b"hard link"}


def test_options_leave_columns_out(verbs, folder):
    """Inode numbers, ctimes and link counts are 0 where the caller does not trust or want them."""
    folder.write("file", b"x")
    ((_, (ino, ctime_ns, nlink, _)),) = rows(verbs.scan(folder.fd, NEVER, 0)).values()
    assert ino
    assert ctime_ns
    assert nlink == 1

    def ident(options):
        return rows(verbs.scan(folder.fd, NEVER, options))[b"file"][1]

    assert ident(layout.SCAN_IGNORE_INO) == (0, ctime_ns, 1, 0)
    assert ident(layout.SCAN_IGNORE_CTIME) == (ino, 0, 1, 0)
    assert ident(layout.SCAN_IGNORE_INO | layout.SCAN_IGNORE_CTIME) == (0, 0, 1, 0)
    assert ident(layout.SCAN_TRUST_TIMES) == (0, 0, 0, 0)


def test_recent_entries_are_marked(verbs, folder):
    """An entry whose mtime or ctime is not before the given moment is marked, except where times are trusted."""
    old = folder.write("old mtime", b"x")
    os.utime(old, ns=(10**18, 10**18))
    ctime_ns = old.stat().st_ctime_ns

    def recent(recent_ns, options=0):
        return rows(verbs.scan(folder.fd, recent_ns, options))[b"old mtime"][1][3] == layout.ENTRY_RECENT

    assert recent(ctime_ns)
    assert not recent(ctime_ns + 1)
    assert recent(10**18, layout.SCAN_IGNORE_CTIME)
    assert not recent(10**18 + 1, layout.SCAN_IGNORE_CTIME)
    assert not recent(0, layout.SCAN_TRUST_TIMES)
    os.utime(old, ns=(2 * 10**18, 2 * 10**18))
    assert recent(2 * 10**18, layout.SCAN_IGNORE_CTIME)


@pytest.mark.parametrize("time_ns", [-1, -(10**9), -1_999_999_999, 0, 1, 2**31 * 10**9 + 5])
def test_times_before_the_epoch_and_after_2038_are_exact(verbs, folder, time_ns):
    """Modification times are exact to what the file system holds, on both sides of the epoch."""
    file = folder.write("file", b"")
    os.utime(file, ns=(time_ns, time_ns))
    assert rows(verbs.scan(folder.fd, NEVER, 0))[b"file"][0][5] == file.stat().st_mtime_ns


def test_mount_points_are_marked(verbs):
    """What another file system is mounted on is marked in its directory."""
    fd = os.open("/", os.O_RDONLY)
    try:
        found = rows(verbs.scan(fd, NEVER, 0))
    finally:
        os.close(fd)
    assert Path("/proc").is_mount()
    assert found[b"proc"][1][3] & layout.ENTRY_MOUNT
    for name, (meta, ident) in found.items():
        if stat.S_ISDIR(meta[0]) and not Path(os.fsdecode(b"/" + name)).is_mount():
            assert not ident[3] & layout.ENTRY_MOUNT


@pytest.mark.root
@pytest.mark.parametrize("make", [Path.mkdir, Path.touch])
def test_bind_mount_of_the_same_device_is_marked(verbs, folder, make):
    """A directory or a file of the same device, mounted elsewhere, is a mount point all the same."""
    make(folder.path / "from")
    make(folder.path / "to")
    made = subprocess.run(
        ["mount", "--bind", folder.path / "from", folder.path / "to"], check=False, capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"cannot bind: {made.stderr.strip()}")
    try:
        found = rows(verbs.scan(folder.fd, NEVER, 0))
    finally:
        subprocess.run(["umount", folder.path / "to"], check=True)
    assert found[b"to"][1][3] == layout.ENTRY_MOUNT
    assert found[b"from"][1][3] == 0


@pytest.mark.root
@pytest.mark.parametrize(
    ("letter", "flag"), [("i", layout.ENTRY_IMMUTABLE), ("a", layout.ENTRY_APPEND), ("d", layout.ENTRY_NODUMP)]
)
def test_inode_flags_that_statx_tells_are_marked(verbs, tmp_path, letter, flag):
    """Immutable, append-only and no-dump files are marked where the file system knows of them."""
    with tmpfs(tmp_path / "mounted", "size=1m"):
        file = tmp_path / "mounted" / "file"
        file.touch()
        made = subprocess.run(["chattr", f"+{letter}", file], check=False, capture_output=True, text=True)
        if made.returncode != 0:
            pytest.skip(f"cannot set inode flags: {made.stderr.strip()}")
        fd = os.open(tmp_path / "mounted", os.O_RDONLY)
        try:
            assert rows(verbs.scan(fd, NEVER, 0))[b"file"][1][3] == flag
        finally:
            os.close(fd)
            subprocess.run(["chattr", f"-{letter}", file], check=True)


def test_entries_that_cannot_be_looked_at_have_rows(verbs, folder):
    """Where a directory may be listed and not searched, every entry has a row with its type and the error."""
    folder.write("file", b"x")
    (folder.path / "directory").mkdir()
    inodes = {os.fsencode(path.name): path.stat().st_ino for path in folder.path.iterdir()}
    folder.path.chmod(0o444)
    try:
        found, bare = as_ordinary_user(
            lambda: (verbs.scan(folder.fd, 0, 0), verbs.scan(folder.fd, 0, layout.SCAN_IGNORE_INO))
        )
    finally:
        folder.path.chmod(0o755)
    assert rows(found) == {
        name: ((kind, 0, 0, 0, 0, 0, 0), (inodes[name], 0, errno.EACCES, layout.ENTRY_FAILED))
        for name, kind in ((b"directory", stat.S_IFDIR), (b"file", stat.S_IFREG))
    }
    assert {ident[0] for _, ident in rows(bare).values()} == {0}


def test_directory_that_vanished_is_empty(verbs, folder):
    """A directory that was removed while it was open has no entries, or says that it is gone."""
    folder.path.rmdir()
    try:
        assert verbs.scan(folder.fd, NEVER, 0) == (b"", b"", b"")
    except OSError as error:
        assert error.errno == errno.ENOENT  # noqa: PT017 - either is right, by file system


def test_what_is_no_directory_is_an_error(verbs, folder):
    """A descriptor of something else, of nothing, or of a mere path is an OSError with its errno."""
    file = os.open(folder.write("file", b""), os.O_RDONLY)
    path = os.open(folder.path, os.O_PATH)
    receive, send = os.pipe()
    try:
        for fd, number in ((file, errno.ENOTDIR), (path, errno.EBADF), (receive, errno.ESPIPE)):
            with pytest.raises(OSError) as caught:
                verbs.scan(fd, 0, 0)
            assert caught.value.errno == number
    finally:
        for fd in (file, path, receive, send):
            os.close(fd)
    with pytest.raises(OSError) as caught:
        verbs.scan(file, 0, 0)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1, 0, 0), ValueError),
        ((-100, 0, 0), ValueError),
        ((1 << 31, 0, 0), ValueError),
        ((1 << 70, 0, 0), ValueError),
        ((0, 1 << 63, 0), ValueError),
        ((0, -(1 << 63) - 1, 0), ValueError),
        ((0, 0, 8), ValueError),
        ((0, 0, -1), ValueError),
        ((0, 0, 1 << 70), ValueError),
        (("/", 0, 0), TypeError),
        ((0, 0.0, 0), TypeError),
        ((0, 0, None), TypeError),
        ((0, 0), TypeError),
        ((0, 0, 0, 0), TypeError),
    ],
)
def test_wrong_arguments_are_refused(verbs, arguments, error):
    """Both kernels refuse the same arguments with the same type of error."""
    with pytest.raises(error):
        verbs.scan(*arguments)


def test_directory_that_changes_meanwhile_is_listed_in_order_and_once(verbs, folder):
    """While entries come and go, each name has one row at most, in order, and those that stay are all there."""
    for index in range(300):
        folder.write(f"stays {index:03}", b"")
    stop = threading.Event()

    def disturb():
        at = 0
        while not stop.is_set():
            at += 1
            path = folder.path / f"comes and goes {at % 50}"
            path.touch()
            path.rename(folder.path / f"moved {at % 40}")
            if at % 3 == 0:
                (folder.path / f"moved {at % 40}").unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            names, meta, ident = verbs.scan(folder.fd, NEVER, 0)
            listed = names.split(b"\0")[:-1]
            assert listed == sorted(set(listed))
            assert len(meta) == 40 * len(listed)
            assert len(ident) == 24 * len(listed)
            assert sum(name.startswith(b"stays") for name in listed) == 300
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_huge_directory_takes_linear_time(native, tmp_path):
    """A directory of 100,000 entries is listed whole, in order, and in seconds."""
    place = tmp_path / "huge"
    place.mkdir()
    fd = os.open(place, os.O_RDONLY)
    try:
        for index in range(100_000):
            os.mknod(f"{index * 7919 % 100_000:05}", dir_fd=fd)
        start = time.monotonic()
        names, meta, ident = native.scan(fd, NEVER, 0)
        taken_s = time.monotonic() - start
    finally:
        os.close(fd)
    assert names == b"".join(b"%05d\0" % index for index in range(100_000))
    assert (len(meta), len(ident)) == (4_000_000, 2_400_000)
    assert taken_s < 10


def test_every_combination_of_options_is_known_and_no_other():
    """All combinations of the documented options are taken, and every further bit is refused."""
    fd = os.open("/", os.O_RDONLY)
    try:
        for options in range(16):
            for which in (kernel, reference):
                if options < 8:
                    which.scan(fd, 0, options)
                else:
                    with pytest.raises(ValueError, match="unknown options"):
                        which.scan(fd, 0, options)
    finally:
        os.close(fd)
