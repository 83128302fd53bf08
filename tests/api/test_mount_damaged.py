"""Snapshots whose manifests cannot be read, in a mount: said, and no older one in the place of the newest."""

from __future__ import annotations

from datetime import UTC

import pytest

from respaldo.api import Places, Secret, init, mount, open_repository
from respaldo.core.errors import Corruption
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.views.made import ROOT

SECRET = Secret(key=bytes(range(32)))


class Ground:
    """Has a repository, and clients that know nothing of it yet."""

    def __init__(self, place) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        self._clients = 0
        init(str(place / "repository"), SECRET, places=self._places())

    def _places(self):
        self._clients += 1
        own = self.place / str(self._clients)
        return Places(cache_dir=own / "cache", state_dir=own / "state")

    def opened(self, *, writes=False):
        return open_repository(str(self.place / "repository"), SECRET, places=self._places(), writes=writes)

    def snapshot(self, label):
        (self.source / "file").write_text(label)
        with self.opened(writes=True) as repository:
            before = self.manifests()
            sources = [str(self.source).encode()]
            repository.backup(sources, BackupOptions(label=label), progress=Silent(), cancel=Cancel())
        (manifest,) = self.manifests() - before
        return manifest

    def manifests(self):
        return set(self.place.glob("repository/pending/*"))


def spoil(manifest):
    manifest.chmod(0o600)
    raw = bytearray(manifest.read_bytes())
    raw[30] ^= 1
    manifest.write_bytes(raw)


@pytest.fixture
def ground(tmp_path):
    return Ground(tmp_path)


def mounted(ground, monkeypatch, look):
    """Has somebody look at a mount; returns the names of the manifests that were told of, call by call."""
    told = []

    class Session:
        def __init__(self, answers, *_more) -> None:
            self._tree = answers._tree

        def __enter__(self):
            return self

        def __exit__(self, *_error) -> None:
            pass

        def wait(self, _cancel) -> None:
            look(self._tree, told)

    monkeypatch.setattr(mount, "Session", Session)
    with ground.opened() as repository:
        mount.mount(
            repository,
            b"/nowhere",
            mount.MountOptions(),
            zone=UTC,
            ready=lambda: told.append("ready"),
            damaged=lambda errors: told.append([error.name for error in errors]),
            cancel=Cancel(),
        )
    return told


def at(tree, path):
    """Returns the node at a path."""
    node = ROOT
    for name in path.split("/"):
        item = tree.lookup(node, name.encode())
        if item is None:
            return None
        node = item.node
    return node


def names(tree, node):
    return {item.name.decode() for item in tree.listing(node, 0, 100)}


def text(tree):
    return tree.open(at(tree, "damaged")).decode()


def test_mount_of_a_damaged_manifest_says_so_and_shows_no_older_one_as_the_newest(ground, monkeypatch):
    """It is told before the mount is there; all that is to be the newest is an error, and all others are there."""
    ground.snapshot("one")
    bad = ground.snapshot("two")
    spoil(bad)

    def look(tree, _told):
        assert names(tree, at(tree, "snapshots")) == {"one"}
        assert at(tree, f"snapshots/one{ground.source}/file")
        assert at(tree, "at/one")
        (host,) = names(tree, at(tree, "hosts"))
        for where in ("latest", f"hosts/{host}/latest"):
            with pytest.raises(Corruption):
                tree.listing(at(tree, where), 0, 100)
            with pytest.raises(Corruption):
                tree.lookup(at(tree, where), str(ground.source).split("/")[1].encode())
        for name in ("latest", "latest~1", "yesterday"):
            with pytest.raises(Corruption):
                at(tree, f"at/{name}")
        assert bad.name in text(tree)
        assert "respaldo verify" in text(tree)

    assert mounted(ground, monkeypatch, look) == [[f"pending/{bad.name}"], "ready"]


def test_mount_says_what_is_damaged_later_too_and_when_it_is_no_more(ground, monkeypatch):
    """What becomes known while it is mounted is told once; what was mended shows the newest again."""
    ground.snapshot("one")

    def look(tree, told):
        top = f"latest{ground.source}/file"
        assert at(tree, "damaged") is None
        old = at(tree, top)
        assert tree.attributes(old)[0].size == 3
        bad = ground.snapshot("another")
        whole = bad.read_bytes()
        spoil(bad)
        for _ in range(2):
            tree.refresh(now=True)
            assert told == ["ready", [f"pending/{bad.name}"]]
        assert bad.name in text(tree)
        with pytest.raises(Corruption):
            at(tree, top)
        bad.write_bytes(whole)
        tree.refresh(now=True)
        assert tree.attributes(at(tree, top))[0].size == len("another")
        assert at(tree, "damaged") is None

    assert len(mounted(ground, monkeypatch, look)) == 2


def test_mount_without_damage_tells_nothing(ground, monkeypatch):
    """No warning, no file."""
    ground.snapshot("one")

    def look(tree, _told):
        assert at(tree, "damaged") is None
        assert at(tree, f"latest{ground.source}/file")

    assert mounted(ground, monkeypatch, look) == ["ready"]
