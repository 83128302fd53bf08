"""Processes that make snapshots of changing trees: one that is killed again and again, and several at once.

A program of its own, because it forks: a process that has loaded everything and has one thread forks for little, and
for nothing that other threads hold. It prints what it found as JSON; an exception is a snapshot that was lost.

Called as ``python -m tests.protocol.thrash`` with ``kill FOLDER KILLS SEED``, ``collect FOLDER KILLS SEED`` or ``race
FOLDER WRITERS ROUNDS CACHES SOURCES``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from respaldo.backend.local import LocalBackend
from respaldo.catalog.snapshots import forget, load
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.gc import run
from respaldo.flows.gc.options import PruneOptions
from respaldo.store.markers import Markers
from tests.protocol.scene import (
    Files,
    back_up,
    below,
    change_tree,
    committed,
    contents,
    make_repository,
    on_disk,
    open_repository,
    snapshot_of,
    write_tree,
)


class NoSync:
    """Syncs nothing: a process that is killed loses nothing that the kernel has."""

    def sync_file(self, fd: int) -> None:
        pass

    def sync_dir(self, fd: int) -> None:
        pass


class Said(NamedTuple):
    """Is a line of a child: what it was about to back up, or the snapshot that it had made of that."""

    word: str
    value: str


ENOUGH = 3
"""More than so many of each are wanted: snapshots reported, forgotten, collections, packs deleted and made by them."""


def digest(files: Files) -> str:
    """Returns what two equal sets of files, and no others, have in common."""
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()


def storage(folder: Path, *, create: bool = False) -> LocalBackend:
    return LocalBackend(folder / "repository", create=create, fsync=NoSync())


def writer(
    folder: Path, cache: str, source: Path, seed: int, rounds: int, say: Callable[[str, str], None], *, private: bool
) -> None:
    """Changes a source that is its own, makes a snapshot, and says so, again and again."""
    for number in range(rounds):
        if private:
            change_tree(source, seed + number)
            say("about", digest(on_disk(source)))
        with open_repository(storage(folder), folder / cache) as repo:
            made = snapshot_of(back_up(repo, source))
        say("done", made.hex())


def start(action: Callable[[Callable[[str, str], None]], None]) -> tuple[int, int]:
    """Forks a child that runs an action and writes lines into a pipe; returns its process id and the pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        os.close(reading)
        action(lambda word, value: os.write(writing, f"{word} {value}\n".encode()) and None)
        status = 0
    except BaseException as error:  # noqa: BLE001 - the parent is to know
        with contextlib.suppress(OSError):
            os.write(writing, f"failed {type(error).__name__}: {error}\n".encode().replace(b"\n", b" ") + b"\n")
    finally:
        os._exit(status)


def drain(pipe: int, heard: bytes = b"") -> list[Said]:
    """Reads what a child said to its end; a line that its death cut short says nothing."""
    with os.fdopen(pipe, "rb") as file:
        text = (heard + file.read()).rpartition(b"\n")[0].decode()
    return [Said(*line.split(" ", 1)) for line in text.splitlines() if " " in line]


