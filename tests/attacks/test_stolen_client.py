"""What a stolen client machine can and cannot do: each row of the table in docs/format.md is tried here."""

from __future__ import annotations

import os
import stat
from array import array
from dataclasses import replace
from datetime import UTC

import pytest
from blake3 import blake3

from respaldo.api.blocks import restore_of
from respaldo.api.naming import resolve
from respaldo.api.retention import plan_retention
from respaldo.catalog.retention import Policy
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import announce_forgetting, list_pending, load
from respaldo.catalog.snapshots import forget as take_away
from respaldo.catalog.trees import TreeReader
from respaldo.codec.box import open_box
from respaldo.codec.seal import OVERHEAD_BYTES, associated_data, open_with
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.restore.options import RestoreOptions
from respaldo.flows.restore.run import run_restore
from respaldo.format.logbook import Entry, encode_object, object_name
from respaldo.format.pack import Footer, parse_footer
from respaldo.format.runrecord import parse_run
from respaldo.format.segment import Listed, Segment
from respaldo.format.snapshot import Condemnation, Marker, Outcome, Verdict
from respaldo.format.tree import META, Leaf
from respaldo.store.authority import ADMIN_PURPOSE, ENTRY_PURPOSE
from respaldo.store.header import read_header
from respaldo.store.vault import make_vault
from tests.attacks.thief import Thief
from tests.store.owners import Place, backup, content

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def place(tmp_path):
    """A client that has backed up once, before its machine was stolen."""
    found = Place(tmp_path)
    found.write(secret=b"what was there before " * 2000, other=os.urandom(60_000))
    return found


@pytest.fixture
def before(place):
    return place.backup()


@pytest.fixture
def thief(place, before):
    return Thief(place)


def forget(repo, snapshot):
    announce_forgetting(repo, [snapshot])
    take_away(repo, snapshot)


def verified(place, *, fresh=False):
    with place.opened(fresh=fresh) as repo:
        return run_verify(repo, VerifyOptions(), progress=Silent(), cancel=Cancel())


def is_whole(place, result, *, fresh=True):
    """Whether all of the snapshot from before is there, for an owner who has never seen it."""
    with place.opened(fresh=fresh) as repo:
        repo.synchronise(lenient=True)
        assert result.snapshot in {item.id for item in load(repo).snapshots}
        found = content(repo, result.manifest.root)
    return found == {"secret": b"what was there before " * 2000, "other": found["other"]}


# --- reading ---------------------------------------------------------------------------------------------------------


def test_reads_nothing_of_others(place, thief):
    """No key that can be made of the credential opens anything in the owner's repository."""
    with place.owner() as repo:
        backup(repo, place.source)
    objects = {name: data for name, data in place.owner_backend.snapshot().items() if name.startswith(("enr", "pend"))}
    assert {name.partition("/")[0] for name in objects} == {"enrolled", "pending"}
    assert not list(opened(thief, objects, place.owner_backend))


def opened(thief, objects, backend):
    """Yields what any ring of the thief's opens of some records."""
    header = read_header(backend)
    kinds = {"pending": "manifest", "outcome": "outcome", "log": "log", "enrolled": "client", "config": "config"}
    for ring in thief.rings():
        for name, data in objects.items():
            kind = kinds[name.partition("/")[0]]
            if kind not in ring.kinds:
                continue
            try:
                yield make_vault(ring, header, 3, os.urandom).open_record(kind, name, data)
            except Corruption:
                continue


def test_reads_nothing_of_its_own_past(place, thief):
    """Neither by a key of the credential nor from the boxes of runs that were; the keys are nowhere on the disk."""
    objects = {
        name: data
        for name, data in place.area.snapshot().items()
        if name.startswith(("pending/", "outcome/", "log/", "config/"))
    }
    assert len(objects) >= 4
    assert not list(opened(thief, objects, place.area))
    for name in thief.names("runs"):
        run = parse_run(place.area.get(name), name)
        assert run.grants == ()
        for seed in thief.keys:
            for purpose in ("root", "list", "restore"):
                with pytest.raises(Corruption):
                    open_box(seed, run.box, purpose=purpose, header_hash=place.header.hash, name=name)
    with place.opened() as repo:
        repo.area.known()
        keys = [known.root for known in repo.area._known.values()]
    assert keys
    machine = b"".join(path.read_bytes() for path in (place.path / "machine").rglob("*") if path.is_file())
    for key in keys:
        assert key not in machine
    assert b"what was there before" not in machine


