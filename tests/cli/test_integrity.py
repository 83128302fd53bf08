"""Integrity before use: whatever is wrong with a repository, no way out of it hands over what was not backed up.

Each way out (restore to a new place, over a file, in place, dump, export to a file and to a stream) against each harm:
a chunk whose seal does not open, one that opens and holds other bytes, a manifest that is damaged or another one's, and
a log that was rolled back. Under its own name a file is what was backed up, or what it was, or not there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile

import pytest

from respaldo.cli.main import main
from respaldo.store.source import ChunkSource

MARK = b"these are the bytes that somebody changes"
OLD = b"what was there before"
WAYS = ("restore", "restore over", "restore in place", "dump", "dump tar", "export", "export to a stream")


@pytest.fixture
def run(place, capfdbinary):
    """Runs a command; returns its status, what it printed, as bytes, and what it said."""

    def go(*words):
        capfdbinary.readouterr()
        status = main([os.fspath(word) for word in words])
        return status, *capfdbinary.readouterr()

    return go


@pytest.fixture
def cli(run):
    """Runs a command that must do its work; returns the JSON that it printed."""

    def go(*words):
        status, out, err = run(*words, "--json")
        assert status == 0, err
        return json.loads(out)

    return go


@pytest.fixture
def saved(cli, repository, place):
    """Has a snapshot of a long and a short file taken; returns the id, and the long one's content."""
    source = place / "source"
    source.mkdir()
    content = os.urandom(600_000) + MARK + os.urandom(1_500_000)
    (source / "long").write_bytes(content)
    (source / "short").write_bytes(b"short")
    return cli("snapshot", source)["snapshot"], content


@pytest.fixture
def take(run, place):
    """Takes the long file out in one of the ways; returns the status, and what is under the final name (or printed)."""

    def go(way, snapshot, expected):
        target = place / "target"
        path = f"{snapshot}:{place / 'source'}"
        existing = OLD * 100_000
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        if way in {"restore over", "restore in place"}:
            (target / "long").write_bytes(existing)
        words = {
            "restore": ["restore", path, target],
            "restore over": ["restore", path, target, "--no-safety"],
            "restore in place": ["restore", path, target, "--no-safety", "--in-place"],
            "dump": ["dump", path + "/long"],
            "dump tar": ["dump", path],
            "export": ["export", path, "-o", target / "archive.tar", "-f", "tar"],
            "export to a stream": ["export", path, "-o", "-", "-f", "tar"],
        }[way]
        status, out, err = run(*words)
        assert status in expected, (way, err)
        if way == "dump":
            return out, existing
        if way in {"dump tar", "export to a stream"}:
            return member(out), existing
        if way == "export":
            archive = target / "archive.tar"
            assert [path.name for path in target.iterdir() if path.name.startswith(".")] == []
            return member(archive.read_bytes()) if archive.exists() else None, existing
        assert {path.name for path in target.iterdir()} <= {"long", "short"}
        return (target / "long").read_bytes() if (target / "long").exists() else None, existing

    return go


def member(archive):
    """Returns the content of the long file in an archive, as far as it goes; None where it is not in it."""
    if not archive:
        return None
    with contextlib.suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(archive), mode="r|") as found:
        for item in found:
            if item.name.endswith("long"):
                return archive[item.offset_data : item.offset_data + item.size]
    return None


def check(way, content, found, existing):
    """Says no where something is there that was not backed up."""
    if way == "restore over":
        assert found == existing, "it is what it was"
    elif way == "restore in place":
        assert found != content
        pairs = zip(content, existing, strict=False)
        assert all(byte in pair for byte, pair in zip(found, pairs, strict=False)), "each piece is right, or as it was"
    elif way in {"dump", "dump tar", "export to a stream"}:
        assert found is None or len(found) < len(content)
        assert content.startswith(found or b"")
    else:
        assert found is None


@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_what_was_backed_up(take, saved, way):
    """Without harm: otherwise the others prove nothing."""
    snapshot, content = saved
    assert take(way, snapshot, {0})[0] == content


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_chunk_is_not_handed_over(take, saved, repository, way):
    """Its seal does not open."""
    snapshot, content = saved
    for pack in repository.glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 1
        if len(data) > 1_000_000:
            pack.chmod(0o600)
            pack.write_bytes(data)
    found, existing = take(way, snapshot, {4})
    check(way, content, found, existing)


@pytest.mark.parametrize("way", WAYS)
def test_a_forged_chunk_is_not_handed_over(take, saved, monkeypatch, way):
    """It opens, since who made it has the key, and has other bytes than its id says."""
    snapshot, content = saved
    opened = ChunkSource._block

    def forged(source, pack, block):
        return opened(source, pack, block).replace(MARK, MARK.upper())

    monkeypatch.setattr(ChunkSource, "_block", forged)
    found, existing = take(way, snapshot, {4})
    assert MARK.upper() not in (found or b"")
    assert MARK not in (found or b""), "its piece is not handed over in another form either"
    check(way, content, found, existing)


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("how", ["damaged", "another's"])
@pytest.mark.parametrize("way", WAYS)
def test_a_manifest_that_is_not_the_snapshots_hands_nothing_over(
    take, saved, repository, cli, place, monkeypatch, way, how, knows
):
    """Damaged, or sealed for another name: whoever knows the right one may go on with it, nobody with this one."""
    snapshot, content = saved
    (place / "source" / "long").write_bytes(b"x" * 2_000_000)
    other = cli("snapshot", place / "source")["snapshot"]
    manifest = repository / "pending" / snapshot
    data = bytearray(manifest.read_bytes())
    data[100] ^= 1
    manifest.chmod(0o600)
    manifest.write_bytes(bytes(data) if how == "damaged" else (repository / "pending" / other).read_bytes())
    if knows:
        found, existing = take(way, snapshot, {0, 1, 4})
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", str(place / "fresh"))
        found, existing = take(way, snapshot, {1, 4})
    before = existing if way in {"restore over", "restore in place"} else b"" if way == "dump" else None
    assert found in ([content, before] if knows else [before])


@pytest.mark.parametrize("way", WAYS)
def test_a_log_that_was_rolled_back_hands_nothing_over(take, saved, cli, place, repository, way):
    """Not even what is whole, and of a snapshot that is there still, unless that is said to be known."""
    snapshot, _ = saved
    shutil.copytree(repository, place / "before")
    (place / "source" / "short").write_bytes(b"changed")
    cli("snapshot", place / "source")
    shutil.rmtree(repository)
    (place / "before").rename(repository)
    found, existing = take(way, snapshot, {4})
    assert found == (existing if way in {"restore over", "restore in place"} else b"" if way == "dump" else None)
    if way.startswith("restore"):
        assert not (place / "target" / "short").exists()
