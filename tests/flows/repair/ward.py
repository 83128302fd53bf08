"""A repository to damage and repair: what every snapshot must hold, and what may be lost of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from respaldo.api.naming import Found, root_entry, walk
from respaldo.api.repairing import diagnose
from respaldo.backend.base import Backend
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import pin, put_in_trash
from respaldo.catalog.snapshots import Snapshot, load
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import ChunkId, Kind, PackName, SnapshotId, parse_hash_leaf
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.result import VerifyResult
from respaldo.flows.check.run import run_verify
from respaldo.flows.repair.options import RepairOptions, RepairResult
from respaldo.flows.repair.run import Repair
from respaldo.format.content import HOLE
from respaldo.format.pack import Footer
from respaldo.store.packs import read_footer
from respaldo.store.repo import Repo
from tests.protocol.scene import (
    Kept,
    back_up,
    change_tree,
    copy_cache,
    make_repository,
    open_repository,
    snapshot_of,
    write_tree,
)

EVERYTHING = RepairOptions(read_data=True)
LOST = b"(lost)"
State = dict[tuple[int, bytes], bytes]
"""Content by time of snapshot and path; of a directory or file that is lost, `LOST`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ward:
    """Is a sound repository: its objects, a cache, its snapshots by age, and all that they hold."""

    folder: Path
    source: Path
    cache: Path
    objects: dict[str, bytes]
    snapshots: tuple[SnapshotId, ...]
    state: State

    def backend(self, **changed: bytes) -> MemoryBackend:
        """Returns a repository of one's own to damage."""
        backend = MemoryBackend()
        for name, content in (self.objects | changed).items():
            backend.damage(name, content)
        return backend

    def names(self, folder: str) -> list[str]:
        """Returns the names of all objects of a folder."""
        return sorted(name for name in self.objects if name.startswith(folder + "/"))

    def copy_of_cache(self, name: str = "same") -> Path:
        """Returns the cache as it was."""
        return copy_cache(self.cache, self.folder / name)


def lay(folder: Path, *, length_bytes: int = 3000, long_bytes: int = 40_000) -> Ward:
    """Makes the repository: three snapshots of a tree that changes, the first pinned, the second in the trash."""
    source, cache = folder / "source", folder / "cache"
    write_tree(source, 1, files=9, length_bytes=length_bytes)
    (source / "a" / "long").write_bytes(os.urandom(long_bytes))
    backend = MemoryBackend()
    make_repository(backend)
    made = []
    for number in range(3):
        with open_repository(Kept(backend), cache) as repo:
            options = BackupOptions(
                host="host", user="user", program="test", label=f"label {number}", tags=("tag",), kind="daily",
                time_ns=1_700_000_000_000_000_000 + number,
            )  # fmt: skip
            made.append(snapshot_of(back_up(repo, source, options=options)))
        change_tree(source, number)
    with open_repository(Kept(backend), cache) as repo:
        repo.synchronise()
        pin(repo, made[0], "the first")
        put_in_trash(repo, made[1], 10**18)
        state = read_all(repo)
    return Ward(
        folder=folder,
        source=source,
        cache=cache,
        objects=backend.snapshot(),
        snapshots=tuple(made),
        state=state,
    )


def entries(repo: Repo, item: Snapshot) -> list[tuple[bytes, Entry]]:
    """Returns everything that a snapshot holds, with the marks of what is still lost."""
    trees = TreeReader(repo.source)
    found = Found(snapshot=item, path=b"/", entry=root_entry(item))
    return list(walk(trees, found, recursive=True))


def read_all(repo: Repo) -> State:
    """Reads every file of every snapshot."""
    trees = TreeReader(repo.source)
    state: State = {}
    for item in load(repo).snapshots:
        time_ns = item.manifest.time_ns
        if item.manifest.root_lost and not repo.source.has(item.manifest.root):
            state[time_ns, b"/"] = LOST
            continue
        for path, entry in entries(repo, item):
            assert (time_ns, path) not in state, "a snapshot is there twice"
            if entry.mark is Mark.LOST and not (entry.is_dir and repo.source.has(ChunkId(entry.content.ids))):
                state[time_ns, path] = LOST
            elif entry.is_regular:
                state[time_ns, path] = content_of(repo, trees, entry)
    return state


def content_of(repo: Repo, trees: TreeReader, entry: Entry) -> bytes:
    """Returns a file's bytes, each chunk checked."""
    if not entry.content.level:
        return b"".join(repo.source.get(Kind.DATA, chunk_id) for chunk_id in entry.content)
    return b"".join(
        bytes(row.length) if row.id == HOLE else repo.source.get(Kind.DATA, row.id)
        for row in trees.list_rows(entry.content)
    )


def verify(backend: Backend, cache: Path, *, read_data: bool = True) -> VerifyResult:
    """Checks a repository."""
    with open_repository(Kept(backend), cache) as repo:
        return run_verify(repo, VerifyOptions(read_data=read_data), progress=Silent(), cancel=Cancel())


def repair_in(repo: Repo, options: RepairOptions = EVERYTHING) -> RepairResult:
    """Looks, plans and repairs."""
    found = diagnose(repo, options, progress=Silent(), cancel=Cancel())
    repair = Repair(repo, found, options, cancel=Cancel())
    return repair.execute(repair.plan(), progress=Silent(), cancel=Cancel())


def repair(backend: Backend, cache: Path, options: RepairOptions = EVERYTHING) -> RepairResult:
    """Opens a repository and repairs it."""
    with open_repository(Kept(backend), cache) as repo:
        return repair_in(repo, options)


def state_of(backend: Backend, cache: Path) -> State:
    """Opens a repository and reads everything."""
    with open_repository(Kept(backend), cache) as repo:
        repo.synchronise(lenient=True)
        return read_all(repo)


def is_lost(path: tuple[int, bytes], state: State) -> bool:
    """Whether a path, or a directory above it, is marked as lost."""
    time_ns, name = path
    above = [name[:at] for at in range(len(name)) if name[at : at + 1] == b"/"]
    return any(state.get((time_ns, each or b"/")) == LOST for each in (*above, name))


def differs(now: State, before: State) -> set[tuple[int, bytes]]:
    """Returns the paths that are lost; anything else that is not as it was is an error."""
    assert not [path for path, content in now.items() if content != LOST and before.get(path) != content]
    missing = {path for path in before if now.get(path) != before[path]}
    assert not [path for path in missing if not is_lost(path, now)]
    return missing


def footer_of(ward: Ward, name: str) -> Footer:
    """Returns the footer of a sound pack."""
    with open_repository(Kept(ward.backend()), ward.copy_of_cache("footers")) as repo:
        pack = PackName(parse_hash_leaf(name.partition("/")[2]) or b"")
        return read_footer(repo.backend, repo.vault, pack, len(ward.objects[name]))[0]


def flipped(content: bytes, at: int) -> bytes:
    """Returns bytes with one bit changed."""
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def block_of(ward: Ward, wanted: Callable[[Kind], bool]) -> tuple[str, int]:
    """Returns a pack and the offset of the middle of a block whose kind is wanted, of a pack that has others, too."""
    for name in ward.names("packs"):
        footer = footer_of(ward, name)
        for number, block in enumerate(footer.blocks):
            if wanted(Kind(block.kind)) and len(footer.blocks) > 1:
                return name, footer.offsets[number] + block.sealed_length // 2
    raise AssertionError("there is no such block")
