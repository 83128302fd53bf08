"""The golden repository: a small one of every format version, kept as it was written, and what is in it.

python -m tests.golden.repository --regenerate

writes the one of the present version anew, which is a change of the format and comes with an ADR. Older ones are never
written again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from respaldo.api import BackupOptions, Places, Secret, init, open_repository
from respaldo.core.ids import AES_256_GCM, SUITES, XCHACHA20_POLY1305
from respaldo.core.seams import Cancel, Silent

FOLDER = Path(__file__).parent
ARCHIVES = {
    AES_256_GCM: FOLDER / "repository-1.tar",
    XCHACHA20_POLY1305: FOLDER / "repository-1-xchacha.tar",
}
CONTENTS = FOLDER / "repository-1.json"
PASSPHRASE = "correcto caballo batería grapa"  # noqa: S105 - opens nothing but this fixture
MTIME_NS = 1_600_000_000_123_456_789


def make_source(source: Path) -> None:
    """Makes a tree with what every file system has: a list with a hole, a hard link, odd names, old times."""
    chance = random.Random(11)
    (source / "directory" / "empty").mkdir(parents=True)
    (source / "text").write_text("hola\n" * 500)
    (source / "nothing").touch()
    (source / "directory" / "chunks").write_bytes(b"".join(bytes([n % 251]) * 64 for n in range(12_000)))
    with (source / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(chance.randbytes(5_000))
        file.truncate(3 << 20)
    (source / "link").symlink_to("directory/chunks")
    os.link(source / "text", source / "directory" / "twin")
    Path(os.fsdecode(bytes(source) + b"/caf\xe9")).write_bytes(b"not UTF-8")
    (source / "text").chmod(0o640)
    for path in sorted(source.rglob("*"), reverse=True):
        os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)


def describe(root: Path) -> dict[str, list[object]]:
    """Returns what there is below a directory: type and mode, size, time, hash of the content or target."""
    found: dict[str, list[object]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        what = ""
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        name = ascii(str(path.relative_to(root)))
        size = 0 if path.is_dir() else status.st_size
        found[name] = [oct(status.st_mode), size, status.st_mtime_ns, what]
    return found


def regenerate(suite: str) -> None:
    """Writes archive and contents anew."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        source, repository = scratch / "source", scratch / "repository"
        source.mkdir()
        make_source(source)
        secret = Secret(passphrase=PASSPHRASE.encode())
        places = Places(cache_dir=scratch / "cache", state_dir=scratch / "state")
        init(str(repository), secret, places=places, label="golden", suite=suite)
        with open_repository(str(repository), secret, places=places, writes=True) as opened:
            options = BackupOptions(host="golden", recorded_as=b"/golden")
            opened.backup([bytes(source)], options, progress=Silent(), cancel=Cancel())
        with tarfile.open(ARCHIVES[suite], "w") as archive:
            archive.add(repository, arcname="repository")
        CONTENTS.write_text(json.dumps(describe(source), indent=1, sort_keys=True) + "\n")
        shutil.rmtree(repository)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regenerate", choices=SUITES)
    suite = parser.parse_args().regenerate
    if not suite:
        sys.exit("nothing done: --regenerate SUITE writes a golden repository anew")
    regenerate(suite)
