"""`scatter` in both kernels: whole or absent, nothing replaced, and every failure told."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo import kernel
from respaldo.kernel import layout, reference
from tests.kernel.scenes import NOBODY, Folder, as_ordinary_user, tmpfs

OK = (0, layout.STAGE_OK, 0)
TIME_NS = 1_234_567_890_123_456_789


def scatter(verbs, fd, files, *, options=0, prefix=b".new-"):
    """Writes files given as (name, pieces, changes of the meta row); returns the rows."""
    metas = []
    for _, pieces, changes in files:
        row = {"mode": stat.S_IFREG | 0o640, "uid": os.geteuid(), "gid": os.getegid(), "mtime_ns": TIME_NS}
        row = row | {"size": sum(map(len, pieces))} | changes
        metas.append(layout.META.pack(row["mode"], row["uid"], row["gid"], 0, row["size"], row["mtime_ns"], 7))
    found = verbs.scatter(
        fd,
        b"".join(name + b"\0" for name, _, _ in files),
        b"".join(metas),
        struct.pack(f"<{len(files)}I", *[len(pieces) for _, pieces, _ in files]),
        [piece for _, pieces, _ in files for piece in pieces],
        prefix,
        options,
    )
    return list(layout.SCATTERED.iter_unpack(found))


@pytest.mark.parametrize("options", range(16))
def test_files_are_made_of_their_pieces(verbs, folder, options):
    """Each file holds its pieces in order, with its mode and time, whatever the options, and nothing else is left."""
    files = [
        (b"empty", [], {}),
        (b"of nothing", [b"", b"", b""], {}),
        (b"one", [b"content"], {"mode": stat.S_IFREG | 0o400}),
        (b"three", [b"a" * 5000, b"", bytearray(b"b" * 3)], {"mode": stat.S_IFREG | 0o777}),
        (b"zeros", [bytes(100_000), memoryview(bytes(3))], {}),
        (b"many", [b"%d," % index for index in range(3000)], {"mtime_ns": -1}),
        (b"\xff\n", [os.urandom(300_000)], {"mtime_ns": 0}),
        (b"n" * 255, [b"long"], {}),
    ]
    mask = os.umask(0o077)
    try:
        assert scatter(verbs, folder.fd, files, options=options) == [OK] * len(files)
    finally:
        os.umask(mask)
    assert folder.names() == sorted(name for name, _, _ in files)
    for name, pieces, changes in files:
        opened = os.open(name, os.O_RDONLY, dir_fd=folder.fd)
        found = os.stat(opened)
        assert os.read(opened, 1 << 20) == b"".join(pieces)
        os.close(opened)
        assert found.st_mode == changes.get("mode", stat.S_IFREG | 0o640)
        assert found.st_mtime_ns == changes.get("mtime_ns", TIME_NS)
        assert found.st_nlink == 1


def test_nothing_is_made_where_nothing_is_asked_for(verbs, folder):
    """No names make no rows."""
    assert verbs.scatter(folder.fd, b"", b"", b"", [], b"x", 0) == b""
    assert verbs.scatter(folder.fd, b"", b"", b"", (), b"x", 15) == b""


def test_what_was_gathered_can_be_scattered(verbs, folder, tmp_path):
    """Names and rows of a scan, and what was gathered under them, make the same files elsewhere."""
    for index, size in enumerate((0, 1, 5000, 70_000)):
        os.utime(folder.write(f"{index}", os.urandom(size)), ns=(1, TIME_NS + index))
    names, meta, ident = kernel.scan(folder.fd, 2**63 - 1, 0)
    sizes = [row[4] for row in layout.META.iter_unpack(meta)]
    out = bytearray(sum(sizes))
    verbs.gather(folder.fd, names, meta, ident, out)
    pieces = [memoryview(out)[sum(sizes[:at]) : sum(sizes[: at + 1])] for at in range(len(sizes))]
    other = Folder(tmp_path / "other")
    try:
        verbs.scatter(other.fd, names, meta, struct.pack("<4I", 1, 1, 1, 1), pieces, b".x", layout.SCATTER_OWNER)
        again = kernel.scan(other.fd, 2**63 - 1, layout.SCAN_TRUST_TIMES)
        assert again[0] == names
        assert [row[:6] for row in layout.META.iter_unpack(again[1])] == [
            row[:6] for row in layout.META.iter_unpack(meta)
        ]
        for index in range(4):
            assert (other.path / f"{index}").read_bytes() == (folder.path / f"{index}").read_bytes()
    finally:
        os.close(other.fd)


def test_access_time_is_left_alone(verbs, folder):
    """Only the modification time is set: the file was accessed now, whenever it was changed."""
    scatter(verbs, folder.fd, [(b"file", [b"x"], {"mtime_ns": 1})])
    found = (folder.path / "file").stat()
    assert found.st_mtime_ns == 1
    assert found.st_atime_ns > 10**18


@pytest.mark.parametrize(("options", "stage"), [(0, layout.STAGE_RENAME), (layout.SCATTER_PRIVATE, layout.STAGE_OPEN)])
@pytest.mark.parametrize("make", ["file", "directory", "link", "dangling", "fifo"])
def test_name_that_exists_is_never_replaced(verbs, folder, make, options, stage):
    """Whatever has the name keeps it, symlinks are not written through, and the temporary goes."""
    target = folder.write("target", b"untouched")
    path = folder.path / "name"
    {
        "file": lambda: path.write_bytes(b"old"),
        "directory": path.mkdir,
        "link": lambda: path.symlink_to("target"),
        "dangling": lambda: path.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(path),
    }[make]()
    before = path.lstat()
    rows = scatter(verbs, folder.fd, [(b"name", [b"new"], {}), (b"other", [b"new"], {})], options=options)
    assert rows == [(errno.EEXIST, stage, 0), OK]
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_size) == (before.st_ino, before.st_mode, before.st_size)
    assert target.read_bytes() == b"untouched"
    assert folder.names() == [b"name", b"other", b"target"]


@pytest.mark.parametrize(("options", "stage"), [(0, layout.STAGE_RENAME), (layout.SCATTER_PRIVATE, layout.STAGE_OPEN)])
def test_name_given_twice_is_made_once(verbs, folder, options, stage):
    """Of two rows of one name the first is made, the second told."""
    rows = scatter(verbs, folder.fd, [(b"name", [b"1"], {}), (b"name", [b"2"], {})], options=options)
    assert rows == [OK, (errno.EEXIST, stage, 0)]
    assert (folder.path / "name").read_bytes() == b"1"
    assert folder.names() == [b"name"]


@pytest.mark.parametrize("make", ["file", "link"])
def test_temporary_name_that_exists_is_not_written_to(verbs, folder, make):
    """What lies under the temporary name, a planted symlink above all, is neither written through nor removed."""
    target = folder.write("target", b"untouched")
    planted = folder.path / ".new-0"
    planted.write_bytes(b"untouched") if make == "file" else planted.symlink_to("target")
    rows = scatter(verbs, folder.fd, [(b"name", [b"new"], {}), (b"other", [b"new"], {})])
    assert rows == [(errno.EEXIST, layout.STAGE_OPEN, 0), OK]
    assert target.read_bytes() == b"untouched"
    assert folder.names() == [b".new-0", b"other", b"target"]


@pytest.mark.parametrize("options", [0, layout.SCATTER_PRIVATE])
@pytest.mark.parametrize("name", [b"", b".", b"..", b"../escaped", b"/tmp/escaped", b"a/b", b"a/", b"/"])
def test_name_that_leaves_the_directory_is_refused(verbs, folder, name, options):
    """Names that are none of this directory's entries are refused before anything is made."""
    rows = scatter(verbs, folder.fd, [(name, [b"x"], {}), (b"good", [b"x"], {})], options=options)
    assert rows == [(errno.EINVAL, layout.STAGE_CHECK, 0), OK]
    assert folder.names() == [b"good"]
    assert os.listdir(folder.path.parent) == ["folder"]