def test_packs_open_under_nothing_that_it_has(place, thief):
    """Not even their trailers."""
    (name,) = thief.names("packs")
    trailer = place.area.get(name)[-16 - OVERHEAD_BYTES :]
    aad = associated_data(0, place.header.repository, "trailer", "", 16, place.header.suite)
    for ring in thief.rings():
        with pytest.raises(Corruption):
            open_with(ring.seal_key("trailer"), aad, trailer, name)


def test_learns_names_and_sizes_from_its_cache(place, thief):
    """What the machine backed up is on the machine anyway; its cache still says so when the files are gone."""
    machine = b"".join(path.read_bytes() for path in (place.path / "machine").rglob("*") if path.is_file())
    assert b"secret" in machine


# --- adding and forging ----------------------------------------------------------------------------------------------


def test_adds_snapshots(place, thief, before):
    """That is what the credential is for."""
    place.write(secret=b"encrypted by an extortionist")
    bad = place.backup(machine="elsewhere")
    assert {item.id for item in place.listed(fresh=True).snapshots} == {before.snapshot, bad.snapshot}
    assert is_whole(place, before)


def test_puts_another_snapshot_under_an_old_name(place, thief, before):
    """Whoever has seen the old one goes on seeing that; whoever has not is told by the log, which has its hash."""
    assert [item.id for item in place.listed().snapshots] == [before.snapshot]
    root = place.listed().snapshots[0].manifest.root
    thief.run(before.snapshot).snapshot(root, host="forged")
    assert place.listed().snapshots[0].manifest.host != "forged"
    assert f"pending/{before.snapshot.hex()}" in {damage.name for damage in verified(place).damages}
    with place.opened(fresh=True) as repo:
        (finding,) = repo.log.follow().findings
    assert "cannot be read" in finding  # the entry was sealed under the run that was written over


def test_writes_nothing_for_another_client(place, thief, tmp_path):
    """Its runs count in its own area only."""
    other = Place(tmp_path / "other")
    other.write(a=b"a")
    good = other.backup()
    run = thief.run()
    other.area.damage(f"runs/{run.session.hex()}", place.area.get(f"runs/{run.session.hex()}"))
    for name in ("pending", "outcome"):
        for object_name_ in thief.names(name):
            other.area.damage(object_name_, place.area.get(object_name_))
    assert [item.id for item in other.listed(fresh=True).snapshots] == [good.snapshot]


def test_replays_what_was(place, thief, before):
    """Old objects under new names are nothing: not a run, not a manifest, not an outcome."""
    fresh = os.urandom(16).hex()
    old = before.snapshot.hex()
    for folder in ("runs", "pending", "outcome"):
        place.area.damage(f"{folder}/{fresh}", place.area.get(f"{folder}/{old}"))
    catalogue = place.listed(fresh=True)
    assert [item.id for item in catalogue.snapshots] == [before.snapshot]


def test_shows_a_forgotten_snapshot_again(place, thief, before):
    """As any storage can that kept its objects: it is the old one, and takes no other's place."""
    kept = place.area.snapshot()
    place.write(secret=b"later")
    later = place.backup()
    with place.opened() as repo:
        forget(repo, before.snapshot)
    for name, data in kept.items():
        if before.snapshot.hex() in name:
            place.area.damage(name, data)
    assert {item.id for item in place.listed(fresh=True).snapshots} == {before.snapshot, later.snapshot}
    assert goes(place, "last", 1) == {before.snapshot}


def test_says_nothing_as_the_owner(place, thief, before):
    """An entry of the log that forgets or prunes takes the owner's key; without it, it is found out."""
    run = thief.run()
    entry = Entry(
        client=b"",
        number=0,
        previous=bytes(32),
        key=thief.signer.public,
        time_ns=5,
        verb="forget",
        subjects=(before.snapshot,),
    )
    entry = replace(entry, client=thief.client)
    message = entry.signed()
    entry = replace(
        entry,
        admin=thief.signer.sign(ADMIN_PURPOSE, place.header.hash, message),
        signature=thief.signer.sign(ENTRY_PURPOSE, place.header.hash, message),
    )
    run.record("log", object_name(entry.client, 0), encode_object([entry.encode()]))
    with place.opened() as repo:
        findings = repo.log.follow().findings
    assert findings == [
        f"entry 0 of client {thief.client.hex()[:8]} says forget, and no admin key that was valid then has signed it"
    ]


# --- taking away -----------------------------------------------------------------------------------------------------


def test_deletes_what_storage_lets_it_delete_and_is_found_out(place, thief, before):
    """The owner who has seen the log misses the snapshot; append-only storage is what prevents it."""
    with place.opened() as repo:
        repo.log.follow()
    for name in thief.names("pending"):
        place.area.delete(name)
    with place.opened() as repo:
        there = {item.id for item in load(repo).snapshots}
        assert repo.log.missing(there, lambda: list_pending(repo)) == {before.snapshot}


