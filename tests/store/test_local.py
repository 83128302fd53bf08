"""Local environments: disposable, and thrown away when they may have been cut off in the middle of a write."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys

import lmdb
import pytest

from respaldo.core.errors import StorageFailed
from respaldo.store import local
from respaldo.store.local import Environment, claim

DATABASES = {"rows": False, "many": True}


def make(path, layout="test 1"):
    return Environment(path, layout=layout, databases=DATABASES)


def put(environment, key, value):
    environment.write(lambda txn: txn.put(key, value, db=environment.dbs["rows"]))


def get(environment, key):
    with environment.read() as txn:
        found = txn.get(key, db=environment.dbs["rows"])
        return None if found is None else bytes(found)


def marks(path):
    return sorted(name for name in os.listdir(path) if name.startswith("dirty-"))


def test_environment_keeps_what_was_written(tmp_path):
    """What was written is there after it was closed, and no mark is left."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    assert marks(tmp_path / "a") == [f"dirty-{os.getpid()}"]
    environment.close()
    assert marks(tmp_path / "a") == []
    environment = make(tmp_path / "a")
    assert get(environment, b"k") == b"v"
    environment.close()


def test_environment_of_another_layout_is_discarded(tmp_path):
    """A program that keeps other things in it begins anew."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    environment.close()
    environment = make(tmp_path / "a", "test 2")
    assert get(environment, b"k") is None
    environment.close()


@pytest.mark.parametrize("mark", [b"another boot", b""])
def test_environment_cut_off_by_a_crash_of_the_machine_is_discarded_unread(tmp_path, mark):
    """A mark of another boot, or a torn one, discards the environment without looking into it."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    environment.close()
    (tmp_path / "a" / "dirty-1").write_bytes(mark)
    with open(tmp_path / "a" / "data.mdb", "r+b") as file:  # both meta pages look sound, what they refer to is gone
        file.truncate(8192)
    environment = make(tmp_path / "a")
    assert get(environment, b"k") is None
    assert marks(tmp_path / "a") == [f"dirty-{os.getpid()}"]
    environment.close()


def test_environment_is_discarded_where_boots_cannot_be_told_apart(tmp_path, monkeypatch):
    """Without a boot id, any mark means the worst; without a mark, nothing is lost."""
    monkeypatch.setattr(local, "boot_id", lambda: b"")
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    environment.close()
    environment = make(tmp_path / "a")
    assert get(environment, b"k") == b"v"
    environment.close()
    (tmp_path / "a" / "dirty-7").write_bytes(b"")
    environment = make(tmp_path / "a")
    assert get(environment, b"k") is None
    environment.close()


