"""What a mount shows, by the kernel's own eyes: equal to the source, new when it is new, and never hanging."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fidelity.compare import assert_equal, holes_of, picture, rsync_differences
from tests.fidelity.mounts import Mount, mounting, needs_fuse, unmount
from tests.fidelity.product import Product
from tests.fidelity.trees import data, holes, write_attributes, write_flagged, write_ordinary, write_roots

PERIODS = ("daily", "weekly", "monthly", "yearly")


@pytest.fixture(autouse=True)
def _fuse():
    needs_fuse()


@pytest.fixture
def where(tmp_path):
    """Names a directory to mount at, and sees to it that nothing stays mounted there."""
    place = tmp_path / "mount"
    yield place
    unmount(place)


@pytest.mark.root
def test_mount_is_equal_to_the_source(product, where, ext4):
    """All that an ext4 holds stands in the mount as it stood there: rsync and our own comparison find nothing."""
    source = ext4 / "source"
    write_ordinary(source)
    write_attributes(source)
    write_roots(source)
    write_flagged(source)
    product.snapshot(source)
    with mounting(product, where) as mount:
        (name,) = mount.snapshots()
        whole = mount.where / "snapshots" / name / str(source).lstrip("/")
        assert rsync_differences(source, whole) == []
        assert_equal(source, mount.latest(source))
        assert picture(whole) == picture(mount.latest(source))


def test_mount_shows_ordinary_files(product, where, room):
    """Files, links and holes of an ordinary user come back equal, and nothing can be written."""
    source = room / "source"
    source.mkdir()
    (source / "file").write_bytes(data(300_000))
    (source / "link").symlink_to("file")
    os.link(source / "file", source / "hard")
    os.link(source / "file", source / "harder")
    holes(source / "sparse", (1 << 20, b"x" * 70_000), size=5 << 20)
    product.snapshot(source)
    with mounting(product, where) as mount:
        seen = mount.latest(source)
        assert rsync_differences(source, seen) == []
        first, second = (seen / name for name in ("hard", "harder"))
        assert first.stat().st_ino == second.stat().st_ino
        assert first.stat().st_nlink == (seen / "file").stat().st_nlink == 3
        with (source / "sparse").open("rb") as one, (seen / "sparse").open("rb") as other:
            assert holes_of(one.fileno(), 5 << 20) == holes_of(other.fileno(), 5 << 20)
        assert (seen / "sparse").stat().st_blocks < (5 << 20) // 512
        for change in (seen.joinpath("new").touch, (seen / "file").unlink, lambda: (seen / "file").write_bytes(b"")):
            with pytest.raises(OSError, match="Read-only") as caught:
                change()
            assert caught.value.errno == errno.EROFS


def test_mount_lists_a_long_directory_once(product, where, room):
    """Each of thousands of names is listed once, in runs of their own; one of them is found without a listing."""
    source = room / "source"
    source.mkdir()
    names = [f"{number:05}-{'n' * (number % 90)}" for number in range(9000)]
    for name in names:
        (source / name).touch()
    product.snapshot(source)
    with mounting(product, where) as mount:
        seen = mount.latest(source)
        assert (seen / names[4711]).stat().st_size == 0
        assert not (seen / "missing").exists()
        assert sorted(os.listdir(seen)) == names
        with os.scandir(seen) as entries:
            assert sum(entry.stat().st_size == 0 for entry in entries) == len(names)


def test_mount_finds_new_snapshots(product, where, room):
    """A snapshot that is made while it is mounted appears, in snapshots/ and in latest/; one that is forgotten goes."""
    source = room / "source"
    source.mkdir()
    (source / "old").write_text("old")
    product.snapshot(source, "--label", "first")
    with mounting(product, where) as mount:
        assert mount.snapshots() == ["first"]
        assert os.listdir(mount.latest(source)) == ["old"]
        (source / "new").write_text("new")
        product.snapshot(source, "--label", "second")
        mount.wait_for(lambda: mount.snapshots() == ["first", "second"], "the new snapshot was listed")
        assert sorted(os.listdir(mount.latest(source))) == ["new", "old"]
        assert (mount.where / "snapshots/second" / str(source)[1:] / "new").read_text() == "new"
        product.run("forget", "first")
        mount.wait_for(lambda: mount.snapshots() == ["second"], "the forgotten one was gone")


def test_mount_does_not_hang_on_what_was_forgotten(product, where, room):
    """Who reads in a snapshot that is forgotten and pruned gets an error at once; the rest of the mount goes on."""
    source = room / "source"
    source.mkdir()
    (source / "big").write_bytes(data(8 << 20, 3))
    product.snapshot(source, "--label", "first")
    (source / "big").write_bytes(b"small now")
    product.snapshot(source, "--label", "second")
    with mounting(product, where) as mount:
        fd = os.open(mount.where / "snapshots/first" / str(source)[1:] / "big", os.O_RDONLY)
        try:
            product.run("forget", "first")
            product.run("prune")
            with pytest.raises(OSError) as caught:
                os.pread(fd, 4096, 5 << 20)
            assert caught.value.errno in {errno.EIO, errno.ESTALE}
        finally:
            os.close(fd)
        assert (mount.latest(source) / "big").read_bytes() == b"small now"


def _pread(fd: int, offset: int) -> bytes | int | None:
    try:
        return os.pread(fd, 4096, offset)
    except OSError as error:
        return error.errno


def test_mount_says_damage_of_its_range_alone(product, where, room):
    """Where a block of a file is damaged, reading there fails, and everywhere else it does not."""
    source = room / "source"
    source.mkdir()
    content = data(12 << 20, 5)
    (source / "big").write_bytes(content)
    product.snapshot(source)
    pack = max((product.repository / "packs").rglob("*"), key=lambda path: path.stat().st_size * path.is_file())
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        file.write(bytes(64))
    with mounting(product, where) as mount, (mount.latest(source) / "big").open("rb", buffering=0) as file:
        bad = 0
        for offset in range(0, len(content), 4096):
            found = _pread(file.fileno(), offset)
            assert found in {errno.EIO, content[offset : offset + 4096]}
            bad += 4096 if found == errno.EIO else 0
        assert 0 < bad <= 2 << 20


def test_mount_warns_of_a_record_that_is_damaged(product, where, room):
    """It is said on standard error and in ``--json``; the newest is an error to the kernel, and no older one."""
    source = room / "source"
    source.mkdir()
    for number in range(2):
        (source / "file").write_text(str(number))
        product.snapshot(source)
    bad = max((product.repository / "pending").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    bad.chmod(0o600)
    bad.write_bytes(bad.read_bytes()[:-1])
    shutil.rmtree(product.place / "cache")
    where.mkdir()
    process = product.spawn("mount", where, "--json")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert json.loads(out)["damaged"] == [f"pending/{bad.name}"]
    assert f"warning: damaged object pending/{bad.name}" in err.decode()
    assert "respaldo verify" in err.decode()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(where / "latest")
    assert bad.name in (where / "damaged").read_text("utf-8")
    (name,) = os.listdir(where / "snapshots")
    assert (where / "snapshots" / name / str(source).lstrip("/") / "file").read_text("utf-8") == "0"


def _is_cut_off(fd: int) -> bool:
    try:
        os.fstatvfs(fd)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_mount_goes_with_its_process(product, where, room, number):
    """However its process ends, the mount is gone then, also where a file of it is open."""
    (room / "file").write_text("content")
    product.snapshot(room)
    with mounting(product, where) as mount:
        fd = os.open(mount.latest(room) / "file", os.O_RDONLY)
        try:
            os.kill(mount.pid, number)
            mount.wait_for(lambda: not mount.is_there, "the mount was gone")
            assert os.listdir(where) == []
            mount.wait_for(lambda: _is_cut_off(fd), "the open file was cut off")
        finally:
            with contextlib.suppress(OSError):  # even closing says that nobody is there
                os.close(fd)


def accesses(product):
    """Returns what the access log of this client says."""
    return product.run("log", "show", "--access", "--json").json["accesses"]


def test_mount_ends_when_it_is_unmounted(product, where, room):
    """Its process ends when somebody unmounts it, in the foreground with status 0; the access log says both."""
    (room / "file").write_text("content")
    product.snapshot(room)
    where.mkdir()
    process = product.spawn("mount", "--foreground", where)
    try:
        assert b"mounted at" in process.stdout.readline()
        assert Mount(where, process.pid).latest(room).joinpath("file").read_text() == "content"
        [access] = accesses(product)
        assert (access["verb"], access["outcome"], access["target"]) == ("mount", "unfinished", str(where))
        unmount(where)
        assert process.wait(60) == 0
        assert [item["outcome"] for item in accesses(product)] == ["done"]
    finally:
        process.kill()
        process.communicate()


def test_mount_in_the_foreground_ends_when_it_is_interrupted(product, where, room):
    """Ctrl-C takes the mount away, also where somebody has a file of it open, and says by its status what happened."""
    (room / "file").write_text("content")
    product.snapshot(room)
    where.mkdir()
    process = product.spawn("mount", "--foreground", where)
    try:
        assert b"mounted at" in process.stdout.readline()
        fd = os.open(Mount(where, process.pid).latest(room) / "file", os.O_RDONLY)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in {0, 130}
        assert os.listdir(where) == []
        with contextlib.suppress(OSError):  # even closing says that nobody is there
            os.close(fd)
    finally:
        process.kill()
        process.communicate()


def test_mount_says_what_is_wrong_before_it_goes_to_the_background(product, where, tmp_path):
    """A repository that is not there, or a directory that is taken, gives its status and message, in JSON too."""
    where.mkdir()
    product.repository.rename(tmp_path / "elsewhere")
    gone = product.spawn("mount", where, "--json")
    _, err = gone.communicate(timeout=60)
    assert gone.returncode == 10 and json.loads(err)["error"]["exit_status"] == 10
    (tmp_path / "elsewhere").rename(product.repository)
    with mounting(product, where):
        again = product.spawn("mount", where)
        _, err = again.communicate(timeout=60)
        assert again.returncode == 1 and b"mounted there already" in err


def test_mount_offers_sealed_archives(product, where, room):
    """snapshot/ has each snapshot as the archive that an export makes; GNU tar reads it; read once, it is sealed."""
    source = room / "source"
    write_ordinary(source)
    (source / "big").write_bytes(data(3 << 20, 8))
    product.snapshot(source, "--label", "one")
    product.run("export", "one", "--format", "tar", "-o", room / "one.tar", expected=3)  # a socket is left out
    expected = (room / "one.tar").read_bytes()
    with mounting(product, where) as mount:
        sealed = where / "snapshot/one.tar"
        assert "one.tar" in os.listdir(where / "snapshot")
        assert sealed.stat().st_size == len(expected)
        assert stat.S_IMODE(sealed.stat().st_mode) == 0o444
        with sealed.open("rb") as file:
            for offset in (len(expected) - 20_000, len(expected) // 2, 0):
                assert os.pread(file.fileno(), 20_000, offset) == expected[offset : offset + 20_000]
        listed = subprocess.run(["tar", "-tf", sealed], check=True, capture_output=True).stdout
        assert listed == subprocess.run(["tar", "-tf", room / "one.tar"], check=True, capture_output=True).stdout
        subprocess.run(["cmp", sealed, room / "one.tar"], check=True)
        with pytest.raises(OSError, match="Read-only"):
            sealed.open("ab")
        assert rss_anon(mount.pid) < 150 << 10
    with mounting(product, where) as mount:
        sealed = where / "snapshot/one.tar"
        assert sealed.read_bytes() == expected
        seal = where / "snapshot/one.tar.sha256"
        mount.wait_for(seal.exists, "the archive was sealed")
        subprocess.run(["sha256sum", "--quiet", "-c", seal.name], cwd=seal.parent, check=True)


def test_mount_refuses_what_it_cannot_mount_at(product, where, tmp_path):
    """A directory that is not there, or not empty, is an error that says so, before anything is mounted."""
    missing = product.spawn("mount", tmp_path / "missing")
    out, err = missing.communicate(timeout=60)
    assert (missing.returncode, out) == (1, b"") and b"missing" in err
    where.mkdir()
    (where / "file").touch()
    full = product.spawn("mount", where)
    _, err = full.communicate(timeout=60)
    assert full.returncode == 1 and b"not empty" in err


def test_mount_has_the_other_views(product, where, room):
    """Hosts, tags, kinds and periods lead to the snapshots."""
    (room / "file").write_text("content")
    product.snapshot(room, "--label", "one", "--tag", "good")
    product.snapshot(room, "--label", "two")
    host = os.uname().nodename
    below = str(room)[1:] + "/file"
    with mounting(product, where) as mount:
        assert sorted(os.listdir(where)) == sorted(
            ["at", "latest", "snapshots", "hosts", "tags", "full", "incremental", "snapshot", "versions", *PERIODS]
        )
        for name in (f"hosts/{host}/one", f"hosts/{host}/two", "tags/good/one", "snapshot/one"):
            assert (mount.where / name / below).read_text() == "content"
        assert os.listdir(where / "tags") == ["good"]
        assert (os.listdir(where / "incremental"), os.listdir(where / "full")) == (["two"], [])
        for period in PERIODS:
            (name,) = os.listdir(where / period)
            assert os.readlink(where / period / name) == "../snapshots/two"


def test_mount_lets_many_read_at_once(product, where, room):
    """Sixteen readers at random places of a file all get on, in memory that stays small."""
    content = data(24 << 20, 9)
    (room / "big").write_bytes(content)
    product.snapshot(room)
    with mounting(product, where) as mount:
        fd = os.open(mount.latest(room) / "big", os.O_RDONLY)
        started = threading.Barrier(16)

        def read(seed: int) -> int:
            started.wait()
            places = random.Random(seed)
            for _ in range(20):
                at = places.randrange(len(content))
                assert os.pread(fd, 5000, at) == content[at : at + 5000]
            return 20

        try:
            with ThreadPoolExecutor(16) as pool:
                assert sum(pool.map(read, range(16))) == 320
        finally:
            os.close(fd)
        assert rss_anon(mount.pid) < 150 << 10
        status = os.statvfs(mount.where)
        assert status.f_blocks * status.f_frsize >= 24 << 20 and status.f_bavail == 0


def rss_anon(pid: int) -> int:
    """Returns the KiB of memory of a process's own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