def kill(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kills a writer so many times, at moments of chance, and looks what is there."""
    rng = random.Random(seed)
    source = folder / "source"
    write_tree(source, seed)
    make_repository(storage(folder, create=True))
    done: dict[str, str] = {}
    planned: set[str] = {digest(on_disk(source))}
    moments: dict[str, int] = {}
    for number in range(kills):
        first = rng.randrange(1 << 30)
        child, pipe = start(lambda say, first=first: writer(folder, "cache", source, first, 1000, say, private=True))
        heard = b""
        awaited = rng.choice((b"", b"about", b"done"))  # a moment at which it begins, or reads, or has just committed
        while awaited not in heard and select.select([pipe], [], [], 20)[0] and (more := os.read(pipe, 4096)):
            heard += more
        time.sleep(rng.random() ** 2 * 0.08)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        said = drain(pipe, heard)
        assert all(line.word != "failed" for line in said), said
        about = ""
        for line in said:
            if line.word == "about":
                about = line.value
                planned.add(about)
            else:
                done[line.value] = about
        cache = "cache" if number % 2 else "other cache"
        with open_repository(storage(folder), folder / cache) as repo:
            listing = repo.synchronise()
            assert not repo.damaged
            there = {snapshot.hex() for snapshot in committed(repo)}
            assert done.keys() <= there, "a snapshot that was reported is not there"
            left = storage_state(folder)
            moments[left] = moments.get(left, 0) + 1
            for snapshot in rng.sample(sorted(there), min(1, len(there))) + [line.value for line in said[-1:]]:
                if snapshot in there:
                    look(repo, folder, snapshot, done, planned)
            assert listing.packs.keys() >= {pack.name for pack in repo.index.packs()}
    with open_repository(storage(folder), folder / "last cache") as repo:
        repo.synchronise()
        catalogue = load(repo)
        assert done.keys() <= {item.hex for item in catalogue.snapshots}
        for item in catalogue.snapshots:
            look(repo, folder, item.hex, done, planned)
    return {
        "kills": kills,
        "reported": len(done),
        "snapshots": len(catalogue.snapshots),
        "undecided": len(catalogue.undecided),
        "moments": moments,
    }


def storage_state(folder: Path) -> str:
    """Says how far the writer had got that was killed last."""
    repository = folder / "repository"
    sessions = len(list((repository / "sessions").glob("*")))
    temporary = len(list(repository.rglob(".tmp-*")))
    pending, outcomes = (len(list((repository / name).glob("*"))) for name in ("pending", "outcome"))
    for path in {*(repository / "sessions").glob("*"), *repository.rglob(".tmp-*")}:
        path.unlink()
    found = ["in a file"] * (temporary > 0) + ["with a marker"] * (sessions > 0)
    key = folder / "undecided"
    before = int(key.read_text()) if key.exists() else 0
    key.write_text(str(pending - outcomes))
    return ", ".join(found + ["undecided"] * (pending - outcomes > before)) or "between snapshots"


def look(repo, folder: Path, snapshot: str, done: dict[str, str], planned: set[str]) -> None:
    """Reassembles a snapshot and compares it with what the writer saw before."""
    files = below(contents(repo, bytes.fromhex(snapshot)), folder / "source")
    found = digest(files)
    assert found == done.get(snapshot, found)
    assert found in planned, "a snapshot holds what no source ever held"


def race(folder: Path, writers: int, rounds: int, caches: str, sources: str) -> dict[str, object]:
    """Lets several writers make snapshots at once; looks at all of them."""
    make_repository(storage(folder, create=True))
    pipes: list[tuple[int, int, Path]] = []
    gate, go = os.pipe()
    for number in range(writers):
        source = folder / ("source" if sources == "same" else f"source{number}")
        if not source.exists():
            write_tree(source, 5 if sources == "same" else number % 2)  # some of what they hold is the same

        def action(say, number=number, source=source):
            os.close(go)
            os.read(gate, 1)
            cache = "cache" if caches == "same" else f"cache{number}"
            writer(folder, cache, source, 10 * (number % 2), rounds, say, private=sources != "same")

        pipes.append((*start(action), source))
    os.close(go)
    made: dict[str, tuple[str, Path]] = {}
    for child, pipe, source in pipes:
        said = drain(pipe)
        _, status = os.waitpid(child, 0)
        assert status == 0, said
        about = digest(on_disk(source))
        for line in said:
            if line.word == "about":
                about = line.value
            else:
                made[line.value] = (about, source)
    for cache in ("cache", "cache0", "last cache"):
        if cache == "last cache" or (folder / cache).exists():
            with open_repository(storage(folder), folder / cache) as repo:
                repo.synchronise()
                assert not repo.damaged
                catalogue = load(repo)
                assert {item.hex for item in catalogue.snapshots} == made.keys()
                assert not catalogue.undecided
                for item in catalogue.snapshots:
                    about, source = made[item.hex]
                    assert digest(below(contents(repo, item.id, catalogue), source)) == about
    assert len(made) == writers * rounds
    assert not storage(folder).litter()
    return {"snapshots": len(made)}


def forgetter(folder: Path, cache: str, seed: int, rounds: int, say: Callable[[str, str], None]) -> None:
    """Forgets a snapshot and says so, before and after, again and again."""
    rng = random.Random(seed)
    for _ in range(rounds):
        with open_repository(storage(folder), folder / cache) as repo:
            snapshots = load(repo).snapshots
            if len(snapshots) > 4:
                chosen = rng.choice(snapshots)
                say("about", chosen.hex)
                forget(repo, chosen.id)


def pruner(folder: Path, cache: str, seed: int, rounds: int, say: Callable[[str, str], None]) -> None:
    """Collects and says what it freed, again and again; every other time it heeds no marker."""
    rng = random.Random(seed)
    options = PruneOptions(repack_below=rng.choice((0.5, 0.95)))
    for number in range(rounds):
        if number % 2:
            run.read_markers = lambda _repo: Markers(alive=frozenset(), stale=())
        with open_repository(storage(folder), folder / cache) as repo:
            result = run.run_prune(repo, options, progress=Silent(), cancel=Cancel())
            assert not result.damages, result.damages
        say("done", f"{result.deleted_packs} {result.new_packs}")


def look_at_all(
    folder: Path, done: dict[str, tuple[str, Path]], forgotten: set[str], planned: dict[Path, set[str]]
) -> set[str]:
    """Verifies everything and compares every snapshot with what its writer saw; collects, and does so again."""
    for cache in ("cache3", "last cache"):
        with open_repository(storage(folder), folder / cache) as repo:
            result = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
            damages = [damage for damage in result.damages if not damage.name.startswith("sessions/")]
            assert not damages, list(map(str, damages))
            catalogue = load(repo)
            there = {item.hex for item in catalogue.snapshots}
            assert done.keys() - forgotten <= there, "a snapshot that was reported is not there"
            for item in catalogue.snapshots:
                source = Path(os.fsdecode(item.manifest.sources[0]))
                found = digest(below(contents(repo, item.id, catalogue), source))
                assert found == done.get(item.hex, (found, source))[0]
                assert found in planned[source], "a snapshot holds what no source ever held"
        if cache == "cache3":
            with open_repository(storage(folder), folder / cache) as repo:
                run.run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
    return there


def collect(folder: Path, kills: int, seed: int) -> dict[str, object]:
    """Kills two writers, a forgetter and two collectors, one at a time and at moments of chance; looks at all then.

    Whoever is killed is started again at once, with the cache that it left, so that all of them work all the time. At
    least so many kills, and on a busy machine as many more as it takes until each had time to do something.
    """
    rng = random.Random(seed)
    make_repository(storage(folder, create=True))
    sources = [folder / "one", folder / "two"]
    for number, source in enumerate(sources):
        write_tree(source, seed + number % 2)
    done: dict[str, tuple[str, Path]] = {}
    planned: dict[Path, set[str]] = {source: {digest(on_disk(source))} for source in sources}
    forgotten: set[str] = set()
    counts: dict[str, int] = dict.fromkeys(("deleted", "new", "reported", "forgotten", "collections"), 0)

    def act(role: int, first: int) -> Callable[[Callable[[str, str], None]], None]:
        cache = f"cache{role}"
        if role < 2:
            return lambda say: writer(folder, cache, sources[role], first, 1000, say, private=True)
        if role == 2:
            return lambda say: forgetter(folder, cache, first, 100_000, say)
        return lambda say: pruner(folder, cache, first, 100_000, say)

    def hear(role: int, said: list[Said]) -> None:
        about = ""
        for line in said:
            assert line.word != "failed" or "again and again" in line.value, said[-1]
            if role < 2 and line.word == "about":
                about = line.value
                planned[sources[role]].add(about)
            elif role < 2 and line.word == "done":
                done[line.value] = (about, sources[role])
                counts["reported"] += 1
            elif role == 2:
                forgotten.add(line.value)
                counts["forgotten"] += 1
            elif line.word == "done":
                counts["collections"] += 1
                counts["deleted"] += int(line.value.split()[0])
                counts["new"] += int(line.value.split()[1])

    actors = {role: start(act(role, rng.randrange(1 << 30))) for role in range(5)}
    killed = 0
    while killed < kills or (min(counts.values()) <= ENOUGH and killed < 10 * kills):
        time.sleep(0.02 + rng.random() ** 2 * 0.3)
        role = rng.choice((0, 1, 2, 3, 3, 4))
        child, pipe = actors[role]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
        hear(role, drain(pipe))
        actors[role] = start(act(role, rng.randrange(1 << 30)))
    for role, (child, pipe) in actors.items():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hear(role, drain(pipe))
    there = look_at_all(folder, done, forgotten, planned)
    return {"kills": killed, "snapshots": len(there), **counts}


def main() -> None:
    word, folder, *rest = sys.argv[1:]
    if word == "collect":
        found = collect(Path(folder), int(rest[0]), int(rest[1]))
    elif word == "kill":
        found = kill(Path(folder), int(rest[0]), int(rest[1]))
    else:
        found = race(Path(folder), int(rest[0]), int(rest[1]), rest[2], rest[3])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
