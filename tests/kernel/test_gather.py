"""`gather` in both kernels: what it reads, and what it notices."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo import kernel
from respaldo.kernel import layout, reference
from tests.kernel.scenes import as_ordinary_user, fill_with_every_type

NEVER = 2**63 - 1
CHANGED, XATTRS, NOT_REGULAR = layout.GATHER_CHANGED, layout.GATHER_XATTRS, layout.GATHER_NOT_REGULAR


def gather(verbs, fd, scanned, *, spare=0):
    """Reads all that was scanned; returns {name: (row, content)}."""
    names, meta, ident = scanned
    sizes = [row[4] for row in layout.META.iter_unpack(meta)]
    out = bytearray(sum(sizes) + spare)
    rows = layout.GATHERED.iter_unpack(verbs.gather(fd, names, meta, ident, out))
    found, at = {}, 0
    for name, row, size in zip(names.split(b"\0")[:-1], rows, sizes, strict=True):
        assert row[4] == 0
        assert row[0] <= size
        found[name] = (row[:4], bytes(out[at : at + row[0]]))
        at += size
    assert out[at:] == bytes(spare)
    return found


def test_files_are_read_one_after_another(verbs, folder):
    """Each file lies at the sum of the sizes before it, whatever its size, and nothing is written behind the last."""
    contents = {b"%02d" % index: os.urandom(size) for index, size in enumerate((0, 1, 4095, 4096, 0, 100_000, 7, 0))}
    for name, content in contents.items():
        folder.write(name.decode(), content)
    found = gather(verbs, folder.fd, kernel.scan(folder.fd, NEVER, 0), spare=10)
    assert found == {name: ((len(content), 0, 0, 0), content) for name, content in contents.items()}


def test_nothing_is_read_where_nothing_is_asked_for(verbs, folder):
    """No names make no rows, and need no room."""
    assert verbs.gather(folder.fd, b"", b"", b"", bytearray()) == b""


def test_both_kernels_answer_the_same_to_every_type(native, folder):
    """Rows of every type of entry are answered alike, by root and by an ordinary user, and none of them blocks."""
    fill_with_every_type(folder.path)
    (folder.path / "block").unlink(missing_ok=True)  # a number that nobody answers for may take long to say so
    os.setxattr(folder.path / "regular", "user.note", b"x")
    folder.path.chmod(0o755)
    scanned = native.scan(folder.fd, NEVER, 0)
    # A device claims a size that is none of content.
    meta = b"".join(
        layout.META.pack(*row[:4], min(row[4], 1 << 20), *row[5:]) for row in layout.META.iter_unpack(scanned[1])
    )
    scanned = (scanned[0], meta, scanned[2])

    def both():
        return [gather(which, folder.fd, scanned) for which in (kernel, reference)]

    for first, second in (both(), as_ordinary_user(both)):
        assert first == second
        assert first[b"regular"] == ((7, 0, XATTRS, 0), b"content")
        assert first[b"hard link"] == first[b"regular"]
        assert first[b"fifo"][0][1:3] == (0, CHANGED | NOT_REGULAR)
        assert first[b"directory"][0][1:3] == (0, CHANGED | NOT_REGULAR)
        assert first[b"socket"][0][:2] == (0, errno.ENXIO)
        assert first[b"link"][0][:2] == (0, errno.ELOOP)
        assert first[b"sparse"] == ((1 << 20, 0, 0, 0), bytes(1 << 20))
        assert first[b"n" * 255] == ((0, 0, 0, 0), b"")
    assert second[b"secret"][0][:2] == (0, errno.EACCES)


def test_fifo_with_a_writer_is_not_read(verbs, folder):
    """A FIFO that took a file's place is told by its type; what a writer put into it stays there."""
    folder.write("file", b"12345")
    scanned = kernel.scan(folder.fd, NEVER, 0)
    (folder.path / "file").unlink()
    os.mkfifo(folder.path / "file")
    fifo = os.open(folder.path / "file", os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fifo, b"in the pipe")
        assert gather(verbs, folder.fd, scanned) == {b"file": ((0, 0, CHANGED | NOT_REGULAR, 0), b"")}
        assert os.read(fifo, 100) == b"in the pipe"
    finally:
        os.close(fifo)