@pytest.mark.parametrize("size", [0, 2, 4, 1 << 63, (1 << 64) - 1])
def test_pieces_that_do_not_make_the_size_are_refused(verbs, folder, size):
    """A size that the pieces do not add up to is told, and the file is not made."""
    rows = scatter(verbs, folder.fd, [(b"wrong", [b"1", b"23"], {"size": size}), (b"good", [b"x"], {})])
    assert rows == [(errno.EINVAL, layout.STAGE_CHECK, 0), OK]
    assert folder.names() == [b"good"]


def test_file_of_a_private_directory_never_has_another_name(verbs, folder):
    """With PRIVATE no temporary name is used: what lies under it is in nobody's way, and stays."""
    planted = folder.write(".new-0", b"untouched")
    assert scatter(verbs, folder.fd, [(b"name", [b"new"], {})], options=layout.SCATTER_PRIVATE) == [OK]
    assert (planted.read_bytes(), (folder.path / "name").read_bytes()) == (b"untouched", b"new")


def test_name_that_is_too_long_leaves_nothing(verbs, folder):
    """A name that the file system refuses is told at the last stage, and the temporary goes."""
    assert scatter(verbs, folder.fd, [(b"n" * 256, [b"x"], {})]) == [(errno.ENAMETOOLONG, layout.STAGE_RENAME, 0)]
    assert folder.names() == []