def test_mount_reads_a_long_file_in_flat_memory(product, where, room):
    """A file many times as long as what is kept is read in sequence, and the process stays small."""
    with (room / "long").open("wb") as file:
        for seed in range(24):
            file.write(data(4 << 20, seed))
    product.snapshot(room)
    with mounting(product, where) as mount:
        ran = subprocess.run(["cmp", str(room / "long"), str(mount.latest(room) / "long")], check=False)
        assert ran.returncode == 0
        assert rss_anon(mount.pid) < 150 << 10


def test_mount_opens_directories_without_reading_files(product, where, room):
    """Listing a directory with all attributes needs none of the packs that hold contents only."""
    (room / "big").write_bytes(data(40 << 20, 2))
    product.snapshot(room)
    packs = [path for path in (product.repository / "packs").rglob("*") if path.is_file()]
    max(packs, key=lambda path: path.stat().st_size).unlink()  # the last one holds the trees, too
    with mounting(product, where) as mount:
        found = (mount.latest(room) / "big").stat()
        assert stat.S_ISREG(found.st_mode) and found.st_size == 40 << 20
        with pytest.raises(OSError) as caught:
            (mount.latest(room) / "big").read_bytes()
        assert caught.value.errno == errno.EIO


def test_mount_shows_what_changed_and_every_version(product, where, room):
    """incremental/ has what is new or other and a list of what went; versions/ has each content of a file once."""
    source = room / "source"
    (source / "same").mkdir(parents=True)
    (source / "same" / "file").write_text("same")
    (source / "edited").write_text("first")
    (source / "gone").write_text("gone")
    product.snapshot(source, "--label", "one")
    (source / "edited").write_text("second!")
    (source / "gone").unlink()
    (source / "new").mkdir()
    (source / "new" / "file").write_text("new")
    product.snapshot(source, "--label", "two")
    product.snapshot(source, "--label", "three")
    with mounting(product, where) as mount:
        assert sorted(os.listdir(where / "incremental")) == ["three", "two"]
        changed = where / "incremental/two" / str(source)[1:]
        assert sorted(os.listdir(changed)) == ["edited", "new"]
        assert (changed / "edited").read_text() == "second!"
        assert (changed / "new/file").read_text() == "new"
        assert (where / "incremental/two/DELETED").read_text() == f"{source}/gone\n"
        assert os.listdir(where / "incremental/three") == ["DELETED"]
        below = where / "versions" / str(source)[1:]
        assert sorted(os.listdir(below)) == ["edited", "gone", "new", "same"]
        assert [path.read_text() for path in sorted((below / "edited").iterdir())] == ["first", "second!"]
        assert [path.read_text() for path in (below / "same/file").iterdir()] == ["same"]
        assert [path.read_text() for path in (below / "gone").iterdir()] == ["gone"]
        assert mount.is_there


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_mount_seals_archives_as_an_export_prints(product, where, room):
    """`sha256sum -c` in snapshot/ agrees before anybody has read the archive, and so does what an export prints."""
    source = room / "source"
    source.mkdir()
    (source / "file").write_bytes(data(700_000))
    (source / "link").symlink_to("file")
    product.snapshot(source, "--label", "first")
    product.run("export", "first", "--format", "tar", "-o", room / "out.tar")
    exported = (room / "out.tar.sha256").read_text().split()[0]
    with mounting(product, where) as mount:
        folder = mount.where / "snapshot"
        assert sorted(os.listdir(folder)) == ["first", "first.tar"]
        done = subprocess.run(
            ["sha256sum", "--strict", "-c", "first.tar.sha256"], cwd=folder, check=True, capture_output=True, text=True
        )
        assert done.stdout == "first.tar: OK\n"
        assert (folder / "first.tar.sha256").read_text() == f"{exported}  first.tar\n"
        mount.wait_for(lambda: "first.tar.sha256" in os.listdir(folder), "it was listed")


