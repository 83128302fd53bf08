"""Measures the local index at scale: a repository of millions of chunks, of which only what is listed exists.

Segments are real and sealed; packs are sparse files of the length that their segment gives, so that listing works and
nothing else takes space. Every step runs in a process of its own, whose anonymous memory is sampled; a key file opens
the repository, so that Argon2 is not in the figures.

python benches/scale.py [--chunks N ...] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

from respaldo.backend.local import LocalBackend
from respaldo.codec.slots import STANDARD, Secret
from respaldo.core.seams import SystemClock, system_random
from respaldo.format.config import Config
from respaldo.format.pack import BlockRow, Footer
from respaldo.format.segment import Listed, Segment
from respaldo.store.making import create
from respaldo.store.repo import Repo
from respaldo.store.segments import SEGMENT_FOOTER_BYTES

CHUNKS_IN_PACK = 500
CHUNKS_IN_BLOCK = 16
CHUNK_BYTES = 64 << 10
SAMPLE_S = 0.004
_KEY = bytes(range(32))


def build(folder: Path, chunks: int) -> None:
    """Makes a repository with so many chunks."""
    secret = Secret(key=_KEY)
    backend = LocalBackend(folder / "repository", create=True)
    config = Config(chunker=(16384, 65536, 262144, 1 << 58, 1 << 60))
    create(
        backend, secret=secret, kdf=STANDARD, config=config, clock=SystemClock(), random=system_random, label="scale"
    )
    source = random.Random(chunks)
    with Repo.open(backend, secret, cache_dir=folder / "maker", clock=SystemClock(), random=system_random) as repo:
        part: list[Listed] = []
        held = 0
        for first in range(0, chunks, CHUNKS_IN_PACK):
            listed = _pack(folder / "repository", source, min(CHUNKS_IN_PACK, chunks - first))
            part.append(listed)
            held += len(listed.footer)
            if held >= SEGMENT_FOOTER_BYTES or first + CHUNKS_IN_PACK >= chunks:
                name, data = repo.vault.seal_segment(Segment(session=b"s" * 16, packs=tuple(part)).encode())
                backend.put(f"segments/{name.hex()}", [data])
                part, held = [], 0
    shutil.rmtree(folder / "maker")


def _pack(repository: Path, source: random.Random, chunks: int) -> Listed:
    rows = []
    for first in range(0, chunks, CHUNKS_IN_BLOCK):
        count = min(CHUNKS_IN_BLOCK, chunks - first)
        raw = count * CHUNK_BYTES
        rows.append(BlockRow(1, raw, raw, count, source.randbytes(32)))
    footer = Footer(
        session=b"s" * 16,
        body_hash=source.randbytes(32),
        blocks=tuple(rows),
        ids=source.randbytes(32 * chunks),
        lengths=array("I", [CHUNK_BYTES]) * chunks,
    )
    name = source.randbytes(32)
    length = footer.body_length + (64 << 10)
    path = repository / "packs" / name.hex()[:2] / name.hex()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(length)
    return Listed(pack=name, length_bytes=length, footer=footer.encode())


def run(command: list[str], **environment: str) -> dict[str, float]:
    """Runs a command; returns wall and CPU seconds and the peaks of RssAnon and RSS in MiB, sampled."""
    start = time.perf_counter()
    # As an installed program runs: with its modules compiled once, not at every start.
    around = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, env=around | environment, stdout=subprocess.DEVNULL)
    anonymous = resident = 0
    status = Path(f"/proc/{process.pid}/status")
    while True:
        pid, code, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        for line in status.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "RssAnon":
                anonymous = max(anonymous, int(value.split()[0]))
            elif name == "VmRSS":
                resident = max(resident, int(value.split()[0]))
        time.sleep(SAMPLE_S)
    process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "wall_s": round(time.perf_counter() - start, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "anonymous_mib": round(anonymous / 1024, 1),
        "resident_mib": round(resident / 1024, 1),
    }


_SYNCHRONISE = """
import sys, time, pathlib
from respaldo.backend.local import LocalBackend
from respaldo.codec.slots import Secret
from respaldo.core.seams import SystemClock, system_random
from respaldo.store.repo import Repo
folder = pathlib.Path(sys.argv[1])
t0 = time.process_time()
with Repo.open(LocalBackend(folder / "repository"), Secret(key=bytes(range(32))), cache_dir=folder / "cache",
               clock=SystemClock(), random=system_random) as repo:
    t1 = time.process_time()
    repo.synchronise()
    t2 = time.process_time()
    assert not repo.damaged, repo.damaged[:3]
    print(f"opened in {t1 - t0:.3f} CPU s, synchronised in {t2 - t1:.3f} CPU s", file=sys.stderr)
"""


def measure(folder: Path, chunks: int) -> dict[str, object]:
    """Builds a repository and measures a new client, one that is up to date, and tiny snapshots."""
    build(folder, chunks)
    key = folder / "key"
    tree = folder / "tree"
    tree.mkdir()
    (tree / "one").write_text("one\n")
    (tree / "two").write_text("two\n")
    places = {
        "RESPALDO_REPOSITORY": str(folder / "repository"),
        "RESPALDO_CACHE_DIR": str(folder / "cache"),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    key.write_text(_KEY.hex() + "\n")
    key.chmod(0o600)
    respaldo = [sys.executable, "-m", "respaldo"]
    with_key = ["--key-file", str(key)]
    synchronise = [sys.executable, "-c", _SYNCHRONISE, str(folder)]
    found: dict[str, object] = {"chunks": chunks}
    found["rebuild"] = run(synchronise)
    found["up to date"] = run(synchronise)
    found["snapshots"] = run([*respaldo, "snapshots", *with_key], **places)
    found["tiny snapshot"] = run([*respaldo, "snapshot", *with_key, str(tree)], **places)
    (tree / "two").write_text("three\n")
    found["tiny snapshot again"] = run([*respaldo, "snapshot", *with_key, str(tree)], **places)
    shown = subprocess.run(
        [*respaldo, "stats", "--brief", "--json", *with_key], env=os.environ | places, check=True, capture_output=True
    )
    stats = json.loads(shown.stdout)
    for name in ("index_bytes", "cached_bytes"):
        found[name + " a chunk"] = round(stats.get(name, 0) / chunks, 2)
    return found


def main() -> None:
    """Runs what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="*", default=[1_000_000, 5_000_000, 20_000_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    for chunks in options.chunks:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="respaldo-scale-") as made:
            results.append(measure(Path(made), chunks))
        for name, value in results[-1].items():
            sys.stdout.write(f"{name}: {value}\n")
        sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