@pytest.mark.root
def test_owner_is_given_by_root(verbs, folder):
    """With OWNER a file gets its owner, and then its set-id bits, which a change of owner clears."""
    change = {"uid": 12345, "gid": 54321, "mode": stat.S_IFREG | 0o6755}
    assert scatter(verbs, folder.fd, [(b"file", [b"x"], change)], options=layout.SCATTER_OWNER) == [OK]
    found = (folder.path / "file").stat()
    assert (found.st_uid, found.st_gid, found.st_mode) == (12345, 54321, stat.S_IFREG | 0o6755)


def test_owner_that_cannot_be_given_takes_the_set_id_bits_with_it(verbs, folder):
    """A file that stays with another owner is made, without set-id bits, and told."""
    folder.path.chmod(0o777)

    def work():
        files = [(b"root's", [b"x"], {"uid": 0, "gid": 0, "mode": stat.S_IFREG | 0o7755})]
        return scatter(verbs, folder.fd, files, options=layout.SCATTER_OWNER)

    assert as_ordinary_user(work) == [(0, layout.STAGE_OK, layout.SCATTER_OWNER_FAILED)]
    found = (folder.path / "root's").stat()
    assert stat.S_IMODE(found.st_mode) == 0o1755
    assert found.st_uid == (NOBODY if os.geteuid() == 0 else os.geteuid())


@pytest.mark.parametrize("which", ["uid", "gid"])
def test_owner_that_means_leave_it_is_a_failure(verbs, folder, which):
    """The id -1, which chown takes for "as it is", is no owner: a set-id file would go to whoever restores."""
    files = [(b"file", [b"x"], {which: 0xFFFF_FFFF, "mode": stat.S_IFREG | 0o4755})]
    rows = scatter(verbs, folder.fd, files, options=layout.SCATTER_OWNER)
    assert rows == [(0, layout.STAGE_OK, layout.SCATTER_OWNER_FAILED)]
    assert stat.S_IMODE((folder.path / "file").stat().st_mode) == 0o755


def test_set_id_bits_without_owner_need_the_right_owner(verbs, folder):
    """Where no owner is asked for, set-id bits are set only on files that have the right one anyway."""
    mode = stat.S_IFREG | 0o6711
    files = [(b"mine", [b"x"], {"mode": mode}), (b"another's", [b"x"], {"mode": mode, "uid": os.geteuid() + 1})]
    assert scatter(verbs, folder.fd, files) == [OK, OK]
    assert stat.S_IMODE((folder.path / "mine").stat().st_mode) == 0o6711
    assert stat.S_IMODE((folder.path / "another's").stat().st_mode) == 0o711


def test_directory_that_cannot_be_written_to_is_told(verbs, folder):
    """A directory without write permission is told for every row."""
    folder.path.chmod(0o555)
    try:
        rows = as_ordinary_user(lambda: scatter(verbs, folder.fd, [(b"a", [], {}), (b"b", [], {})]))
    finally:
        folder.path.chmod(0o755)
    assert rows == [(errno.EACCES, layout.STAGE_OPEN, 0)] * 2


BLOCK = 4096