@pytest.mark.parametrize("left_out", [False, True])
def test_mount_stands_while_the_key_is_rotated(product, where, room, left_out):
    """Everything sealed anew under it: it goes on and shows what is new, unless its key was left out: that is told."""
    source = room / "source"
    source.mkdir()
    opened, closed = data(400_000), data(4_000_000, 2)
    (source / "open").write_bytes(opened)
    (source / "closed").write_bytes(closed)
    product.snapshot(source, "--label", "one")
    product.run("key", "add", "--new-key-file", product.place / "second")
    first = next(key["id"] for key in product.run("key", "list", "--json").json["keys"] if key["opened"])
    with mounting(product, where) as mount:
        seen = where / "snapshots/one" / str(source)[1:]
        with (seen / "open").open("rb", buffering=0) as file:
            assert file.read(10) == opened[:10]
            product.run("key", "rotate", *(("--without", first, "--yes") if left_out else ()))
            if left_out:
                shutil.copy(product.place / "second", product.place / "key")
            product.run("key", "reencrypt")
            if not left_out:
                file.seek(0)
                assert file.read() == opened
        if left_out:
            with pytest.raises(OSError, match="Key has been revoked") as caught:
                (seen / "closed").read_bytes()
            assert caught.value.errno == errno.EKEYREVOKED
            return
        assert (seen / "closed").read_bytes() == closed
        (source / "new").write_text("new")
        product.snapshot(source, "--label", "two")
        mount.wait_for(lambda: mount.snapshots() == ["one", "two"], "the new snapshot appeared")
        assert (where / "snapshots/two" / str(source)[1:] / "new").read_text() == "new"


