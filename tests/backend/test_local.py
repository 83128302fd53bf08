"""Repositories on a file system: the contract by every way to a name, and what only a file system can do wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import threading
import time

import pytest

from respaldo import kernel
from respaldo.backend import local as local_module
from respaldo.backend import publish
from respaldo.backend.base import FOLDERS
from respaldo.backend.local import LocalBackend
from respaldo.backend.publish import Publisher, by_copy, by_link, by_rename
from respaldo.core.errors import (
    Corruption,
    NotARepository,
    ObjectExists,
    ObjectMissing,
    StorageDenied,
    StorageFailed,
    StorageFull,
)
from tests.backend.contract import BackendContract
from tests.backend.places import NoSync, anybodys_directory, in_child, small_disk


class LocalContract(BackendContract):
    ways = publish.WAYS

    @pytest.fixture
    def backend(self, tmp_path):
        with LocalBackend(tmp_path / "repo", create=True, fsync=NoSync(), publisher=Publisher(self.ways)) as backend:
            yield backend

    def litter(self, backend):
        return backend.litter()


class TestByLink(LocalContract):
    pass


class TestByRename(LocalContract):
    ways = (by_rename, by_copy)


class TestByCopy(LocalContract):
    ways = (by_copy,)


@pytest.fixture
def backend(tmp_path):
    with LocalBackend(tmp_path / "repo", create=True) as backend:
        yield backend


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repo"


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_layout_on_disk(backend, root):
    """Packs lie in directories by their first two digits, all else flat; nothing is made before it is needed."""
    assert list(root.iterdir()) == []
    for name in ("header", "packs/abcd", "segments/abcd", "packs/a"):
        backend.put(name, [b"x"])
    assert files(root) == ["header", "packs/a/a", "packs/ab/abcd", "segments/abcd"]
    assert not (root / "keys").exists()


def test_arrival_is_the_time_of_modification(backend, root):
    """It outlives a copy that keeps times; packs, of which there are many, are not asked."""
    backend.put("pending/a", [b"x"])
    os.utime(root / "pending" / "a", ns=(5, 7_000_000_000))
    backend.put("packs/abc", [b"x"])
    assert backend.arrivals("pending") == {"pending/a": 7_000_000_000}
    assert backend.arrivals("packs") == backend.arrivals("trash") == {}


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask):
    """Nobody but the owner reads a repository's files or directories."""

    def make() -> None:
        os.umask(umask)
        with LocalBackend(tmp_path / "a" / "repo", create=True) as backend:
            backend.put("packs/abcd", [b"x"])
            backend.put("header", [b"x"])

    in_child(make)
    for path in (tmp_path / "a").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert path.is_dir() or path.stat().st_nlink == 1


def test_constructor_finds_no_repository(tmp_path):
    """A path that is not there, or no directory, is no repository, and is not made."""
    (tmp_path / "file").write_bytes(b"")
    for name in ("none", "none/none", "file", "file/none"):
        with pytest.raises(NotARepository):
            LocalBackend(tmp_path / name)
    with pytest.raises(NotARepository):
        LocalBackend(tmp_path / "file", create=True)
    assert files(tmp_path) == ["file"]


def test_relative_paths_stay_where_they_were(tmp_path, monkeypatch):
    """A change of the working directory does not move an open repository."""
    monkeypatch.chdir(tmp_path)
    backend = LocalBackend("repo", create=True)
    monkeypatch.chdir("/")
    assert backend.list("keys") == []
    backend.put("keys/a", [b"x"])
    assert files(tmp_path) == ["repo/keys/a"]
    backend.close()


@pytest.mark.parametrize("written", [False, True])
def test_a_root_that_is_gone_is_never_empty(backend, root, written):
    """Every verb says that the repository is not there, rather than that it holds nothing."""
    if written:
        for name in ("packs/abcd", "log/a", "header"):
            backend.put(name, [b"x"])
    shutil.rmtree(root)
    for folder in FOLDERS:
        for look in (backend.list, backend.names):
            with pytest.raises(StorageFailed) as caught:
                look(folder)
            assert "mounted" in caught.value.hint
    for use in (
        lambda: backend.get("packs/abcd"),
        lambda: backend.exists("header"),
        lambda: backend.delete("log/a"),
        lambda: backend.put("log/b", [b"x"]),
        lambda: backend.stage("packs"),
    ):
        with pytest.raises(StorageFailed):
            use()


