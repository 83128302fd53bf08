"""One snapshot out of many, whose files lie in the packs of all: blocks are opened a few times, not for each file."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections import Counter

import pytest

from respaldo.api.making import init
from respaldo.api.opening import open_repository
from respaldo.api.places import Places
from respaldo.codec.slots import Secret
from respaldo.core.ids import Kind
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.restore.options import RestoreOptions
from respaldo.store import fetch, source

SECRET = Secret(key=bytes(32))
SNAPSHOTS = 12
FOLDERS = 12


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A repository in which the files of each directory of the last snapshot lie in as many packs as there are."""
    top = tmp_path_factory.mktemp("scattered")
    location, places = str(top / "repository"), Places(cache_dir=top / "cache", state_dir=top / "state")
    tree = top / "tree"
    draw = random.Random(1)
    for folder in range(FOLDERS):
        (tree / f"{folder:02}").mkdir(parents=True)
    init(location, SECRET, places=places)
    with open_repository(location, SECRET, places=places, writes=True) as opened:
        for number in range(SNAPSHOTS):
            for folder in range(FOLDERS):
                (tree / f"{folder:02}" / f"{number:02}").write_bytes(draw.randbytes(3000 + 7 * folder))
            opened.backup([os.fsencode(tree)], BackupOptions(host="host"), progress=Silent(), cancel=Cancel())
    return location, places, tree


@pytest.fixture
def opened_blocks(monkeypatch):
    """Counts, of blocks with data, how often each is opened, where memory holds three of them."""
    monkeypatch.setattr(fetch, "KEPT_BYTES", 150_000)
    opened: Counter[tuple[int, int]] = Counter()
    block = source.ChunkSource.block

    def counted(self, pack, number, **options):
        if self._opened(pack).footer.blocks[number].kind == Kind.DATA:
            opened[pack, number] += 1
        return block(self, pack, number, **options)

    monkeypatch.setattr(source.ChunkSource, "block", counted)
    return opened


def contents(tree):
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_a_restore_opens_scattered_blocks_a_few_times(scene, opened_blocks, tmp_path):
    """Of 144 files in 12 blocks, which come up in turns, a block is opened three times at most, on average."""
    location, places, tree = scene
    with open_repository(location, SECRET, places=places) as opened:
        found = opened.find(f"latest:{tree}")
        target = os.fsencode(tmp_path / "target")
        result = opened.restore(found, target, RestoreOptions(), progress=Silent(), cancel=Cancel())
    assert result.exit_status == 0
    assert contents(tmp_path / "target") == contents(tree)
    assert len(opened_blocks) == SNAPSHOTS
    assert sum(opened_blocks.values()) <= 3 * SNAPSHOTS


def test_an_export_opens_scattered_blocks_a_few_times(scene, opened_blocks):
    """The same of an archive, whose members have to come in their order."""
    location, places, tree = scene
    archive = io.BytesIO()
    with open_repository(location, SECRET, places=places) as opened:
        done = opened.looking.export(opened.find(f"latest:{tree}"), "tar", archive.write, progress=Silent())
    assert done.exit_status == 0
    with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as members:
        found = {name.removeprefix("./"): members.extractfile(name) for name in members.getnames()}
        assert {name: file.read() for name, file in found.items() if file} == contents(tree)
    assert sum(opened_blocks.values()) <= 3 * SNAPSHOTS