@pytest.mark.parametrize("kind", ["condemnation", "config", "pin", "trash", "catalogue", "verified", "sums"])
def test_seals_nothing_that_takes_away(place, thief, before, kind):
    """Condemnations, configurations, records of the trash and the like take the area's own keys."""
    with place.opened() as repo:
        repo.synchronise()
        packs = [pack.name for pack in repo.index.packs()]
    leaf = before.snapshot.hex()
    folder = {"condemnation": "condemned", "config": "config", "pin": "pins"}.get(kind, kind)
    leaf = "0000000000000009" if kind == "config" else leaf
    name = f"{folder}/{leaf}"
    raw = Condemnation(collector=b"c" * 16, time_ns=5, packs=tuple(packs)).encode()
    thief.run().forge(kind, name, raw)
    with place.opened() as repo, pytest.raises(Corruption, match="was not made for this key"):
        repo.vault.open_record(kind, name, place.area.get(name))


def test_condemns_nothing(place, thief, before):
    """A condemnation of its own makes the owner's collector stop, and says why: nothing is deleted."""
    with place.opened() as repo:
        repo.synchronise()
        packs = tuple(pack.name for pack in repo.index.packs())
    name = f"condemned/{os.urandom(16).hex()}"
    thief.run().forge("condemnation", name, Condemnation(collector=b"c" * 16, time_ns=5, packs=packs).encode())
    with pytest.raises(Corruption, match=name):
        place.prune()
    place.area.delete(name)
    assert is_whole(place, before)


def test_aborts_nothing(place, thief, before):
    """Neither a snapshot of another run nor, in the owner's name, one of its own."""
    name = f"outcome/{before.snapshot.hex()}"
    place.area.delete(name)
    abort = Outcome(verdict=Verdict.ABORT, pending_hash=bytes(32)).encode()
    run = thief.run()
    run.record("outcome", name, abort)
    assert before.snapshot in place.listed(fresh=True).undecided
    own = run.snapshot(ChunkId(bytes(32)))
    run.record("outcome", f"outcome/{own.hex()}", abort)
    catalogue = place.listed(fresh=True)
    assert own in catalogue.undecided
    assert catalogue.aborted == ()


def test_keeps_space_by_markers(place, thief):
    """A session that says for ever that it is alive keeps its own packs; others' it does not keep."""
    run = thief.run()
    run.record(
        "marker", f"sessions/{run.session.hex()}.0", Marker(session=run.session, time_ns=place.clock.now).encode()
    )
    run.pack([(Kind.DATA, ChunkId(b"x" * 32), b"garbage")])
    assert place.prune().deleted_packs == 0
    del place.area._objects[f"sessions/{run.session.hex()}.0"]
    assert place.prune().deleted_packs == 1


# --- poisoning -------------------------------------------------------------------------------------------------------


def chunks_of(place):
    """Returns kind and id of every chunk in the area, as its owner knows them."""
    found = []
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        for pack in repo.index.packs():
            footer = parse_footer(repo.index.footer(pack.number), "pack")
            for block, first in zip(footer.blocks, footer.first_rows, strict=False):
                found += [(Kind(block.kind), footer.chunk_id(row)) for row in range(first, first + block.chunks)]
    return found


def poison(place, run, count=1, *, like=False):
    """Puts packs that say to hold everything that is in the area, and hold garbage; ``like``: of the right lengths."""
    chunks = chunks_of(place)
    with place.opened() as repo:
        repo.synchronise()
        lengths = {chunk_id: repo.source.locate(kind, chunk_id).length for kind, chunk_id in chunks}
    for _ in range(count):
        run.pack([(kind, chunk_id, os.urandom(lengths[chunk_id] if like else 50)) for kind, chunk_id in chunks])


def test_poisons_nothing_that_was_there(place, thief, before):
    """Packs that say to hold the old chunks, and a snapshot that needs them: the good ones stay, whoever collects."""
    run = thief.run()
    poison(place, run, 3)
    run.snapshot(before.manifest.root)
    for below in (0.5, 1.0, 1.0):
        place.prune(repack_below=below)
        assert is_whole(place, before)
        assert is_whole(place, before, fresh=False)


def test_poisons_nothing_that_is_sparse(place, thief, before):
    """The good copy lies in a pack that goes because little of it is needed, the bad one in a pack that stays."""
    place.write(more=os.urandom(900_000))
    second = place.backup()
    (place.source / "more").unlink()
    with place.opened() as repo:
        forget(repo, second.snapshot)
    run = thief.run()
    poison(place, run)
    for _ in range(3):
        place.prune(repack_below=0.99)
        assert is_whole(place, before)