def test_another_directory_in_the_roots_place_is_not_the_repository(backend, root):
    """What was mounted or made over the path since is not taken for an empty repository."""
    root.rename(root.with_name("moved"))
    root.mkdir()
    with pytest.raises(StorageFailed):
        backend.list("packs")
    with pytest.raises(StorageFailed):
        backend.get("header")


@pytest.mark.parametrize("folder", ["packs", "packs/ab", "log"])
def test_a_listing_that_fails_halfway_is_an_error(backend, monkeypatch, folder):
    """A directory that cannot be read to its end makes no shorter listing."""
    backend.put("packs/abcd", [b"x"])
    backend.put("log/a", [b"x"])

    def failing(whole):
        def read(fd, *rest):
            if os.readlink(f"/proc/self/fd/{fd}").endswith(folder):
                raise OSError(errno.EIO, "unplugged")
            return whole(fd, *rest)

        return read

    monkeypatch.setattr(local_module.os, "scandir", failing(os.scandir))
    monkeypatch.setattr(kernel, "scan", failing(kernel.scan))
    for look in (backend.list, backend.names):
        with pytest.raises(StorageFailed) as caught:
            look(folder.partition("/")[0])
        assert "connected" in caught.value.hint


def test_a_directory_that_vanishes_from_a_listing_is_an_error(backend, root, monkeypatch):
    """A subdirectory that was seen and is gone when it is opened is not skipped."""
    backend.put("packs/abcd", [b"x"])
    subdirectories = local_module._subdirectories

    def racing(fd):
        found = subdirectories(fd)
        shutil.rmtree(root / "packs" / "ab")
        return found

    monkeypatch.setattr(local_module, "_subdirectories", racing)
    with pytest.raises(StorageFailed):
        backend.list("packs")


@pytest.mark.parametrize(("folder", "removed"), [("log", "log"), ("packs", "packs"), ("packs", "packs/ab")])
def test_a_directory_that_is_removed_while_it_is_read_is_an_error(backend, root, monkeypatch, folder, removed):
    """Some file systems show a removed directory as empty (tmpfs), others as an error: it is one."""
    backend.put("packs/abcd", [b"x"])
    backend.put("log/a", [b"x"])

    def racing(whole, nothing):
        def read(fd, *rest):
            if os.readlink(f"/proc/self/fd/{fd}").endswith(f"/{removed}"):
                subprocess.run(["rm", "-r", str(root / removed)], check=True)
                return nothing
            return whole(fd, *rest)

        return read

    monkeypatch.setattr(local_module.os, "scandir", racing(os.scandir, contextlib.nullcontext(iter(()))))
    monkeypatch.setattr(kernel, "scan", racing(kernel.scan, (b"", b"", b"")))
    with pytest.raises(StorageFailed):
        backend.list(folder)


def test_directories_that_were_removed_are_made_again(backend, root):
    """What the backend remembers of a directory is not believed against the disk."""
    backend.put("packs/abcd", [b"x"])
    shutil.rmtree(root / "packs")
    assert backend.list("packs") == []
    backend.put("packs/abcd", [b"y"])
    assert backend.get("packs/abcd") == b"y"


def test_strangers_files_are_not_objects(backend, root):
    """What other programs leave in a repository is neither listed nor in the way."""
    backend.put("packs/abcd", [b"x"])
    backend.put("log/a", [b"x"])
    for name in (
        "log/.DS_Store",
        "log/Thumbs.db",
        "packs/abcd",
        "packs/zz",
        "packs/ab/cdef",
        "packs/ab/.nfs01",
        "README",
    ):
        (root / name).write_bytes(b"stranger's")
    for name in ("log/lost+found", "log/old", "packs/@eaDir", "packs/longer"):
        (root / name).mkdir()
    assert backend.list("log") == [("log/a", 1)]
    assert backend.list("packs") == [("packs/abcd", 1)]


