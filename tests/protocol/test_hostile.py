"""The server is the adversary: it swaps, replays, splices, hides and invents objects.

Whatever it does, a reader gets the content that was stored, or `Corruption` that names the object, or is told that
something is missing; never other content. What decay alone can do is covered elsewhere: here the server keeps every
checksum that needs no key in order.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from dataclasses import dataclass, replace

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load, outcome_name, pending_name
from respaldo.codec.slots import STANDARD
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, RespaldoError, WrongSecret
from respaldo.core.ids import PackName, SnapshotId
from respaldo.core.seams import system_random
from respaldo.format.header import parse_header
from respaldo.format.pack import TRAILER_BYTES, parse_footer
from respaldo.format.segment import Listed, Segment, parse_segment
from respaldo.format.snapshot import Condemnation, Marker
from respaldo.store.making import create
from respaldo.store.repo import Repo
from tests.protocol.scene import (
    CONFIG,
    SECRET,
    AheadClock,
    Files,
    back_up,
    below,
    change_tree,
    contents,
    fresh_cache,
    make_repository,
    memory_with,
    on_disk,
    open_repository,
    snapshot_of,
    write_tree,
)

FOLDERS = ("packs", "segments", "pending", "outcome", "condemned", "sessions", "config", "keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Is what a server holds of two repositories of one owner, and what is in the first one's two snapshots."""

    folder: object
    source: object
    objects: dict[str, bytes]
    other: dict[str, bytes]
    files: dict[SnapshotId, Files]
    in_order: tuple[SnapshotId, ...]
    cache: object

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self.objects if name.startswith(folder + "/"))

    def read(self, objects: dict[str, bytes], cache=None, backend: MemoryBackend | None = None) -> list[RespaldoError]:
        """Reads all there is; returns the errors that it met. Content that differs fails the test."""
        errors: list[RespaldoError] = []
        backend = backend or memory_with(objects)
        cache = cache or fresh_cache(self.folder / "reader")
        try:
            with open_repository(backend, cache) as repo:
                repo.synchronise(lenient=True)
                catalogue = load(repo)
                errors += repo.damaged + list(catalogue.damaged)
                for item in catalogue.snapshots:
                    assert item.id in self.files, "a snapshot that was never made"
                    try:
                        found = below(contents(repo, item.id, catalogue), self.source)
                    except RespaldoError as error:
                        errors.append(error)
                        continue
                    assert found == self.files[item.id], "other content than was stored"
        except RespaldoError as error:
            errors.append(error)
        return errors


@pytest.fixture(scope="module")
def server(quick):
    source, cache = quick / "hostile", quick / "hostile-cache"
    write_tree(source, 3)
    backend, other = MemoryBackend(), MemoryBackend()
    files: dict[SnapshotId, Files] = {}
    make_repository(backend)
    make_repository(other)
    for seed in (1, 2):
        with open_repository(backend, cache) as repo:
            files[snapshot_of(back_up(repo, source))] = on_disk(source)
            name = "condemned/" + f"{seed:032x}"
            if seed == 1:
                gone = Condemnation(collector=bytes(16), time_ns=1, packs=(PackName(bytes(32)),))
                backend.put(name, [repo.vault.seal_record("condemnation", name, gone.encode())])
                marker = "sessions/" + "00" * 16 + ".0"
                record = Marker(session=bytes(16), time_ns=1)
                backend.put(marker, [repo.vault.seal_record("marker", marker, record.encode())])
        change_tree(source, seed)
    with open_repository(other, quick / "other-cache") as repo:
        back_up(repo, source)
    return Server(
        folder=quick,
        source=source,
        objects=backend.snapshot(),
        other=other.snapshot(),
        files=files,
        in_order=tuple(files),
        cache=cache,
    )


def renamed(content: bytes) -> bytes:
    """Gives an object the closing hash that its bytes ask for: nothing that needs no key is wrong with it."""
    return content[:-32] + hashlib.sha256(content[:-32]).digest()


def test_reader_of_an_honest_server_meets_nothing(server):
    """The tests below begin with a repository that is sound."""
    assert server.read(server.objects) == []