def test_poisons_nothing_that_is_copied(place, thief, before):
    """The good copy is the one that counts, and its pack goes; a bad one lies where all else is needed, and stays."""
    chunks = [chunk for chunk in chunks_of(place) if chunk[0] is Kind.DATA]
    place.write(other=b"")
    second = place.backup()
    with place.opened() as repo:
        forget(repo, before.snapshot)
    run = thief.run()
    big = os.urandom(200_000)
    tree = tree_of(b"x", content=named(run, Kind.DATA, big), size=len(big))
    tiny = [(Kind.DATA, ChunkId(os.urandom(32)), b"x") for _ in range(200)]
    bad = [(kind, chunk_id, b"garbage") for kind, chunk_id in chunks]
    run.pack([(Kind.DATA, named(run, Kind.DATA, big), big), *bad, *tiny])
    run.pack([(Kind.TREE, named(run, Kind.TREE, tree), tree)])
    run.snapshot(named(run, Kind.TREE, tree))
    for _ in range(2):
        place.prune(repack_below=0.8)
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, second.manifest.root) == {"secret": b"what was there before " * 2000, "other": b""}


def test_poisons_nothing_that_comes_after(place, thief, before):
    """The honest machine goes on; what it relies on is what it wrote, or what the owner has read when it moved it."""
    run = thief.run()
    future = os.urandom(200)
    chunk = named(run, Kind.DATA, future)
    tree = tree_of(b"x", content=chunk, size=7)
    root = named(run, Kind.TREE, tree)
    run.pack([(Kind.DATA, chunk, b"garbage"), (Kind.DATA, ChunkId(b"unneeded" * 4), os.urandom(9000))])
    run.pack([(Kind.TREE, root, tree)])
    run.snapshot(root)
    pruned = place.prune(repack_below=1.0)
    assert [error.reason for error in pruned.damages] == ["its bytes do not have its id"]
    place.write(tomorrow=future)
    after = place.backup()
    place.prune(repack_below=1.0)
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, after.manifest.root)["tomorrow"] == future


def test_poisons_nothing_that_the_owner_adds(place, thief, before):
    """What an owner makes in the area of a client (by rewriting, say) relies on nothing that the client says."""
    run = thief.run()
    new = os.urandom(200)
    run.pack([(Kind.DATA, named(run, Kind.DATA, new), b"garbage")])
    place.write(new=new)
    with place.opened() as repo:
        made = backup(repo, place.source)
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, made.manifest.root)["new"] == new


def named(run, kind, raw):
    """Returns the id that content of a kind has in the area."""
    return ChunkId(blake3(raw, key=run.ids[kind]).digest())


def tree_of(name, *, content=b"", size=0):
    """Returns a tree with one file, as the product would encode it, if it would."""
    meta = META.pack(stat.S_IFREG | 0o644, 0, 0, 0, size, 0, 0)
    return Leaf(names=name + b"\0", meta=meta, content=content).encode()


@pytest.mark.parametrize("like", [False, True])
def test_keeps_no_restore_from_what_was_there(place, thief, before, tmp_path, like):
    """Before anybody has collected or verified, too: a copy that is none is passed over for the good one."""
    run = thief.run()
    poison(place, run, 2, like=like)
    with place.opened(fresh=True) as repo:
        trees = TreeReader(repo.source)
        repo.synchronise()
        found = resolve(
            load(repo), trees, f"{before.snapshot.hex()}:{place.source}", Context(now_ns=place.clock.now, zone=UTC)
        )
        options = RestoreOptions(owners=False)
        restore = restore_of(repo, trees, found, os.fsencode(tmp_path / "back"), options)
        result = run_restore(restore, progress=Silent(), cancel=Cancel(), clock=place.clock, random=os.urandom)
    assert result.exit_status == 0
    assert (tmp_path / "back" / "secret").read_bytes() == b"what was there before " * 2000


def test_lies_about_packs_of_others(place, thief, before):
    """A segment that gives the good packs footers of nothing: it is not believed."""
    with place.opened() as repo:
        repo.synchronise()
        packs = [(pack.name, pack.length_bytes) for pack in repo.index.packs()]
    run = thief.run()
    nothing = Footer(session=run.session, body_hash=bytes(32), blocks=(), ids=b"", lengths=array("I")).encode()
    listed = tuple(Listed(pack=name, length_bytes=length, footer=nothing) for name, length in packs)
    name, data = run.vault.seal_segment(Segment(session=run.session, packs=listed).encode())
    place.area.damage(f"segments/{name.hex()}", data)
    assert is_whole(place, before)
    place.prune()
    assert is_whole(place, before)
    assert f"segments/{name.hex()}" not in place.area.snapshot()


