"""The check without a key: every object, every kind of harm, found by whoever keeps the storage."""

from __future__ import annotations

import os

import pytest

from respaldo.backend.faults import Faults
from respaldo.backend.local import LocalBackend
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import ReadOnly, Wrapper
from respaldo.core.errors import Corruption, Interrupted, NotARepository, StorageFailed
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check import keyless
from respaldo.flows.check.keyless import run_keyless
from respaldo.store.header import read_header
from tests.flows.check.scenes import flipped


def scrub(backend):
    return run_keyless(ReadOnly(backend), progress=Silent(), cancel=Cancel())


def test_sound_repository_passes(scene):
    """Every object is read, and none is damaged."""
    result = scrub(scene.backend())
    assert (result.damages, result.exit_status) == ((), 0)
    assert result.objects == len(scene.objects)
    assert result.read_bytes == sum(map(len, scene.objects.values()))


@pytest.mark.parametrize("harm", ["first bit", "middle bit", "last bit", "cut", "emptied", "longer"])
def test_every_object_with_every_harm_is_named(scene, harm):
    """Whatever is done to whichever object: that one is named, and no other."""
    for name, content in scene.objects.items():
        backend = scene.backend()
        changed = {
            "first bit": flipped(content, 0),
            "middle bit": flipped(content, len(content) // 2),
            "last bit": flipped(content, -1),
            "cut": content[:-1],
            "emptied": b"",
            "longer": content + b"\0",
        }[harm]
        backend.damage(name, changed)
        result = scrub(backend)
        [damage] = result.damages
        assert damage.name == name
        assert damage.reason == (
            "its bytes do not have its name"
            if name.startswith(("packs/", "segments/"))
            else "its closing hash does not fit its bytes"
        )
        assert (damage.needed, damage.affected, damage.consequence) == (None, (), "")
        assert str(damage) == f"{name}: {damage.reason}"
        assert result.exit_status == 4


def test_impossible_length_is_named_and_not_read(scene):
    """Storage may say that an object has any number of bytes: nobody waits for a terabyte of zeros."""

    class Endless(Wrapper):
        def exists(self, name):
            return 1 << 40

        def list(self, folder):
            return [(name, 1 << 40) for name, _ in self.inner.list(folder)]

        def get(self, name, offset=0, length=None):
            if (name, offset, length) != ("header", 0, 20):  # whose it is
                pytest.fail(f"{name} was read")
            return self.inner.get(name, offset, length)

    result = scrub(Endless(scene.backend()))
    assert sorted(damage.name for damage in result.damages) == sorted(scene.objects)
    assert {damage.reason for damage in result.damages} == {
        f"it is {1 << 40} bytes long, more than such an object can be"
    }


def test_objects_in_pieces_are_read_whole(scene, monkeypatch):
    """Objects longer than a piece, and exactly as long, are hashed as one."""
    for piece in (1000, 4096, 65536):
        monkeypatch.setattr(keyless, "PIECE_BYTES", piece)
        assert scrub(scene.backend()).damages == ()


def test_swapped_records_pass_without_a_key(scene):
    """A record under another one's name has a closing hash that fits: this finds decay, not malice."""
    first, second = scene.names("pending")
    backend = scene.backend()
    backend.damage(first, scene.objects[second])
    assert scrub(backend).damages == ()


def test_names_that_mean_nothing_are_left_alone(scene):
    """What is no object of this format is neither read nor reported."""
    backend = scene.backend()
    backend.damage("packs/readme.txt", b"hello")
    result = scrub(backend)
    assert (result.damages, result.objects) == ((), len(scene.objects))


def test_header_of_something_else_is_reported(scene):
    """A header that is whole and not one of a repository is damage."""
    from respaldo.format.header import close_object

    backend = scene.backend()
    backend.damage("header", close_object(b"something else"))
    assert [damage.reason for damage in scrub(backend).damages] == ["its header is not that of a repository"]


def test_no_header_is_no_repository():
    """Without a header there is nothing to check."""
    with pytest.raises(NotARepository):
        scrub(MemoryBackend())


def test_object_that_cannot_be_read_is_reported_and_the_rest_checked(scene):
    """One bad sector is one damaged object."""
    name = scene.names("packs")[0]

    class Sector(Faults):
        def get(self, wanted, offset=0, length=None):
            if wanted == name:
                raise StorageFailed(wanted, "Input/output error")
            return super().get(wanted, offset, length)

    result = scrub(Sector(scene.backend()))
    assert [(damage.name, damage.reason) for damage in result.damages] == [
        (name, "it cannot be read (Input/output error)")
    ]
    assert result.objects == len(scene.objects)


def test_scrub_stops_when_it_is_asked_to(scene):
    """A request to stop ends it between two objects."""
    cancel = Cancel()
    cancel.request("SIGTERM")
    with pytest.raises(Interrupted):
        run_keyless(scene.backend(), progress=Silent(), cancel=cancel)


@pytest.fixture
def on_disk(scene, tmp_path):
    """The same repository as files."""
    made = LocalBackend(tmp_path / "repository", create=True)
    for name, content in scene.objects.items():
        made.put(name, [content])
    return made


@pytest.mark.parametrize("kind", ["directory", "FIFO", "symlink"])
def test_what_stands_in_the_place_of_an_object_is_damage(scene, on_disk, tmp_path, kind):
    """A listing passes over a directory, and what is lost under it would go unnoticed."""
    for name in scene.objects:
        if name == "header":
            continue
        folder, _, leaf = name.partition("/")
        path = next((tmp_path / "repository" / folder).rglob(leaf))
        content = path.read_bytes()
        path.unlink()
        {"directory": path.mkdir, "FIFO": lambda: os.mkfifo(path), "symlink": lambda: path.symlink_to("x")}[kind]()  # noqa: B023
        result = scrub(on_disk)
        assert {damage.name for damage in result.damages} == {name}
        assert result.exit_status == 4
        path.rmdir() if kind == "directory" else path.unlink()
        path.write_bytes(content)
    assert scrub(on_disk).damages == ()


def test_header_that_is_no_header_is_called_the_same_with_and_without_a_key(on_disk, tmp_path):
    """A sparse file is no repository; what is no file is damage; nobody reads either to its end."""
    header = tmp_path / "repository" / "header"
    header.write_bytes(b"")
    os.truncate(header, 1 << 40)
    for act in (scrub, read_header):
        with pytest.raises(NotARepository):
            act(on_disk)
    header.unlink()
    os.mkfifo(header)
    for act in (scrub, read_header):
        with pytest.raises(Corruption, match="header"):
            act(on_disk)