@pytest.mark.parametrize(
    "pieces",
    [
        [bytes(BLOCK)],
        [bytes(BLOCK * 300)],
        [bytes(BLOCK * 3 + 5)],
        [b"x" + bytes(BLOCK * 20)],
        [bytes(BLOCK * 20) + b"x"],
        [b"x" * BLOCK, bytes(BLOCK * 9), b"y" * BLOCK],
        [b"x" * 100, bytes(BLOCK * 9), b"y" * 100],
        [bytes(1000)] * 100,
        [bytes(1000), b"", bytes(7096), b"x", bytes(3), bytes(BLOCK * 4)],
        [bytes(BLOCK - 1) + b"x"] * 3,
        [bytes(BLOCK - 1)],
    ],
)
def test_zeros_become_holes(verbs, folder, pieces):
    """Content with runs of zeros reads back the same, and whole blocks of zeros take no space."""
    assert scatter(verbs, folder.fd, [(b"f", pieces, {})], options=layout.SCATTER_SPARSE) == [OK]
    content = b"".join(pieces)
    file = folder.path / "f"
    assert file.read_bytes() == content
    blocks = {content[at : at + BLOCK] for at in range(0, len(content), BLOCK)}
    if blocks == {bytes(BLOCK)}:
        assert file.stat().st_blocks == 0
    with file.open("rb") as opened:
        try:
            first = os.lseek(opened.fileno(), 0, os.SEEK_DATA)
        except OSError as error:
            assert error.errno == errno.ENXIO  # noqa: PT017 - nothing but a hole
            first = len(content)
    expected = next(
        (at for at in range(0, len(content), BLOCK) if content[at : at + BLOCK] != bytes(BLOCK)), len(content)
    )
    assert first in (expected, 0)  # 0: a file system without holes


def test_without_the_option_zeros_are_written(verbs, tmp_path):
    """Holes are made only where they are asked for."""
    made = Folder(tmp_path / "dense")
    scatter(verbs, made.fd, [(b"f", [bytes(1 << 20)], {})], options=layout.SCATTER_SYNC)
    os.close(made.fd)
    assert (made.path / "f").stat().st_blocks * 512 >= 1 << 20


@pytest.mark.root
@pytest.mark.parametrize("options", [0, layout.SCATTER_SPARSE, layout.SCATTER_SYNC, layout.SCATTER_PRIVATE])
def test_full_file_system_stops_the_batch(verbs, tmp_path, options):
    """When space runs out, the file at hand is told and gone, those before are whole, those behind are not tried."""
    with tmpfs(tmp_path / "small", "size=256k"):
        made = Folder(tmp_path / "small")
        files = [(b"%d" % index, [bytes([index + 1]) * 100_000], {}) for index in range(5)]
        rows = scatter(verbs, made.fd, files, options=options)
        later = (errno.ECANCELED, layout.STAGE_OPEN, 0)
        assert rows == [OK, OK, (errno.ENOSPC, layout.STAGE_WRITE, 0), later, later]
        assert made.names() == [b"0", b"1"]
        assert (made.path / "1").read_bytes() == b"\2" * 100_000
        os.close(made.fd)


@pytest.mark.root
def test_lack_of_inodes_stops_the_batch(verbs, tmp_path):
    """When inodes run out, the rest is not tried, not even checked."""
    with tmpfs(tmp_path / "few", "nr_inodes=4"):
        made = Folder(tmp_path / "few")
        rows = scatter(verbs, made.fd, [(b"%d" % index, [], {}) for index in range(6)] + [(b"..", [b"x"], {})])
        os.close(made.fd)
    made_files = rows.index((errno.ENOSPC, layout.STAGE_OPEN, 0))
    assert 1 <= made_files <= 4
    assert rows[:made_files] == [OK] * made_files
    assert rows[made_files + 1 :] == [(errno.ECANCELED, layout.STAGE_OPEN, 0)] * (len(rows) - made_files - 1)


@pytest.mark.root
def test_read_only_file_system_stops_the_batch(verbs, tmp_path):
    """A file system that is read-only is tried once."""
    with tmpfs(tmp_path / "sealed", "size=64k"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "sealed"], check=True)
        made = Folder(tmp_path / "sealed")
        rows = scatter(verbs, made.fd, [(b"a", [], {}), (b"b", [], {})])
        os.close(made.fd)
    assert rows == [(errno.EROFS, layout.STAGE_OPEN, 0), (errno.ECANCELED, layout.STAGE_OPEN, 0)]