@pytest.mark.parametrize(("one", "two"), list(itertools.permutations(FOLDERS, 2)))
def test_object_served_under_a_name_of_another_kind(server, one, two):
    """Bytes of one kind under the name of another are refused, or change nothing."""
    victim, source = server.names(one)[-1], server.names(two)[0]
    for content in (server.objects[source], renamed(server.objects[source])):
        errors = server.read({**server.objects, victim: content})
        if one in {"packs", "segments", "pending", "config"}:
            assert errors
        for error in errors:
            assert isinstance(error, (Corruption, WrongSecret, ChunkMissing, ObjectMissing))
            if isinstance(error, Corruption) and one != "packs":
                assert victim in error.name or "chunk" in error.name
    # Under a new name of that kind, beside what is there.
    leaf = hashlib.sha256(server.objects[source]).hexdigest()
    new = f"{one}/" + {"packs": leaf, "segments": leaf, "config": "00" * 8, "keys": "abc"}.get(one, leaf[:32])
    errors = server.read({**server.objects, new: server.objects[source]})
    assert all(isinstance(error, Corruption) for error in errors)


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["of this repository", "of another"])
def test_object_served_for_another_of_its_kind(server, folder, elsewhere):
    """Two objects of one kind, swapped, are refused or change nothing; so is one of another repository."""
    names = server.names(folder)
    if elsewhere:
        theirs = sorted(name for name in server.other if name.startswith(folder + "/"))
        swapped = {**server.objects, **{name: server.other[their] for name in names for their in theirs[:1]}}
    else:
        swapped = {
            **server.objects,
            **dict(zip(names, [server.objects[name] for name in reversed(names)], strict=True)),
        }
    errors = server.read(swapped)
    if swapped != server.objects and folder != "sessions":
        assert errors or folder == "outcome"
    if folder == "outcome" and swapped != server.objects:
        with open_repository(memory_with(swapped), fresh_cache(server.folder / "reader")) as repo:
            assert not load(repo).snapshots, "an outcome that is not its own decides nothing"
    if folder == "segments":  # footers are read from the packs themselves instead
        assert all("segments/" in error.name for error in errors)


def test_every_pack_under_every_other_name(server):
    """Packs that change places are found out by what their blocks commit to, with a cache and without."""
    for one, two in itertools.combinations(server.names("packs"), 2):
        swapped = {**server.objects, one: server.objects[two], two: server.objects[one]}
        assert server.read(swapped)
        assert server.read(swapped, server.cache)