def test_environment_of_a_killed_process_is_kept(tmp_path):
    """A process that is killed leaves its mark; in the same boot nothing is lost, and the next takes it away."""
    script = (
        "import os, sys, pathlib\n"
        "from respaldo.store.local import Environment\n"
        "e = Environment(pathlib.Path(sys.argv[1]), layout='test 1', databases={'rows': False, 'many': True})\n"
        "e.write(lambda txn: txn.put(b'k', b'v', db=e.dbs['rows']))\n"
        "os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False).returncode == 9
    assert len(marks(tmp_path / "a")) == 1
    environment = make(tmp_path / "a")
    assert get(environment, b"k") == b"v"
    put(environment, b"l", b"w")
    environment.close()
    assert marks(tmp_path / "a") == []


def test_mark_is_never_seen_empty(tmp_path, monkeypatch):
    """Who opens an environment while another is about to write to it does not take it for one of another boot."""
    first = make(tmp_path / "a")
    put(first, b"k", b"v")
    first.close()
    seen = []
    write = os.write

    def look_then_write(fd, data):
        other = make(tmp_path / "a")
        seen.append(get(other, b"k"))
        other.env.close()
        return write(fd, data)

    second = make(tmp_path / "a")
    second.env.close()  # the same process must not have it open twice
    monkeypatch.setattr(os, "write", look_then_write)
    second._put_mark()
    monkeypatch.undo()
    assert seen == [b"v"]
    assert marks(tmp_path / "a") == [f"dirty-{os.getpid()}"]
    assert not list((tmp_path / "a").glob("mark-*"))


def test_mark_of_a_live_process_stays(tmp_path):
    """Closing leaves the marks of others that are still at work."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    (tmp_path / "a" / "dirty-1").write_bytes(local.boot_id())
    environment.close()
    assert marks(tmp_path / "a") == ["dirty-1"]


@pytest.mark.parametrize("content", [b"", b"rubbish" * 9999])
def test_damaged_environment_is_made_anew(tmp_path, content):
    """A file that is no environment is replaced at once."""
    make(tmp_path / "a").close()
    (tmp_path / "a" / "data.mdb").write_bytes(content)
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    assert get(environment, b"k") == b"v"
    environment.close()


def test_environment_that_is_cut_off_is_made_anew(tmp_path):
    """A file that lacks pages is replaced before one of them is touched, which would end the process."""
    environment = make(tmp_path / "a")
    put(environment, b"k", bytes(100_000))
    environment.close()
    with open(tmp_path / "a" / "data.mdb", "r+b") as file:
        file.truncate(8192)
    environment = make(tmp_path / "a")
    assert get(environment, b"k") is None
    environment.close()


def end_on_a_page_never_written(environment):
    """Leaves the file shorter than what is in use, as LMDB does where the last page was taken and given back."""
    draw = random.Random(7)

    def turn(txn):
        for _ in range(draw.randrange(1, 60)):
            key = draw.randrange(300).to_bytes(4, "big")
            lot = draw.random()
            if lot < 0.5:
                txn.put(key, bytes(draw.choice((10, 900, 3000, 9000, 40000))), db=environment.dbs["rows"])
            elif lot < 0.8:
                txn.delete(key, db=environment.dbs["rows"])
            else:
                txn.put(key[:2], draw.randbytes(14), db=environment.dbs["many"])

    for _ in range(5000):
        environment.write(turn)
        length = (environment.env.info()["last_pgno"] + 1) * environment.env.stat()["psize"]
        if os.stat(os.path.join(environment.env.path(), "data.mdb")).st_size < length:
            return length
    pytest.skip("this LMDB writes every page")


def test_environment_that_ends_on_a_page_never_written_is_kept(tmp_path):
    """What LMDB itself left short is not taken for damage, whether its process closed it or was killed."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    length = end_on_a_page_never_written(environment)
    shutil.copytree(tmp_path / "a", tmp_path / "killed")
    environment.close()
    for path in (tmp_path / "a", tmp_path / "killed"):
        environment = make(path)
        assert (path / "data.mdb").stat().st_size >= length
        assert get(environment, b"k") == b"v"
        environment.close()


def test_table_of_readers_has_its_space_before_it_is_mapped(tmp_path, monkeypatch):
    """A write to a mapped hole on a full disk would end the process: no space is an error before anything is mapped."""

    def full(fd, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageFailed, match="No space left") as caught:
        make(tmp_path / "a")
    assert "cache" in caught.value.hint
    assert not (tmp_path / "a" / "data.mdb").exists()
    monkeypatch.undo()
    make(tmp_path / "a").close()
    assert (tmp_path / "a" / "lock.mdb").stat().st_blocks * 512 >= 8192


def test_disk_that_is_full_at_the_end_leaves_the_mark(tmp_path, monkeypatch):
    """What may not be durable is not said to be: the mark stays, and closing hides no error that came before it."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    monkeypatch.setattr(environment, "_settle", lambda: (_ for _ in ()).throw(lmdb.DiskError("full")))
    environment.close()
    assert marks(tmp_path / "a") == [f"dirty-{os.getpid()}"]


def test_open_environment_is_not_opened_twice_nor_removed(tmp_path):
    """A second opening in one process fails and leaves the first one alone."""
    environment = make(tmp_path / "a")
    put(environment, b"k", b"v")
    with pytest.raises(StorageFailed, match="already open"):
        make(tmp_path / "a")
    environment.close()
    environment = make(tmp_path / "a")
    assert get(environment, b"k") == b"v"
    environment.close()


def test_map_grows(tmp_path, monkeypatch):
    """More than the map holds fits, also in one transaction, and for a reader that opened before it grew."""
    monkeypatch.setattr(local, "_MAP_BYTES", 1 << 20)
    environment = make(tmp_path / "a")
    rows = {number.to_bytes(4, "big"): bytes([number % 251]) * 3000 for number in range(2000)}

    def fill(txn):
        for key, value in rows.items():
            txn.put(key, value, db=environment.dbs["rows"])

    environment.write(fill)
    assert all(get(environment, key) == value for key, value in list(rows.items())[::100])
    assert environment.length_bytes() > 6_000_000
    environment.close()


def test_map_grown_by_another_process_is_followed(tmp_path, monkeypatch):
    """Readers and writers go on when another process has made the map bigger."""
    monkeypatch.setattr(local, "_MAP_BYTES", 1 << 20)
    environment = make(tmp_path / "a")
    put(environment, b"mine", b"1")
    script = (
        "import sys, pathlib\n"
        "from respaldo.store.local import Environment\n"
        "e = Environment(pathlib.Path(sys.argv[1]), layout='test 1', databases={'rows': False, 'many': True})\n"
        "e.write(lambda txn: [txn.put(b'%08d' % n, bytes(3000), db=e.dbs['rows']) for n in range(30000)] and None)\n"
        "e.close()\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=True)
    assert get(environment, b"00029999") == bytes(3000)
    put(environment, b"mine", b"2")
    assert get(environment, b"mine") == b"2"
    environment.close()


def test_action_that_fails_leaves_nothing(tmp_path):
    """An action that raises is undone."""
    environment = make(tmp_path / "a")

    def fail(txn):
        txn.put(b"k", b"v", db=environment.dbs["rows"])
        raise KeyError

    with pytest.raises(KeyError):
        environment.write(fail)
    assert get(environment, b"k") is None
    environment.close()


def test_cache_that_cannot_be_made_is_a_storage_error(tmp_path):
    """A file where the cache's folder should be is an error that names it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="local cache"):
        make(tmp_path / "file" / "a")


def test_claim_gives_each_a_path_of_its_own(tmp_path):
    """Two that want the same name at once get two; who comes after them gets the first again."""
    with claim(tmp_path, "memo") as first, claim(tmp_path, "memo") as second:
        assert (first, second) == (tmp_path / "memo", tmp_path / "memo-2")
    with claim(tmp_path, "memo") as again:
        assert again == first