def test_symlink_in_place_of_a_file_is_not_followed(verbs, folder):
    """A symlink that took a file's place is an error, and what it points to is not read."""
    folder.write("target", b"12345")
    folder.write("file", b"12345")
    scanned = kernel.scan(folder.fd, NEVER, 0)
    (folder.path / "file").unlink()
    (folder.path / "file").symlink_to("target")
    assert gather(verbs, folder.fd, scanned)[b"file"] == ((0, errno.ELOOP, 0, 0), b"")


def test_file_that_vanished_is_an_error_of_its_own(verbs, folder):
    """A file that is gone has its errno, and the files around it are read."""
    for name in "abc":
        folder.write(name, name.encode() * 3)
    scanned = kernel.scan(folder.fd, NEVER, 0)
    (folder.path / "b").unlink()
    assert gather(verbs, folder.fd, scanned) == {
        b"a": ((3, 0, 0, 0), b"aaa"),
        b"b": ((0, errno.ENOENT, 0, 0), b""),
        b"c": ((3, 0, 0, 0), b"ccc"),
    }


@pytest.mark.parametrize(
    ("now", "read"),
    [(b"12345", b"12345"), (b"123", b"123"), (b"", b""), (b"123456", b"12345"), (b"1" * 9000, b"11111")],
)
def test_file_that_was_written_since_the_scan_is_changed(verbs, folder, now, read):
    """Growth, shrinking and rewriting since the scan are told, and no more is read than was expected."""
    folder.write("before", b"b" * 10)
    file = folder.write("file", b"abcde")
    folder.write("later", b"l" * 10)
    os.utime(file, ns=(0, 0))
    scanned = kernel.scan(folder.fd, NEVER, 0)
    file.write_bytes(now)
    found = gather(verbs, folder.fd, scanned)
    assert found[b"file"] == ((len(read), 0, CHANGED, 0), read)
    assert found[b"before"] == ((10, 0, 0, 0), b"b" * 10)
    assert found[b"later"] == ((10, 0, 0, 0), b"l" * 10)


def test_each_column_that_tells_a_file_from_another_is_compared(verbs, folder):
    """Inode, size, mtime and ctime are compared; an inode or ctime of 0 is not."""
    folder.write("file", b"12345")
    names, meta, ident = kernel.scan(folder.fd, NEVER, 0)
    values, marks = layout.META.unpack(meta), layout.IDENT.unpack(ident)

    def flags(*, size=values[4], mtime_ns=values[5], ino=marks[0], ctime_ns=marks[1]):
        row = layout.META.pack(*values[:4], size, mtime_ns, values[6])
        ((found, _),) = gather(verbs, folder.fd, (names, row, layout.IDENT.pack(ino, ctime_ns, 1, 0))).values()
        return found[2]

    assert flags() == 0
    assert flags(ino=0) == 0
    assert flags(ctime_ns=0) == 0
    assert flags(ino=0, ctime_ns=0) == 0
    assert flags(ino=marks[0] + 1) == CHANGED
    assert flags(ctime_ns=marks[1] - 1) == CHANGED
    assert flags(mtime_ns=values[5] + 1) == CHANGED
    assert flags(mtime_ns=0) == CHANGED
    assert flags(size=4) == CHANGED
    assert flags(size=6) == CHANGED


@pytest.mark.parametrize("name", [b"", b".", b"..", b"../folder/file", b"/etc/passwd", b"sub/file", b"./file"])
def test_name_that_leaves_the_directory_is_refused(verbs, folder, name):
    """Names that are none of this directory's entries are errors of their rows."""
    folder.write("file", b"")
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / "file").touch()
    row = layout.META.pack(0o100644, 0, 0, 0, 0, 0, 0), layout.IDENT.pack(0, 0, 0, 0)
    assert gather(verbs, folder.fd, (name + b"\0", *row)) == {name: ((0, errno.EINVAL, 0, 0), b"")}