def test_footer_of_one_pack_on_the_blocks_of_another(server):
    """A footer says what bytes it belongs to; blocks say which footer's they are."""
    with open_repository(memory_with(server.objects), fresh_cache(server.folder / "reader")) as repo:
        repo.synchronise()
        bodies = {}
        for pack in repo.index.packs():
            data = server.objects["packs/" + pack.name.hex()]
            at = parse_footer(repo.index.footer(pack.number), "pack").body_length
            bodies["packs/" + pack.name.hex()] = (data[:at], data[at:])
    for one, two in itertools.permutations(bodies, 2):
        body, end = bodies[one][0], bodies[two][1]
        spliced = body + end
        name = "packs/" + hashlib.sha256(spliced).hexdigest()
        without_segments = {key: value for key, value in server.objects.items() if not key.startswith("segments/")}
        for objects in (server.objects, without_segments):
            errors = server.read({**{key: value for key, value in objects.items() if key != one}, name: spliced})
            assert errors
            padded_body = (body + bytes(1 << 20))[: len(bodies[two][0])]
            errors = server.read({**objects, two: padded_body + end})
            assert errors
    for one, (body, end) in bodies.items():
        cut = body[: len(body) // 2] + end
        assert server.read({**server.objects, one: cut})
        assert len(end) > TRAILER_BYTES


def test_footer_is_not_taken_for_one_of_a_pack_of_the_same_length(server):
    """A segment may say anything of a pack: content is believed for its id alone."""
    with open_repository(memory_with(server.objects), fresh_cache(server.folder / "reader")) as repo:
        packs = [
            listed
            for name in server.names("segments")
            for listed in parse_segment(repo.vault.open_segment(server.objects[name], name), name).packs
        ]
        lying = Segment(
            session=bytes(16),
            packs=tuple(
                Listed(pack=one.pack, length_bytes=one.length_bytes, footer=two.footer)
                for one, two in zip(packs, reversed(packs), strict=True)
            ),
        )
        name, data = repo.vault.seal_segment(lying.encode())
    kept = {key: value for key, value in server.objects.items() if not key.startswith("segments/")}
    errors = server.read({**kept, "segments/" + name.hex(): data})
    assert errors
    assert all(isinstance(error, (Corruption, ChunkMissing, ObjectMissing)) for error in errors)


def test_outcome_replayed_for_another_snapshot(server):
    """An outcome decides the snapshot that it names and no other, under whatever name it is served."""
    one, two = server.in_order
    replayed = {**server.objects, outcome_name(two): server.objects[outcome_name(one)]}
    assert server.read(replayed) == []
    with open_repository(memory_with(replayed), fresh_cache(server.folder / "reader")) as repo:
        catalogue = load(repo)
        assert [item.id for item in catalogue.snapshots] == [one]
        assert catalogue.undecided == (two,)


def test_manifest_copied_to_a_new_snapshot(server):
    """A manifest under a new id, with its outcome copied along, is no snapshot."""
    new = SnapshotId(bytes(16))
    one = server.in_order[0]
    copied = {
        **server.objects,
        pending_name(new): server.objects[pending_name(one)],
        outcome_name(new): server.objects[outcome_name(one)],
    }
    with open_repository(memory_with(copied), fresh_cache(server.folder / "reader")) as repo:
        catalogue = load(repo)
        assert {item.id for item in catalogue.snapshots} == set(server.in_order)
        assert new in catalogue.undecided


def test_manifests_swapped(server):
    """Neither is the other."""
    one, two = map(pending_name, server.in_order)
    swapped = {**server.objects, one: server.objects[two], two: server.objects[one]}
    errors = server.read(swapped)
    assert {error.name for error in errors} == {one, two}
    assert all(isinstance(error, Corruption) for error in errors)


def test_header_replaced(server):
    """Under another header nothing opens; and who remembers the first one is told before anything is tried."""
    theirs = server.other["header"]
    replaced = {**server.objects, "header": theirs}
    (error,) = server.read(replaced)
    assert isinstance(error, WrongSecret)
    pinned = parse_header(server.objects["header"], "header").hash
    for objects in (replaced, server.other):
        with pytest.raises(Corruption, match="header"):
            Repo.open(
                memory_with(objects),
                SECRET,
                cache_dir=server.folder / "reader",
                clock=AheadClock(),
                random=system_random,
                pinned=pinned,
            )


def test_slot_replaced_or_weakened(server):
    """A slot of another repository opens nothing here, and one whose parameters were changed does not open."""
    (name,) = server.names("keys")
    theirs = next(value for key, value in server.other.items() if key.startswith("keys/"))
    (error,) = server.read({**server.objects, name: theirs})
    assert isinstance(error, WrongSecret)
    slot = server.objects[name]
    for at in range(0, len(slot) - 32, 7):
        changed = renamed(slot[:at] + bytes([slot[at] ^ 1]) + slot[at + 1 :])
        errors = server.read({**server.objects, name: changed})
        # All but the description is bound; that one may be lost without keeping anybody out.
        assert all(isinstance(error, (Corruption, WrongSecret)) for error in errors)
        assert all(not isinstance(error, Corruption) or error.name == name for error in errors)
    (error,) = server.read({**server.objects, "keys/elsewhere": slot, name: b"" + renamed(bytes(64))})
    assert isinstance(error, (Corruption, WrongSecret))


def test_old_configuration_replayed(server):
    """An old configuration under a new version's name is refused, and so is a new one under the old one's."""
    (name,) = server.names("config")
    new = "config/" + "0" * 15 + "2"
    (error,) = server.read({**server.objects, new: server.objects[name]})
    assert isinstance(error, Corruption)
    assert error.name == new
    with open_repository(memory_with(server.objects), fresh_cache(server.folder / "reader")) as repo:
        sealed = repo.vault.seal_record("config", new, replace(CONFIG, level=1).encode())
    assert server.read({**server.objects, new: sealed}) == []
    (error,) = server.read({**server.objects, name: sealed})
    assert error.name == name


class Lying(MemoryBackend):
    """Lists what it likes."""

    def __init__(self, objects: dict[str, bytes], change) -> None:
        super().__init__()
        self._objects = dict(objects)
        self._change = change

    def list(self, folder: str):
        return self._change(folder, super().list(folder))


def hidden_packs(folder, found):
    return [] if folder == "packs" else found


def half_of_the_packs(folder, found):
    return found[::2] if folder == "packs" else found


def foreign_objects(folder, found):
    return [*found, (f"{folder}/{'ab' * 32}", 70_000), (f"{folder}/{'cd' * 16}", 4096), (f"{folder}/{'ef' * 8}", 9)]


def absurd_names(folder, found):
    odd = ("", "/", "..", "../../etc/passwd", "a" * 500, "\0", "\x1b[31m", "É", "AB" * 32, "ab" * 32 + "/x", " ")
    return [*found, *((f"{folder}/{leaf}", 1) for leaf in odd), ("header", 5), ("nonsense", 0), ("packs", 1)]


def absurd_sizes(folder, found):
    rng = random.Random(1)
    return [(name, rng.choice((0, 1, -5, 87, 176, 177, 1 << 62, 1 << 200, size))) for name, size in found]


def names_twice(folder, found):
    return [*found, *((name, size + 1) for name, size in found)]


@pytest.mark.parametrize(
    "change", [hidden_packs, half_of_the_packs, foreign_objects, absurd_names, absurd_sizes, names_twice]
)
@pytest.mark.parametrize("cached", [False, True])
def test_listing_that_lies_gives_no_other_content(server, change, cached):
    """A listing may hide and invent: what is read is right, or missing, and no error is anything but one of ours."""
    cache = fresh_cache(server.folder / "lied-to")
    if cached:
        server.read(server.objects, cache)
    errors = server.read({}, cache, Lying(server.objects, change))
    assert all(isinstance(error, (Corruption, ChunkMissing, ObjectMissing)) for error in errors)
    # And once the server tells the truth again, all is there again, with the very cache that was lied to.
    assert server.read(server.objects, cache) == []


@pytest.mark.parametrize("change", [hidden_packs, half_of_the_packs, foreign_objects, absurd_sizes, names_twice])
def test_writer_that_is_lied_to_makes_whole_snapshots_or_none(server, change):
    """What a writer commits while a listing lies is whole when the listing does not."""
    backend = Lying(server.objects, change)
    cache = fresh_cache(server.folder / "lied-to")
    server.read(server.objects, cache)
    try:
        with open_repository(backend, cache) as repo:
            made = snapshot_of(back_up(repo, server.source))
    except RespaldoError:
        made = None
    with open_repository(memory_with(backend.snapshot()), fresh_cache(server.folder / "reader")) as repo:
        repo.synchronise()
        there = {item.id for item in load(repo).snapshots}
        assert there == set(server.in_order) | ({made} if made else set())
        for snapshot in there:
            files = below(contents(repo, snapshot), server.source)
            assert files == server.files.get(snapshot, on_disk(server.source))


def test_two_repositories_of_one_key_share_nothing(server):
    """The same passphrase or key file opens both, and still no object of one is one of the other."""
    backend = MemoryBackend()
    create(backend, secret=SECRET, kdf=STANDARD, config=CONFIG, clock=AheadClock(), random=system_random, label="")
    mixed = {**backend.snapshot(), **{name: data for name, data in server.objects.items() if "/" in name[4:]}}
    mixed["header"] = backend.snapshot()["header"]
    errors = server.read(mixed)
    assert errors
    assert all(isinstance(error, (Corruption, WrongSecret)) for error in errors)