contents = st.lists(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.integers(0, 9000).map(bytes),
            st.integers(0, 9000).map(lambda size: b"\xaa" * size),
        ),
        max_size=6,
    ),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(files=contents, options=st.integers(0, 15))
def test_both_kernels_write_the_same(native, tmp_path_factory, files, options):
    """Any pieces under any options make the same files in both kernels, holes included."""
    seen = []
    for which in (native, reference):
        made = Folder(tmp_path_factory.mktemp("written"))
        rows = scatter(which, made.fd, [(b"%d" % at, pieces, {}) for at, pieces in enumerate(files)], options=options)
        found = []
        for at, pieces in enumerate(files):
            file = made.path / str(at)
            assert file.read_bytes() == b"".join(pieces)
            status = file.stat()
            found.append((status.st_mode, status.st_size, status.st_mtime_ns))
        os.close(made.fd)
        seen.append((rows, found))
    assert seen[0] == seen[1]


def good(folder):
    return {
        "dir_fd": folder.fd,
        "names": b"file\0",
        "meta": layout.META.pack(0o100644, 0, 0, 0, 3, 0, 0),
        "counts": b"\2\0\0\0",
        "pieces": [b"1", b"23"],
        "prefix": b".x",
        "options": 0,
    }


class Lying(list):
    """Is a list that promises more than it holds."""

    def __len__(self):
        return 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"names": b"file"}, ValueError),
        ({"names": b""}, ValueError),
        ({"names": b"a\0b\0"}, ValueError),
        ({"meta": bytes(39)}, ValueError),
        ({"meta": bytes(80)}, ValueError),
        ({"meta": b""}, ValueError),
        ({"counts": b"\2\0\0"}, ValueError),
        ({"counts": b"\1\0\0\0"}, ValueError),
        ({"counts": b"\3\0\0\0"}, ValueError),
        ({"counts": b"\2\0\0\0\0\0\0\0"}, ValueError),
        ({"counts": b""}, ValueError),
        ({"pieces": []}, ValueError),
        ({"pieces": [b"1"]}, ValueError),
        ({"pieces": Lying([b"1"])}, IndexError),
        ({"prefix": b""}, ValueError),
        ({"prefix": b"x" * 201}, ValueError),
        ({"prefix": b"a/b"}, ValueError),
        ({"prefix": b"a\0b"}, ValueError),
        ({"options": 16}, ValueError),
        ({"options": -1}, ValueError),
        ({"dir_fd": -100}, ValueError),
        ({"pieces": [b"1", "23"]}, TypeError),
        ({"pieces": [b"1", None]}, TypeError),
        ({"pieces": b"12"}, TypeError),
        ({"pieces": {0: b"1", 1: b"23"}}, TypeError),
        ({"pieces": iter([b"1", b"23"])}, TypeError),
        ({"pieces": None}, TypeError),
        ({"names": "file\0"}, TypeError),
        ({"meta": None}, TypeError),
        ({"counts": [2]}, TypeError),
        ({"prefix": ".x"}, TypeError),
        ({"options": None}, TypeError),
        ({"pieces": [b"1", memoryview(b"2x3x")[::2]]}, BufferError),
        ({"surplus": 0}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(verbs, folder, change, error):
    """Both kernels refuse the same arguments with the same type of error, before anything is made."""
    with pytest.raises(error):
        verbs.scatter(**good(folder) | change)
    assert folder.names() == []


def test_good_arguments_are_taken_by_keyword(verbs, folder):
    """The arguments above are wrong for one reason only; sequences of any kind will do."""
    assert layout.SCATTERED.unpack(verbs.scatter(**good(folder))) == OK
    pieces = bytearray(b"1"), memoryview(b"23")
    assert layout.SCATTERED.unpack(verbs.scatter(**good(folder) | {"pieces": pieces, "names": b"two\0"})) == OK
    pieces[0].append(0)  # a view that is still held would forbid it
    assert folder.names() == [b"file", b"two"]
