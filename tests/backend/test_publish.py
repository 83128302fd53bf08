"""In which order a local repository is made durable, and the ways to a name that must be free."""

from __future__ import annotations

import errno
import os

import pytest

from respaldo.backend import publish
from respaldo.backend.local import LocalBackend
from respaldo.backend.publish import Publisher, SystemSyncer, by_copy, by_link, by_rename
from respaldo.core.errors import ObjectExists, StorageDenied, StorageFailed, StorageFull
from tests.backend.places import NoSync, Recorder

LACKING = [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK, errno.EXDEV]


class Way:
    """Is a way that counts its calls and fails as told, or notes where it worked."""

    def __init__(self, way, number: int = 0, recorder: Recorder | None = None) -> None:
        self.way = way
        self.number = number
        self.recorder = recorder
        self.calls = 0

    def __call__(self, source, directory, leaf, syncer) -> None:
        self.calls += 1
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        self.way(source, directory, leaf, syncer)
        if self.recorder:
            self.recorder.events.append(f"name {leaf}")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repo"


@pytest.fixture
def recorder(root):
    return Recorder(root)


def test_order_of_the_first_put(root, recorder):
    """File before name, directory after it; and every directory that was made before what lies in it."""
    backend = LocalBackend(root, create=True, fsync=recorder, publisher=Publisher((Way(by_link, 0, recorder), by_copy)))
    assert recorder.events == ["dir .."]
    recorder.events.clear()
    backend.put("packs/abcd", [b"x"])
    assert recorder.events == ["dir .", "dir packs", "file .tmp", "name abcd", "dir packs/ab"]
    recorder.events.clear()
    backend.put("packs/abef", [b"x"])
    assert recorder.events == ["file .tmp", "name abef", "dir packs/ab"]
    recorder.events.clear()
    with backend.stage("packs") as stage:
        stage.write(b"x")
        stage.commit("packs/cdef")
    assert recorder.events == ["file .tmp", "dir packs", "name cdef", "dir packs/cd"]
    recorder.events.clear()
    backend.put("header", [b"x"])
    assert recorder.events == ["file .tmp", "name header", "dir ."]
    backend.close()


def test_order_by_rename(root, recorder):
    """A rename from one directory to another makes the new name durable before the old one is gone from disk."""
    publisher = Publisher((Way(by_rename, 0, recorder), by_copy))
    backend = LocalBackend(root, create=True, fsync=recorder, publisher=publisher)
    with backend.stage("packs") as stage:
        recorder.events.clear()
        stage.commit("packs/abcd")
    assert recorder.events == ["file .tmp", "dir packs", "dir packs/ab", "dir packs", "name abcd", "dir packs/ab"]
    backend.close()


def test_order_by_copy(root, recorder):
    """Written under its name, a file is synced before its directory."""
    backend = LocalBackend(root, create=True, fsync=recorder, publisher=Publisher((by_copy,)))
    recorder.events.clear()
    backend.put("log/a", [b"x"])
    assert recorder.events == ["dir .", "file log/a", "dir log"]
    backend.close()


def test_roots_parents_are_durable(tmp_path, recorder):
    """A repository that was made with its parents does not vanish with one of them."""
    recorder.root = tmp_path
    LocalBackend(tmp_path / "a" / "b" / "repo", create=True, fsync=recorder).close()
    assert recorder.events == ["dir .", "dir a", "dir a/b"]


def test_an_existing_repository_is_synced_once(root, recorder):
    """Directories that another process made may not be durable yet: one sync covers all that are listed."""
    with LocalBackend(root, create=True) as first:
        for number in range(20):
            first.put(f"packs/{number:02x}", [b"x"])
    with LocalBackend(root, fsync=recorder) as second:
        for number in range(20):
            second.put(f"packs/{number:02x}ff", [b"x"])
    assert recorder.events.count("dir .") == 1
    assert recorder.events.count("dir packs") == 1


def test_delete_is_durable(root, recorder):
    """A delete syncs its directory, a sweep each directory once, and one that found nothing too."""
    backend = LocalBackend(root, create=True, fsync=recorder)
    for leaf in ("aa1", "aa2", "bb1"):
        backend.put(f"packs/{leaf}", [])
    backend.put("log/a", [])
    recorder.events.clear()
    backend.delete("log/a")
    assert recorder.events == ["dir log"]
    recorder.events.clear()
    assert backend.discard(["packs/aa1", "packs/bb1", "packs/aa2"]) == 3
    assert sorted(recorder.events) == ["dir packs/aa", "dir packs/bb"]
    recorder.events.clear()
    assert backend.discard(["log/a"]) == 0
    assert recorder.events == ["dir log"]
    backend.close()


