"""What storage sees of chunk lengths: nothing. Sealed, padded packs are all there is to see."""

from __future__ import annotations

import random

from respaldo.chunk.chunker import Chunker, ChunkerParams
from tests.flows.backup.world import World

FILE_BYTES = 600_000  # amid a step of padding, so that a chunk more or less moves nothing over its edge
STEP = 64 << 10


def seen_by_storage(path, content):
    """Backs up one file into a new repository; returns the folder and size of every object, and the chunk lengths."""
    path.mkdir()
    world = World(path)
    (world.source / "file").write_bytes(content)
    world.backup()
    sizes = sorted(
        (name.partition("/")[0], size)
        for folder in ("packs", "segments", "pending")
        for name, size in world.backend.list(folder)
    )
    chunker = Chunker(world.repo.ring.chunker_secret, ChunkerParams.standard())
    lengths = tuple(chunker.lengths(content, final=True))
    world.repo.close()
    return sizes, lengths


def test_sizes_of_objects_say_nothing_of_chunk_lengths(tmp_path):
    """Files of one size that are cut in many different ways look the same from outside."""
    source = random.Random("contents")
    seen = [seen_by_storage(tmp_path / str(turn), source.randbytes(FILE_BYTES)) for turn in range(6)]
    assert len({lengths for _, lengths in seen}) == len(seen)
    assert len({len(lengths) for _, lengths in seen}) > 1
    assert all(sizes == seen[0][0] for sizes, _ in seen), [sizes for sizes, _ in seen]
    assert all(size % (STEP if folder != "pending" else 4096) == 0 for folder, size in seen[0][0])