def test_files_of_others_are_read_without_their_owners_privilege(verbs, folder):
    """Where O_NOATIME is the owner's privilege, a readable file is read all the same, and an unreadable one is told."""
    folder.write("readable", b"content").chmod(0o644)
    folder.write("secret", b"content").chmod(0o600)
    scanned = kernel.scan(folder.fd, NEVER, 0)
    found = as_ordinary_user(lambda: gather(verbs, folder.fd, scanned))
    assert found[b"readable"] == ((7, 0, 0, 0), b"content")
    if os.geteuid() == 0:
        assert found[b"secret"] == ((0, errno.EACCES, 0, 0), b"")
    else:
        assert found[b"secret"] == found[b"readable"]


def test_reading_leaves_the_access_time(verbs, folder):
    """A backup does not look like use."""
    file = folder.write("file", b"content")
    os.utime(file, ns=(10**18, 10**18))
    gather(verbs, folder.fd, kernel.scan(folder.fd, NEVER, 0))
    assert file.stat().st_atime_ns == 10**18


def test_extended_attributes_are_noticed(verbs, folder):
    """A file with extended attributes is marked, so that the caller reads them."""
    with_one = folder.write("with", b"x")
    folder.write("without", b"x")
    try:
        os.setxattr(with_one, "user.note", b"value")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    found = gather(verbs, folder.fd, kernel.scan(folder.fd, NEVER, 0))
    assert found[b"with"][0][2] == XATTRS
    if not os.listxattr(folder.path / "without"):
        assert found[b"without"][0][2] == 0