def test_makes_the_collector_stop(place, thief, before):
    """A snapshot that lacks what it needs: nothing is deleted, until its owner forgets it."""
    bad = thief.run().snapshot(ChunkId(b"nowhere" + bytes(25)))
    with pytest.raises(ChunkMissing):
        place.prune()
    with place.opened() as repo:
        forget(repo, bad)
    place.prune()
    assert is_whole(place, before)


def test_takes_space(place, thief, before):
    """As much as storage gives it, until its owner forgets what it made."""
    place.write(big=os.urandom(2_000_000))
    bad = place.backup(machine="elsewhere")
    with place.opened() as repo:
        forget(repo, bad.snapshot)
    assert place.prune().deleted_bytes > 2_000_000


# --- times -----------------------------------------------------------------------------------------------------------


def goes(place, *rule):
    """Returns what a policy would forget."""
    with place.opened() as repo:
        plan = plan_retention(repo, load(repo), Policy(keep={rule[0]: rule[1]}), zone=UTC)
    return {item.id for item in plan.forgotten}


def at(place, machine, *days):
    """Backs up as the client, by a clock that says so many days from now."""
    made = []
    now = place.clock.now
    for day in days:
        place.clock.now = now + round(day * DAY_NS)
        made.append(place.backup(machine=machine).snapshot)
    place.clock.now = now
    return made


@pytest.mark.parametrize("machine", ["machine", "elsewhere"])
def test_pushes_nothing_out_by_false_times(place, machine):
    """With the state of the machine, or with a log of its own: snapshots of the past and the future do not count."""
    good = []
    for _ in range(4):
        good += at(place, "machine", 0)
        place.clock.now += DAY_NS
    assert goes(place, "daily", 4) == set()
    at(place, machine, -3.4, -2.4, -1.4, 2, 3, 4, 5)
    assert goes(place, "daily", 4) == set()
    assert goes(place, "daily", 2) <= set(good[:2])


def test_owner_who_was_there_knows_what_came_later(place):
    """What an owner's entry did not know yet, was not there: whatever its own log says."""
    good = at(place, "machine", 0)
    place.clock.now += 3 * DAY_NS
    place.prune()
    place.clock.now += DAY_NS
    forged = at(place, "elsewhere", -3.9)
    with place.opened() as repo:
        plan = plan_retention(repo, load(repo), Policy(keep={"daily": 1}), zone=UTC)
    doubts = {item.snapshot.id: item.decision.doubt for item in plan.items}
    assert doubts == {good[0]: None, forged[0]: "late"}
    assert plan.forgotten == ()


# --- restoring -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"../escaped", b"..", b"/escaped", b"a/b"])
def test_makes_no_restore_escape(place, thief, name):
    """A tree with such a name is no tree; nothing is written anywhere."""
    run = thief.run()
    encoded = tree_of(name)
    tree = named(run, Kind.TREE, encoded)
    run.pack([(Kind.TREE, tree, encoded)])
    bad = run.snapshot(tree)
    with place.opened() as repo:
        repo.synchronise()
        assert bad in {item.id for item in load(repo).snapshots}
        with pytest.raises(Corruption):
            list(TreeReader(repo.source).entries(tree))


def test_poisons_nothing_that_is_taken_up_meanwhile(place, thief, before):
    """What nobody needed is needed again while its pack goes: the bad copy elsewhere does not count for it."""
    chunks = [chunk for chunk in chunks_of(place) if chunk[0] is Kind.DATA]
    with place.opened() as repo:
        forget(repo, before.snapshot)
    run = thief.run()
    big = os.urandom(200_000)
    tree = tree_of(b"x", content=named(run, Kind.DATA, big), size=len(big))
    bad = [(kind, chunk_id, b"garbage") for kind, chunk_id in chunks]
    run.pack([(Kind.DATA, named(run, Kind.DATA, big), big), *bad])
    run.pack([(Kind.TREE, named(run, Kind.TREE, tree), tree)])
    run.snapshot(named(run, Kind.TREE, tree))
    made = []
    put = place.area.put

    def meanwhile(name, pieces):
        if name.startswith("condemned/") and not made:
            made.append(None)
            made.append(place.backup())
        put(name, pieces)

    place.area.put = meanwhile
    place.prune()
    place.area.put = put
    assert place.prune().exit_status in {0, 4}
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, made[1].manifest.root)["secret"] == b"what was there before " * 2000
