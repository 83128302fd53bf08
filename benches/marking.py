"""Measures what marking costs a collector: CPU a chunk and memory, by the order in which files refer to chunks.

The repository is that of `benches.scale`: real segments, packs that are only listed. Beside it lies one snapshot of
long files, whose lists and tree are real: in the order in which chunks were stored, or in runs of a length whose order
is drawn (1: every chunk for itself). A process of its own, whose index is up to date, marks once.

python -m benches.marking [--chunks N ...] [--runs N ...] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import stat
import sys
import tempfile
from array import array
from pathlib import Path

from benches import scale
from respaldo.backend.local import LocalBackend
from respaldo.catalog.runs import put_tree
from respaldo.catalog.snapshots import decide, forget, put_pending
from respaldo.catalog.trees import ListBuilder
from respaldo.codec.slots import Secret
from respaldo.core.ids import CHUNK_ID_BYTES, RANDOM_ID_BYTES, SnapshotId
from respaldo.core.seams import SystemClock, system_random
from respaldo.format.pack import parse_footer
from respaldo.format.snapshot import Figures, Manifest, Verdict
from respaldo.format.tree import META, Leaf
from respaldo.store.chunks import ChunkSink
from respaldo.store.repo import Repo

STORED = 0
"""The length of runs that stands for the order in which chunks were stored."""
CHUNKS_IN_FILE = 100_000


def opened(folder: Path) -> Repo:
    """Opens the repository."""
    return Repo.open(
        LocalBackend(folder / "repository"),
        Secret(key=bytes(range(32))),
        cache_dir=folder / "cache",
        clock=SystemClock(),
        random=system_random,
    )


def order(chunks: int, run: int) -> array[int]:
    """Returns the numbers of all chunks in the order in which files refer to them."""
    if run == STORED:
        return array("I", range(chunks))
    firsts = array("I", range(0, chunks, run))
    random.Random(run).shuffle(firsts)
    return array("I", (number for first in firsts for number in range(first, min(first + run, chunks))))


def take(repo: Repo, ids: bytes, numbers: array[int]) -> SnapshotId:
    """Makes a snapshot of files that refer to chunks."""
    session = system_random(RANDOM_ID_BYTES)
    sink = ChunkSink(
        backend=repo.backend,
        vault=repo.vault,
        index=repo.index,
        id_keys=repo.ring.id_keys,
        session=session,
        block_bytes=repo.config.block_bytes,
        pack_bytes=repo.config.pack_bytes,
    )
    names, meta, content, levels = [], [], [], {}
    for row, first in enumerate(range(0, len(numbers), CHUNKS_IN_FILE)):
        builder = ListBuilder(sink)
        for number in numbers[first : first + CHUNKS_IN_FILE]:
            builder.add(ids[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES], scale.CHUNK_BYTES)
        found = builder.finish()
        names.append(b"%08d\0" % row)
        meta.append(META.pack(stat.S_IFREG | 0o600, 0, 0, 0, builder.length, 0, 0))
        content.append(found.ids)
        levels[row] = found.level, len(found.ids) // CHUNK_ID_BYTES
    leaf = Leaf(names=b"".join(names), meta=b"".join(meta), content=b"".join(content), levels=levels)
    root = put_tree(sink, leaf, bytes(32))
    sink.flush()
    repo.put_segments(session, sink.unlisted)
    sink.close()
    manifest = Manifest(
        session=session,
        root=root,
        sources=(b"/",),
        time_ns=(now_ns := repo.clock.now_ns()),
        started_ns=now_ns,
        ended_ns=now_ns,
        host="granja",
        user="ana",
        uid=1000,
        figures=Figures(files=len(names)),
    )
    snapshot = SnapshotId(system_random(RANDOM_ID_BYTES))
    decide(repo, snapshot, Verdict.COMMIT, put_pending(repo, snapshot, manifest))
    return snapshot


_MARK = """
import json, sys, time, pathlib
from benches.marking import opened
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc.mark import Mark
with opened(pathlib.Path(sys.argv[1])) as repo:
    repo.synchronise()
    start_s = time.process_time()
    mark = Mark(repo, progress=Silent(), cancel=Cancel())
    mark.update()
    cpu_s = time.process_time() - start_s
    live = sum(mark.live.number(number).bit_count() for number in mark.live.rows)
    found = {"references": mark.references, "live": live, "cpu_s": cpu_s, "us_a_chunk": cpu_s * 1e6 / mark.references}
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
"""


def measure(folder: Path, chunks: int, runs: list[int]) -> list[dict[str, float]]:
    """Builds a repository and marks it, referred to in each order."""
    scale.build(folder, chunks)
    with opened(folder) as repo:
        repo.synchronise()
        ids = b"".join(parse_footer(repo.index.footer(pack.number), "pack").ids for pack in repo.index.packs())
    results = []
    for run in runs:
        with opened(folder) as repo:
            repo.synchronise()
            snapshot = take(repo, ids, order(chunks, run))
        found = folder / "found"
        used = scale.run([sys.executable, "-c", _MARK, str(folder), str(found)])
        results.append({"chunks": chunks, "run": run, **json.loads(found.read_text()), **used})
        if results[-1]["references"] != chunks or results[-1]["live"] < chunks:
            raise SystemExit(f"not everything was marked: {results[-1]}")
        sys.stdout.write(f"{results[-1]}\n")
        sys.stdout.flush()
        with opened(folder) as repo:
            forget(repo, snapshot)
    return results


def main() -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="*", default=[1_000_000, 20_000_000])
    parser.add_argument("--runs", type=int, nargs="*", default=[STORED, 50, 5, 1])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for chunks in options.chunks:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="respaldo-marking-") as made:
            results += measure(Path(made), chunks, options.runs)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