def test_symlinked_object_is_not_followed(backend, root, tmp_path):
    """A link planted as an object leads nowhere: not to be read, listed, kept, or deleted through."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    backend.put("log/a", [b"x"])
    backend.put("packs/abcd", [b"x"])
    for name, path in (("log/b", root / "log" / "b"), ("packs/abef", root / "packs" / "ab" / "abef")):
        path.symlink_to(secret)
        folder = name.partition("/")[0]
        for use in (
            lambda name=name: backend.get(name),
            lambda name=name: backend.get(name, 0, 3),
            lambda name=name: backend.exists(name),
            lambda folder=folder: backend.list(folder),
            lambda name=name: backend.put(name, [b"mine"]),
        ):
            with pytest.raises(Corruption):
                use()
        backend.delete(name)
        assert not path.is_symlink()
    assert secret.read_bytes() == b"not yours"
    assert backend.list("log") == [("log/a", 1)]
    assert backend.litter() == []


def test_dangling_symlink_is_not_written_through(backend, root, tmp_path):
    """A put creates nothing at the end of a planted link."""
    (root / "log").mkdir()
    (root / "log" / "a").symlink_to(tmp_path / "elsewhere")
    for ways in ((by_link, by_copy), (by_rename, by_copy), (by_copy,)):
        with LocalBackend(root, publisher=Publisher(ways)) as other, pytest.raises(Corruption):
            other.put("log/a", [b"x"])
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("link", ["log", "packs", "packs/ab"])
def test_symlinked_folder_is_not_followed(backend, root, tmp_path, link):
    """A link planted as a directory turns no put, listing or delete against what it points to."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "ab").mkdir(parents=True)
    for name in ("abcd", "ab/abcd"):
        (elsewhere / name).write_bytes(b"not yours")
    before = files(elsewhere)
    (root / link).parent.mkdir(exist_ok=True)
    (root / link).symlink_to(elsewhere)
    folder = link.partition("/")[0]
    for use in (
        lambda: backend.list(folder),
        lambda: backend.put(f"{folder}/abef", [b"x"]),
        lambda: backend.delete(f"{folder}/abcd"),
    ):
        with pytest.raises(Corruption):
            use()
    assert files(elsewhere) == before


def test_fifo_does_not_block(backend, root):
    """A pipe planted as an object is damage, not a wait for ever."""
    (root / "log").mkdir()
    os.mkfifo(root / "log" / "a", 0o600)
    for use in (
        lambda: backend.get("log/a"),
        lambda: backend.get("log/a", 0, 3),
        lambda: backend.exists("log/a"),
        lambda: backend.list("log"),
    ):
        with pytest.raises(Corruption):
            use()


def test_directory_in_an_objects_place(backend, root):
    """A directory is no object and is not deleted as one."""
    (root / "log" / "a").mkdir(parents=True)
    for use in (lambda: backend.get("log/a"), lambda: backend.get("log/a", 0, 1), lambda: backend.exists("log/a")):
        with pytest.raises(Corruption):
            use()
    with pytest.raises((StorageFailed, Corruption, StorageDenied)):
        backend.delete("log/a")
    assert (root / "log" / "a").is_dir()


def test_two_processes_race_for_a_name(root, tmp_path):
    """Of two processes that put one name at once, one wins: by each of the ways."""
    for number, ways in enumerate(((by_link, by_copy), (by_rename, by_copy), (by_copy,))):
        place = tmp_path / f"race{number}"
        LocalBackend(place, create=True).close()
        go, ready = os.pipe()
        children = []
        for side in (b"a", b"b"):
            child = os.fork()
            if child == 0:
                wins = 0
                try:
                    os.close(ready)
                    backend = LocalBackend(place, fsync=NoSync(), publisher=Publisher(ways))
                    os.read(go, 1)
                    for turn in range(100):
                        try:
                            backend.put(f"outcome/{turn:03}", [side * 1000])
                            wins += 1
                        except ObjectExists:
                            pass
                finally:
                    os._exit(wins)
            children.append(child)
        os.close(ready)
        os.close(go)
        wins = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sum(wins) == 100
        with LocalBackend(place) as backend:
            found = [backend.get(f"outcome/{turn:03}") for turn in range(100)]
            assert backend.litter() == []
        assert [found.count(side * 1000) for side in (b"a", b"b")] == wins


def test_a_killed_writer_leaves_whole_objects_and_litter_only(root, tmp_path):
    """After kill -9 at any moment every listed object is whole, and what else is there can be swept."""
    LocalBackend(root, create=True).close()
    for _ in range(5):
        child = os.fork()
        if child == 0:
            try:
                backend = LocalBackend(root, fsync=NoSync())
                number = 0
                while True:
                    name = f"packs/{os.getpid() % 256:02x}{number:06x}"
                    with backend.stage("packs") as stage:
                        for _ in range(20):
                            stage.write(name.encode() * 500)
                        stage.commit(name)
                    number += 1
            finally:
                os._exit(1)
        time.sleep(0.05)
        os.kill(child, 9)
        os.waitpid(child, 0)
    with LocalBackend(root) as backend:
        listed = backend.list("packs")
        assert listed
        for name, length in listed:
            assert backend.get(name) == name.encode() * 10_000
            assert length == len(name) * 10_000
        assert backend.sweep_litter(time.time_ns() + 10**9) <= 5
        assert backend.litter() == []
        assert len(files(root)) == len(listed)