class AsClient(Product):
    """Runs commands on the same repository as a client that has a credential, and no key."""

    def words(self, *words):
        common = ["--repo", "repository", "--client-file", "ana", "--cache-dir", "client cache"]
        places = [text if text.startswith("-") else str(self.place / text) for text in common]
        return [*map(os.fsdecode, words), *places]

    @property
    def environment(self):
        return {"XDG_STATE_HOME": str(self.place / "client state")}


def test_mount_shows_a_client_what_it_may_restore(product, where, room):
    """Its own snapshots alone, new ones too; a client without the right mounts nothing."""
    source = room / "source"
    source.mkdir()
    (source / "file").write_bytes(data(300_000))
    product.snapshot(source, "--label", "owner's")
    for right in ("--list", "--restore"):
        (product.place / "ana").unlink(missing_ok=True)
        product.run("key", "client", "add", f"ana-{right[2:]}", right, "--out", product.place / "ana")
        client = AsClient(product.place)
        client.snapshot(source, "--label", "one")
        if right == "--list":
            assert "the right to restore" in client.run("mount", where, expected=1).err
    with mounting(client, where) as mount:
        assert mount.snapshots() == ["one"]
        assert_equal(source, mount.latest(source))
        client.snapshot(source, "--label", "two")
        mount.wait_for(lambda: mount.snapshots() == ["one", "two"], "the new snapshot appeared")
        assert (mount.latest(source) / "file").read_bytes() == data(300_000)
        assert client.run("log", "show", "--access", "--json").json["accesses"][-1]["verb"] == "mount"
