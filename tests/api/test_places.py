from __future__ import annotations

import os
import shutil

import pytest

from respaldo import api
from respaldo.core.errors import Corruption, StorageDenied

SECRET = api.Secret(key=bytes(32))


@pytest.fixture
def places(tmp_path):
    return api.Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")


def opened(path, places, **more):
    return api.open_repository(str(path), SECRET, places=places, **more)


def test_first_header_is_trusted_and_another_refused(tmp_path, places):
    """A header that is exchanged is damage, with a hint at what to do if it is none."""
    other = api.Places(cache_dir=tmp_path / "c2", state_dir=tmp_path / "s2")
    for name in ("a", "b"):
        api.init(str(tmp_path / name), SECRET, places=other)
    with opened(tmp_path / "a", places) as repository:
        first = repository.id
        assert repository.pinned
    shutil.rmtree(tmp_path / "a")
    (tmp_path / "b").rename(tmp_path / "a")
    with pytest.raises(Corruption) as caught:
        opened(tmp_path / "a", places)
    pin = next((tmp_path / "state" / "pins").iterdir())
    assert str(pin) in caught.value.hint
    pin.unlink()
    with opened(tmp_path / "a", places) as repository:
        assert repository.id != first


def test_init_pins(tmp_path, places):
    """What this client made is known from the start, and so are disks that take turns at one place."""
    place = tmp_path / "mounted"
    api.init(str(place), SECRET, places=places)
    place.rename(tmp_path / "first")
    api.init(str(place), SECRET, places=places)
    opened(place, places).__exit__(None, None, None)
    place.rename(tmp_path / "second")
    (tmp_path / "first").rename(place)
    opened(place, places).__exit__(None, None, None)


def test_pin_follows_the_place_not_its_spelling(tmp_path, places):
    """A relative path, a link and file: mean the same place."""
    api.init(str(tmp_path / "r"), SECRET, places=places)
    (tmp_path / "link").symlink_to("r")
    os.chdir(tmp_path)
    for name in ("r", "./r/", "link", f"file:{tmp_path}/r"):
        opened(name, places).__exit__(None, None, None)
    assert len(list((tmp_path / "state" / "pins").iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\n\xff\n", b"place\nzz\n00\n"])
def test_damaged_pin_is_none(tmp_path, places, content):
    """A pin that is not one pins nothing, and is written again."""
    api.init(str(tmp_path / "r"), SECRET, places=places)
    pin = next((tmp_path / "state" / "pins").iterdir())
    whole = pin.read_bytes()
    pin.write_bytes(content)
    opened(tmp_path / "r", places).__exit__(None, None, None)
    assert pin.read_bytes() == whole


def test_pin_that_cannot_be_written_is_no_obstacle(tmp_path, places):
    """A home without room for pins does not keep anybody from a restore."""
    (tmp_path / "state").write_text("a file where a directory should be")
    api.init(str(tmp_path / "r"), SECRET, places=places)
    with opened(tmp_path / "r", places) as repository:
        assert not repository.pinned


def test_opened_for_reading_nothing_is_written(tmp_path, places):
    """Unless writing is asked for, the storage refuses it."""
    api.init(str(tmp_path / "r"), SECRET, places=places)
    with opened(tmp_path / "r", places) as repository, pytest.raises(StorageDenied):
        repository.slots.add(api.Secret(key=b"1" * 32))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")
@pytest.mark.root
def test_read_only_mount_opens(tmp_path, places):
    """A repository on a disk that is mounted read-only can be looked at."""
    import subprocess

    from respaldo.core.seams import Cancel, Silent

    api.init(str(tmp_path / "r"), SECRET, places=places)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a").write_text("a")
    with opened(tmp_path / "r", places, writes=True) as repository:
        repository.backup([os.fsencode(tmp_path / "files")], api.BackupOptions(), progress=Silent(), cancel=Cancel())
    (tmp_path / "mount").mkdir()
    if subprocess.run(["mount", "--bind", tmp_path / "r", tmp_path / "mount"], check=False).returncode:
        pytest.skip("cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", tmp_path / "mount"], check=True)
        with opened(tmp_path / "mount", places) as repository:
            found = repository.find("latest")
            assert [path for path, _ in repository.ls(found, recursive=True)][-1].endswith(b"/files/a")
            assert not repository.verify(api.VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel()).damages
    finally:
        subprocess.run(["umount", tmp_path / "mount"], check=True)