def test_litter_is_found_and_swept_by_age(backend, root):
    """Temporaries show in no listing; old ones are swept from every directory, young ones and objects stay."""
    backend.put("packs/abcd", [b"x"])
    backend.put("log/a", [b"x"])
    old_ns, young_ns = 10**18, 2 * 10**18
    for name, mtime_ns in (
        (".tmp-1", old_ns),
        ("packs/.tmp-2", old_ns),
        ("packs/ab/.tmp-3", old_ns),
        ("log/.tmp-4", young_ns),
    ):
        (root / name).write_bytes(b"12345")
        os.utime(root / name, ns=(mtime_ns, mtime_ns))
    (root / "log" / ".tmp-dir").mkdir()
    os.utime(root / "log" / "a", ns=(old_ns, old_ns))
    assert backend.list("log") == [("log/a", 1)]
    assert sorted(backend.litter()) == [
        (".tmp-1", 5, old_ns),
        ("log/.tmp-4", 5, young_ns),
        ("packs/.tmp-2", 5, old_ns),
        ("packs/ab/.tmp-3", 5, old_ns),
    ]
    assert backend.sweep_litter(young_ns) == 3
    assert files(root) == ["log/.tmp-4", "log/a", "packs/ab/abcd"]
    assert backend.sweep_litter(young_ns) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("at", ["write", "fsync", "mkdir", "link"])
def test_full_disk_wherever_it_shows(root, monkeypatch, number, at):
    """No space at any step is StorageFull, and leaves neither an object nor litter."""
    full = OSError(number, os.strerror(number))
    backend = LocalBackend(root, create=True, fsync=NoSync())
    backend.put("packs/aaaa", [b"earlier"])

    def fail(*args, **kwargs):
        raise full

    if at == "fsync":
        monkeypatch.setattr(backend._syncer, "sync_file", fail)
    else:
        monkeypatch.setattr(os, {"write": "writev", "mkdir": "mkdir", "link": "link"}[at], fail)
    with pytest.raises(StorageFull) as caught:
        backend.put("packs/abcd", [b"x" * 10])
    assert caught.value.name == "packs/abcd"
    with pytest.raises(StorageFull), backend.stage("packs") as stage:  # noqa: PT012
        stage.write(b"x")
        stage.commit("packs/acdc")
    monkeypatch.undo()
    assert backend.list("packs") == [("packs/aaaa", 7)]
    assert backend.litter() == []
    backend.put("packs/abcd", [b"x"])
    backend.close()