def test_inode_flags_are_read_and_masked(verbs, tmp_path):
    """The flags that a user can set are told, and none that are the file system's own."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 5000)
    made = subprocess.run(["chattr", "+dA", file], check=False, capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip(f"cannot set inode flags: {made.stderr.strip()}")
    fd = os.open(tmp_path, os.O_RDONLY)
    opened = os.open(file, os.O_RDONLY)
    try:
        all_flags = struct.unpack("=I", fcntl.ioctl(opened, 0x80086601, bytes(8))[:4])[0]
        found = gather(verbs, fd, kernel.scan(fd, NEVER, 0))[b"file"][0]
    finally:
        os.close(fd)
        os.close(opened)
    assert found[2] == 0
    assert found[3] == 0xC0
    assert all_flags & layout.INODE_FLAGS == 0xC0


def test_mask_of_inode_flags_is_the_documented_one():
    """The mask holds secure deletion to project inheritance, and not extents, encryption or verity."""
    assert layout.INODE_FLAGS == 0x2283_C0FF


def test_files_of_proc_read_as_changed(verbs):
    """A file that holds more than its size says is read to its size, and marked."""
    fd = os.open("/proc/self", os.O_RDONLY)
    try:
        row = layout.META.pack(0o100444, 0, 0, 0, 0, 0, 0), layout.IDENT.pack(0, 0, 0, 0)
        found = gather(verbs, fd, (b"status\0", *row))[b"status"]
        assert found[0][:3] == (0, 0, CHANGED)
    finally:
        os.close(fd)


def test_descriptors_are_not_leaked(verbs, folder):
    """Whatever becomes of a file, its descriptor is closed."""
    fill_with_every_type(folder.path)
    (folder.path / "block").unlink(missing_ok=True)
    names, meta, ident = kernel.scan(folder.fd, NEVER, 0)
    meta = b"".join(layout.META.pack(*row[:4], 3, *row[5:]) for row in layout.META.iter_unpack(meta))
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        verbs.gather(folder.fd, names, meta, ident, bytearray(len(meta)))
    assert os.listdir("/proc/self/fd") == before


def test_unflagged_content_is_of_one_version(verbs, folder):
    """While a writer rewrites a file, what is read without a mark is one whole version of it."""
    stop = threading.Event()
    file = folder.path / "file"

    def write(version):
        content = bytes([version]) * (1000 + version)
        with file.open("wb") as opened:
            opened.write(content)

    def disturb():
        version = 0
        while not stop.is_set():
            version = (version + 1) % 250
            write(version)

    write(0)
    thread = threading.Thread(target=disturb)
    thread.start()
    whole = 0
    try:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            scanned = kernel.scan(folder.fd, NEVER, 0)
            ((_, _, _, _, size, _, _),) = layout.META.iter_unpack(scanned[1])
            ((length, error, flags, _), content) = gather(verbs, folder.fd, scanned)[b"file"]
            assert error == 0
            if flags == 0 and size:
                whole += 1
                assert length == size == 1000 + content[0]
                assert set(content) == {content[0]}
    finally:
        stop.set()
        thread.join()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(sizes=st.lists(st.integers(0, 6000), max_size=12), claimed=st.lists(st.integers(-3, 3), max_size=12))
def test_both_kernels_read_the_same(native, tmp_path_factory, sizes, claimed):
    """Files of any size, under rows that claim a little less or more, are read alike into like buffers."""
    place = tmp_path_factory.mktemp("read")
    for index, size in enumerate(sizes):
        (place / f"{index:02}").write_bytes(bytes([index + 1]) * size)
    fd = os.open(place, os.O_RDONLY)
    try:
        names, meta, ident = native.scan(fd, NEVER, 0)
        rows = list(layout.META.iter_unpack(meta))
        for index, change in enumerate(claimed[: len(rows)]):
            rows[index] = (*rows[index][:4], max(0, rows[index][4] + change), *rows[index][5:])
        meta = b"".join(layout.META.pack(*row) for row in rows)
        first, second = (bytearray(b"\xee" * (sum(row[4] for row in rows) + 5)) for _ in range(2))
        assert native.gather(fd, names, meta, ident, first) == reference.gather(fd, names, meta, ident, second)
        assert first == second
    finally:
        os.close(fd)


def good(folder):
    folder.write("file", b"12345")
    names, meta, ident = kernel.scan(folder.fd, NEVER, 0)
    return {"dir_fd": folder.fd, "names": names, "meta": meta, "ident": ident, "out": bytearray(5)}


META_ROW = layout.META.pack(0o100644, 0, 0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"names": b"file"}, ValueError),
        ({"names": b""}, ValueError),
        ({"names": b"file\0two\0"}, ValueError),
        ({"meta": META_ROW[:39]}, ValueError),
        ({"meta": META_ROW + b"x"}, ValueError),
        ({"meta": META_ROW * 2}, ValueError),
        ({"meta": b""}, ValueError),
        ({"ident": bytes(23)}, ValueError),
        ({"ident": bytes(48)}, ValueError),
        ({"ident": b""}, ValueError),
        ({"out": bytearray(4)}, ValueError),
        ({"names": b"a\0b\0", "meta": layout.META.pack(0, 0, 0, 0, 1 << 63, 0, 0) * 2, "ident": bytes(48)}, ValueError),
        ({"out": b"12345"}, BufferError),
        ({"out": memoryview(b"12345")}, BufferError),
        ({"out": memoryview(bytearray(10))[::2]}, BufferError),
        ({"names": memoryview(b"f\0i\0")[::2]}, BufferError),
        ({"out": None}, TypeError),
        ({"names": "file\0"}, TypeError),
        ({"meta": [META_ROW]}, TypeError),
        ({"ident": 24}, TypeError),
        ({"dir_fd": "."}, TypeError),
        ({"dir_fd": -1}, ValueError),
        ({"dir_fd": 1 << 40}, ValueError),
        ({"options": 0}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(verbs, folder, change, error):
    """Both kernels refuse the same arguments with the same type of error."""
    with pytest.raises(error):
        verbs.gather(**good(folder) | change)


def test_good_arguments_are_taken_by_keyword(verbs, folder):
    """The arguments above are wrong for one reason only."""
    arguments = good(folder)
    assert layout.GATHERED.unpack(verbs.gather(**arguments))[:3] == (5, 0, 0)
    assert arguments["out"] == b"12345"
    arguments["out"].append(0)  # a view that is still held would forbid it


def test_directory_that_is_none_is_an_error_of_every_row(verbs, folder):
    """A descriptor that is no directory shows in the rows."""
    arguments = good(folder)
    file = os.open(folder.path / "file", os.O_RDONLY)
    try:
        assert layout.GATHERED.unpack(verbs.gather(**arguments | {"dir_fd": file}))[:2] == (0, errno.ENOTDIR)
    finally:
        os.close(file)
    assert layout.GATHERED.unpack(verbs.gather(**arguments | {"dir_fd": file}))[:2] == (0, errno.EBADF)