def test_object_that_is_met_is_durable_before_it_is_reported(root, recorder):
    """Whoever put it may have died before its syncs; ObjectExists lets others rely on it."""
    backend = LocalBackend(root, create=True, fsync=recorder)
    for use in (lambda: backend.put("log/a", [b"y"]), lambda: LocalBackend(root, fsync=recorder).put("log/a", [])):
        (root / "log").mkdir(exist_ok=True)
        (root / "log" / "a").write_bytes(b"x")
        recorder.events.clear()
        with pytest.raises(ObjectExists):
            use()
        assert recorder.events[-2:] == ["file log/a", "dir log"]
    backend.close()


class FixedClock:
    """Is a clock that stands."""

    def __init__(self, ns: int) -> None:
        self.ns = ns

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns


def test_what_a_listing_shows_is_durable(root, recorder):
    """Directories that changed of late are synced when they are listed, others cost nothing."""
    with LocalBackend(root, create=True) as writer:
        writer.put("packs/abcd", [b"x"])
        writer.put("packs/cdef", [b"x"])
        writer.put("log/a", [b"x"])
    hour_ns = 3600 * 10**9
    os.utime(root / "packs" / "ab", ns=(10 * hour_ns, 10 * hour_ns))
    os.utime(root / "packs" / "cd", ns=(8 * hour_ns, 8 * hour_ns))
    os.utime(root / "log", ns=(11 * hour_ns, 11 * hour_ns))
    with LocalBackend(root, fsync=recorder, clock=FixedClock(10 * hour_ns)) as reader:
        assert len(reader.list("packs")) == 2
        assert recorder.events == ["dir packs/ab"]
        recorder.events.clear()
        reader.list("log")  # of the future: the clock was set back
        assert recorder.events == ["dir log"]
        recorder.fail_dir = OSError(errno.EROFS, "read-only")
        assert reader.list("log") == [("log/a", 1)]
        recorder.fail_dir = OSError(errno.EIO, "gone")
        with pytest.raises(StorageFailed):
            reader.list("log")


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StorageFailed), (errno.ENOSPC, StorageFull)])
def test_failed_sync_of_the_file_leaves_nothing(root, recorder, number, kind):
    """Bytes that did not reach the medium get no name."""
    for ways in ((by_link, by_copy), (by_rename, by_copy), (by_copy,)):
        backend = LocalBackend(root, create=True, fsync=recorder, publisher=Publisher(ways))
        recorder.fail_file = OSError(number, "x")
        with pytest.raises(kind):
            backend.put("log/a", [b"x"])
        recorder.fail_file = None
        assert backend.list("log") == []
        assert backend.litter() == []
        backend.close()


def test_failed_sync_of_the_directory_is_reported(root, recorder):
    """A name that may not be durable is no success."""
    backend = LocalBackend(root, create=True, fsync=recorder)
    backend.put("log/a", [b"x"])
    recorder.fail_dir = OSError(errno.EIO, "x")
    with pytest.raises(StorageFailed):
        backend.put("log/b", [b"x"])
    with pytest.raises(StorageFailed):
        backend.delete("log/a")
    recorder.fail_dir = None
    assert backend.litter() == []
    backend.close()


def test_directory_that_was_not_made_durable_is_settled_again(root, recorder):
    """A failed sync of a parent is not forgotten: the next put tries again."""
    backend = LocalBackend(root, create=True, fsync=recorder)
    recorder.fail_dir = OSError(errno.EIO, "x")
    with pytest.raises(StorageFailed):
        backend.put("log/a", [b"x"])
    recorder.fail_dir = None
    recorder.events.clear()
    backend.put("log/a", [b"x"])
    assert recorder.events[0] == "dir ."
    backend.close()


@pytest.mark.parametrize("number", LACKING)
def test_a_way_that_is_lacking_is_tried_once(root, number):
    """The first put finds which way works; later ones start with it."""
    link, rename, copy = Way(by_link, number), Way(by_rename), Way(by_copy)
    publisher = Publisher((link, rename, copy))
    backend = LocalBackend(root, create=True, fsync=NoSync(), publisher=publisher)
    for leaf in "abc":
        backend.put(f"log/{leaf}", [leaf.encode()])
    with pytest.raises(ObjectExists):
        backend.put("log/a", [b"z"])
    assert (link.calls, rename.calls, copy.calls) == (1, 4, 0)
    assert not publisher.exclusive
    assert [backend.get(f"log/{leaf}") for leaf in "abc"] == [b"a", b"b", b"c"]
    assert backend.litter() == []
    backend.close()