@pytest.mark.root
@pytest.mark.parametrize("ways", [publish.WAYS, (by_copy,)], ids=["link", "copy"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_is_really_full(tmp_path, kind, ways):
    """On a full disk a put is StorageFull and leaves nothing; earlier objects are whole; deleting makes room."""
    with small_disk(kind, tmp_path) as disk, LocalBackend(disk, publisher=Publisher(ways)) as backend:
        kept = {}
        with pytest.raises(StorageFull):  # noqa: PT012
            for number in range(10_000):
                name, content = f"packs/{number:04x}", bytes([number % 256]) * 200_000
                backend.put(name, [content])
                kept[name] = content
        assert len(kept) > 5
        with pytest.raises(StorageFull), backend.stage("packs") as stage:  # noqa: PT012
            for _ in range(10):
                stage.write(b"x" * 200_000)
            stage.commit("packs/ffff")
        assert backend.litter() == []
        assert {name: backend.get(name) for name, _ in backend.list("packs")} == kept
        free, total = backend.space()
        assert free < 1_000_000 < total
        assert backend.discard(list(kept)[:2]) == 2
        backend.put("packs/ffff", [b"x" * 200_000])
        assert backend.space()[0] < free + 400_000


def test_a_file_that_grows_too_long(tmp_path):
    """A limit of file sizes is an error of the repository, and leaves nothing."""

    def put() -> None:
        with LocalBackend(tmp_path / "repo", create=True) as backend:
            backend.put("log/a", [b"x" * 1000])
            with pytest.raises(StorageFailed) as caught:
                backend.put("log/b", [b"x" * 100_000])
            assert "ulimit" in caught.value.hint
            assert backend.list("log") == [("log/a", 1000)]
            assert backend.litter() == []

    in_child(put, file_size=50_000)


def test_permissions_as_an_ordinary_user():
    """What may not be read or written is StorageDenied: never an empty listing, never an object missing."""
    with anybodys_directory() as place:

        def use() -> None:
            with LocalBackend(place / "repo", create=True) as backend:
                backend.put("packs/abcd", [b"x"])
                backend.put("log/a", [b"x"])
                for locked, verbs in (
                    ("repo/packs", ("list packs", "get packs/abcd", "exists packs/abcd", "delete packs/abcd")),
                    ("repo/packs/ab", ("list packs", "get packs/abcd", "delete packs/abcd")),
                    ("repo/log", ("list log", "get log/a", "exists log/a", "delete log/a", "stage log")),
                ):
                    os.chmod(place / locked, 0)
                    for verb, _, name in (text.partition(" ") for text in verbs):
                        with pytest.raises(StorageDenied):
                            getattr(backend, verb)(name)
                    with pytest.raises(StorageDenied):
                        backend.put(f"{locked.split('/')[1]}/abef", [b"x"])
                    os.chmod(place / locked, 0o700)
                os.chmod(place / "repo/log/a", 0)
                with pytest.raises(StorageDenied):
                    backend.get("log/a")
                assert backend.list("log") == [("log/a", 1)]

        in_child(use, nobody=True)


def test_read_only_directories_as_an_ordinary_user():
    """A repository that may only be read is read; whatever would change it is StorageDenied."""
    with anybodys_directory() as place:

        def use() -> None:
            with LocalBackend(place / "repo", create=True) as backend:
                backend.put("packs/abcd", [b"x"])
            for folder, _, _ in os.walk(place):
                os.chmod(folder, 0o500)
            with LocalBackend(place / "repo") as backend:
                assert backend.list("packs") == [("packs/abcd", 1)]
                assert backend.get("packs/abcd") == b"x"
                for change in (
                    lambda: backend.put("packs/abef", [b"x"]),
                    lambda: backend.put("packs/cdef", [b"x"]),
                    lambda: backend.put("header", [b"x"]),
                    lambda: backend.put("log/a", [b"x"]),
                    lambda: backend.stage("packs"),
                    lambda: backend.delete("packs/abcd"),
                ):
                    with pytest.raises(StorageDenied):
                        change()
            with pytest.raises(StorageDenied):
                LocalBackend(place / "repo" / "below", create=True)

        in_child(use, nobody=True)


def test_an_unreachable_root_as_an_ordinary_user():
    """A directory one may not open is StorageDenied, not a place without a repository."""
    with anybodys_directory() as place:

        def use() -> None:
            (place / "repo").mkdir(0)
            with pytest.raises(StorageDenied):
                LocalBackend(place / "repo")

        in_child(use, nobody=True)


def test_short_reads_and_writes_are_completed(backend, monkeypatch):
    """A file system that does part of what it is asked for is asked again."""
    pread, writev = os.pread, os.writev
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    monkeypatch.setattr(os, "writev", lambda fd, views: writev(fd, [views[0][:2]]))
    backend.put("log/a", [b"abcdefg", b"hi", b"jklmnop"])
    assert backend.get("log/a") == b"abcdefghijklmnop"
    assert backend.get("log/a", 2, 9) == b"cdefghijk"
    assert backend.get("log/a", 10, 90) == b"klmnop"


def test_a_write_of_nothing_is_an_error(backend, monkeypatch):
    """A file system that takes no bytes and says nothing does not hang the backup."""
    monkeypatch.setattr(os, "writev", lambda _fd, _views: 0)
    with pytest.raises(StorageFailed):
        backend.put("log/a", [b"x"])
    assert backend.litter() == []


def test_descriptors_are_given_back(backend, root):
    """No verb, whatever comes of it, keeps a descriptor."""
    (root / "log").mkdir()
    (root / "log" / "link").symlink_to("/")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        backend.put(f"packs/{number}", [b"x"])
        backend.get(f"packs/{number}")
        backend.list("packs")
        for use in (
            lambda: backend.put("packs/0", [b"y"]),
            lambda: backend.get("log/link"),
            lambda: backend.list("log"),
            lambda: backend.put("log/link", [b"y"]),
            lambda: backend.delete("packs/none"),
        ):
            with pytest.raises((ObjectExists, Corruption, ObjectMissing)):
                use()
        with backend.stage("packs") as stage:
            stage.write(b"x")
        backend.litter()
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_threads_make_directories_at_once(root):
    """Two that need the same directory first do not trip over each other."""
    backend = LocalBackend(root, create=True, fsync=NoSync())
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for shard in range(64):
                backend.put(f"packs/{shard:02x}{number}", [b"x"])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(backend.list("packs")) == 256
    backend.close()