@pytest.mark.parametrize("number", LACKING)
def test_the_last_way_needs_no_help(root, number):
    """Without link and renameat2 the first put is a copy, and later ones write only once."""
    link, rename, copy = Way(by_link, number), Way(by_rename, number), Way(by_copy)
    publisher = Publisher((link, rename, copy))
    backend = LocalBackend(root, create=True, fsync=NoSync(), publisher=publisher)
    with backend.stage("packs") as stage:
        stage.write(b"a" * 3_000_000)
        stage.commit("packs/abcd")
    assert publisher.exclusive
    backend.put("packs/abef", [b"b"])
    with backend.stage("packs") as stage:
        stage.write(b"c")
        stage.commit("packs/cdef")
    with pytest.raises(ObjectExists):
        backend.put("packs/cdef", [b"d"])
    assert (link.calls, rename.calls, copy.calls) == (1, 1, 1)
    assert backend.get("packs/abcd") == b"a" * 3_000_000
    assert backend.get("packs/abef") + backend.get("packs/cdef") == b"bc"
    assert backend.litter() == []
    backend.close()


def test_a_refusal_by_all_is_remembered_by_none(root):
    """A directory that may not be written to says nothing about what the file system can do."""
    ways = [Way(by_link, errno.EPERM), Way(by_rename, errno.EPERM), Way(by_copy, errno.EPERM)]
    backend = LocalBackend(root, create=True, publisher=Publisher(ways))
    with pytest.raises(StorageDenied):
        backend.put("log/a", [b"x"])
    for way in ways:
        way.number = 0
    backend.put("log/a", [b"x"])
    assert [way.calls for way in ways] == [2, 1, 1]
    assert backend.litter() == []
    backend.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES])
def test_other_errors_try_no_other_way(root, number):
    """A disk that is full or gone is not asked once more by other means."""
    rename = Way(by_rename)
    backend = LocalBackend(root, create=True, publisher=Publisher((Way(by_link, number), rename, by_copy)))
    with pytest.raises((StorageFailed, StorageFull, StorageDenied)):
        backend.put("log/a", [b"x"])
    assert rename.calls == 0
    assert backend.list("log") == []
    backend.close()


def test_link_whose_answer_was_lost(root, monkeypatch):
    """A server that repeats a request finds its own link there: that is success, another's file is not."""
    link = os.link

    def twice(*args, **kwargs):
        link(*args, **kwargs)
        link(*args, **kwargs)

    monkeypatch.setattr(publish.os, "link", twice)
    backend = LocalBackend(root, create=True)
    backend.put("outcome/a", [b"commit"])
    assert backend.get("outcome/a") == b"commit"
    with pytest.raises(ObjectExists):
        backend.put("outcome/a", [b"commit"])
    assert backend.litter() == []
    backend.close()


def test_temporary_that_cannot_be_unlinked_is_no_failure(root, monkeypatch):
    """Once the name stands, what is left to do is tidying, and sweeping does it later."""
    backend = LocalBackend(root, create=True)
    unlink = os.unlink

    def failing(*args, **kwargs):
        raise OSError(errno.EPERM, "append-only directory")

    monkeypatch.setattr(os, "unlink", failing)
    backend.put("log/a", [b"x"])
    monkeypatch.setattr(os, "unlink", unlink)
    assert backend.list("log") == [("log/a", 1)]
    assert len(backend.litter()) == 1
    backend.close()


def test_torn_copy_is_taken_away(root, monkeypatch):
    """A write under the final name that fails halfway leaves no half object."""
    backend = LocalBackend(root, create=True, publisher=Publisher((by_copy,)))
    calls = []
    writev = os.writev

    def failing(fd, views):
        calls.append(fd)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "full")
        return writev(fd, views)

    monkeypatch.setattr(publish.os, "writev", failing)
    with pytest.raises(StorageFull):
        backend.put("log/a", [b"one", b"two"])
    assert backend.exists("log/a") is None
    backend.close()


def test_system_syncer_lives_with_file_systems_that_sync_no_directories(tmp_path, monkeypatch):
    """CIFS answers EINVAL to a directory's fsync and offers nothing else; other errors count."""
    answer = OSError()

    def failing(fd):
        raise answer

    monkeypatch.setattr(publish.os, "fsync", failing)
    for number in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
        answer = OSError(number, "x")
        SystemSyncer().sync_dir(0)
        with pytest.raises(OSError, match="x"):
            SystemSyncer().sync_file(0)
    answer = OSError(errno.EIO, "x")
    with pytest.raises(OSError, match="x"):
        SystemSyncer().sync_dir(0)


def test_renameat2_that_the_c_library_lacks(root, monkeypatch):
    """An old C library is as good as a kernel without the call."""
    import ctypes

    class Empty:
        def __getattr__(self, name):
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_kwargs: Empty())
    publisher = Publisher((Way(by_link, errno.EPERM), by_rename, by_copy))
    backend = LocalBackend(root, create=True, publisher=publisher)
    backend.put("log/a", [b"x"])
    assert publisher.exclusive
    assert backend.get("log/a") == b"x"
    backend.close()
