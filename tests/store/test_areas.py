"""Clients are enrolled, listed and removed by the owner, and what they are given is what they can do."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from respaldo.api.reencrypting import reencrypt
from respaldo.catalog.snapshots import load
from respaldo.codec.box import box_public
from respaldo.codec.keys import ListRing, RunRing
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import Corruption, KeyRotated, StorageFailed, UsageError
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.credential import parse_credential
from respaldo.format.enrolment import LIST, RESTORE, RecordName, Removal
from respaldo.format.runrecord import Author, parse_run_name, run_name
from respaldo.store import areas, rotating
from respaldo.store.removing import remove
from respaldo.store.repo import Repo
from respaldo.store.rings import AreaRings
from respaldo.store.runs import granted_root, new_run, owners_ring, read_signed
from tests.store.owners import KeptBackend, Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_credential_pins_what_the_owner_keeps(place):
    """Keys of the client and of the area's owner fit together, and nothing in it opens anything of the area."""
    credential = parse_credential(place.credential.encode(), "x")
    assert credential == place.credential
    enrolment = place.known().enrolment
    assert enrolment.client == client_of(Signer(credential.sign_seed).public)
    assert enrolment.sign_public == Signer(credential.sign_seed).public
    assert enrolment.box_public == box_public(credential.box_seed)
    assert enrolment.header_hash == credential.header_hash == place.header.hash
    assert enrolment.master not in credential.encode()
    with place.opened() as repo:
        assert credential.content_keys == repo.ring.content_keys
        assert credential.owner_box == box_public(repo.ring.box_seed)
        assert credential.owner_sign == Signer(repo.ring.admin_seed).public
        assert credential.config == repo.config
    with place.owner() as repo:
        assert credential.content_keys != repo.ring.content_keys


def test_area_is_no_part_of_the_owners_repository(place):
    """And the owner's record of it is sealed: storage learns neither name nor rights."""
    names = list(place.owner_backend.snapshot())
    assert RecordName(client=place.known().enrolment.client).object_name() in names
    assert not any(name.startswith(("runs/", "notices/")) for name in names)
    for data in place.owner_backend.snapshot().values():
        assert b"web" not in data


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "é", "a/b"])
def test_name_that_is_none_is_refused(place, name):
    """Before anything is made."""
    with place.owner() as repo, pytest.raises(UsageError):
        areas.enrol(repo, name, (), lambda _client: pytest.fail("an area was made"))


def test_name_is_free_again_after_a_removal(place):
    """Two clients of one name at a time there are not."""
    other = KeptBackend()
    with place.owner() as repo, pytest.raises(UsageError):
        areas.enrol(repo, "web", (), lambda _client: other)
    place.remove()
    place.clock.now += 1
    with place.owner() as repo:
        areas.enrol(repo, "web", (RESTORE, LIST), lambda _client: other)
        found, damaged = areas.list_clients(repo)
    assert not damaged
    assert [(item.enrolment.name, item.enrolment.rights, item.removal is None) for item in found] == [
        ("web", (), False),
        ("web", (LIST, RESTORE), True),
    ]


def test_area_that_could_not_be_made_leaves_nothing(place):
    """Neither an enrolment nor a part of the area."""

    class Full(KeptBackend):
        def put(self, name, pieces):
            if name == "header":
                raise StorageFailed(name, "full")
            super().put(name, pieces)

    area = Full()
    with place.owner() as repo:
        with pytest.raises(StorageFailed):
            areas.enrol(repo, "other", (), lambda _client: area)
        assert len(areas.list_clients(repo)[0]) == 1
    assert not area.snapshot()


def test_runs_after_a_removal_do_not_count(place):
    """Those before it do, and so does what they wrote."""
    place.write(a=b"first")
    first = place.backup()
    place.remove(unseen=True)
    place.write(a=b"second")
    second = place.backup()
    found = place.listed(fresh=True)
    assert [item.id for item in found.snapshots] == [first.snapshot]
    assert second.snapshot not in {item.id for item in found.snapshots}
    place.remove()
    with pytest.raises(UsageError):
        place.remove()
    assert [item.id for item in place.listed(fresh=True).snapshots] == [first.snapshot]


def test_what_a_removed_client_writes_is_no_damage(place):
    """Its snapshots, packs and entries are not there for the owner; real damage is."""
    place.write(a=os.urandom(20_000))
    first = place.backup()
    place.remove(unseen=True)
    before = set(place.area.snapshot())
    for number in range(3):
        place.write(b=b"%d" % number)
        place.backup()
    after = set(place.area.snapshot()) - before
    assert {name.partition("/")[0] for name in after} == {"runs", "pending", "outcome", "packs", "log"}
    for fresh in (False, True):
        with place.opened(fresh=fresh) as repo:
            repo.synchronise()
            assert not repo.damaged
            assert not repo.log.follow().findings
            found = load(repo)
            assert [item.id for item in found.snapshots] == [first.snapshot]
            assert not (found.damaged or found.undecided or found.aborted)
            result = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
            assert not result.damages
    place.prune()
    pack = next(name for name in before if name.startswith("packs/"))
    data = bytearray(place.area.get(pack))
    data[-40] ^= 1
    place.area.delete(pack)
    place.area.put(pack, [data])
    with place.opened(fresh=True) as repo:
        result = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
        assert pack in {damage.name for damage in result.damages}


def test_damaged_removal_removes_all_the_same(place):
    """Whoever can bend it gains nothing."""
    place.write(a=b"first")
    place.backup()
    place.remove()
    name = RecordName(client=place.known().enrolment.client, removed=True)
    for copy in (True, False):
        bend(place.owner_backend, replace(name, copy=copy).object_name())
        with place.owner() as repo:
            found, damaged = areas.list_clients(repo)
        assert len(damaged) == (1 if copy else 2)
        assert found[0].removal is not None
        assert len(found[0].removal.runs) == 1, "the log has them, too"


def bend(backend, name):
    data = bytearray(backend.get(name))
    data[100] ^= 1
    backend.delete(name)
    backend.put(name, [data])


def test_one_bad_sector_does_not_cost_an_area(place):
    """Each record is there twice; verify says which one is damaged."""
    place.write(a=b"a")
    first = place.backup()
    name = RecordName(client=place.known().enrolment.client).object_name()
    bend(place.owner_backend, name)
    assert [item.id for item in place.listed(fresh=True).snapshots] == [first.snapshot]
    with place.owner() as repo:
        result = run_verify(repo, VerifyOptions(), progress=Silent(), cancel=Cancel())
    assert [damage.name for damage in result.damages] == [name]


def test_record_under_anothers_name_is_no_client(place):
    """A seal opens under its own name alone; this one says so of what is inside it, too."""
    client = place.known().enrolment
    with place.owner() as repo:
        name = RecordName(client=b"X" * 16).object_name()
        repo.backend.put(name, [repo.vault.seal_record(areas.KIND, name, client.encode())])
        assert [item.enrolment.client for item in areas.list_clients(repo)[0]] == [client.client]


# --- runs ---


def made_run(place, *, rights=(), author=Author.CLIENT, signer=None):
    credential = place.credential
    return new_run(
        author=author,
        signer=signer or Signer(credential.sign_seed),
        client=place.known().enrolment.client,
        session=b"S" * 16,
        owner_box=credential.owner_box,
        client_box=box_public(credential.box_seed),
        rights=rights,
        header=place.header,
        time_ns=5,
        random=os.urandom,
    )


def test_rights_open_what_they_say(place):
    """The owner opens all, restore all, list all but content; without a right the client opens nothing."""
    enrolment = place.known().enrolment
    with place.opened() as repo:
        seed = repo.ring.box_seed
    ring, run = made_run(place, rights=(LIST, RESTORE))
    assert owners_ring(run, seed, place.header).seal_key("data") == ring.seal_key("data")
    restoring = RunRing(granted_root(run, RESTORE, place.credential.box_seed, place.header), place.header.hash)
    listing = ListRing(granted_root(run, LIST, place.credential.box_seed, place.header), place.header.hash)
    assert restoring.seal_key("data") == ring.seal_key("data")
    assert listing.seal_key("tree") == ring.seal_key("tree")
    for kind in ("data", "condemnation", "config", "pin"):
        with pytest.raises(ValueError, match="no such kind"):
            listing.seal_key(kind)
    with pytest.raises(ValueError, match="no such kind"):
        restoring.seal_key("condemnation")
    bare = made_run(place)[1]
    assert granted_root(bare, LIST, place.credential.box_seed, place.header) is None
    with pytest.raises(Corruption):
        owners_ring(bare, place.credential.box_seed, place.header)
    assert enrolment.master not in run.encode()


def test_run_counts_with_the_signature_of_its_author(place):
    """Not with another client's, not under another's name, not with what was changed; the owner's own does."""
    enrolment = place.known().enrolment
    with place.opened() as repo:
        owner = Signer(repo.ring.admin_seed)

    def read(run, session=b"S" * 16):
        backend = KeptBackend()
        backend.put(run_name(session), [run.encode()])
        signers = [(enrolment.sign_public, owner.public)]
        return read_signed(backend, session, enrolment.client, place.header.hash, signers)[0]

    run = made_run(place)[1]
    assert read(run) == run
    by_owner = made_run(place, author=Author.OWNER, signer=owner)[1]
    assert read(by_owner) == by_owner
    for forged in (
        made_run(place, signer=Signer(b"x" * 32))[1],
        made_run(place, author=Author.OWNER)[1],
        replace(run, author=Author.OWNER),
        replace(run, time_ns=6),
        replace(run, client=b"C" * 16),
        replace(run, grants=((LIST, run.box),)),
    ):
        with pytest.raises(Corruption):
            read(forged)
    with pytest.raises(Corruption):
        read(run, b"T" * 16)


def test_owner_takes_no_key_of_a_forged_run(place):
    """And reads the others all the same."""
    place.write(a=b"one")
    first = place.backup()
    forged = made_run(place, signer=Signer(b"x" * 32))[1]
    place.area.put(run_name(forged.session), [forged.encode()])
    with place.opened(fresh=True) as repo:
        assert [item.id for item in load(repo).snapshots] == [first.snapshot]
        rings = AreaRings((repo.ring,), place.known(), place.area, place.header)
        assert set(rings.known()) == {first.snapshot}
        assert set(rings.refused) == {forged.session}


# --- beside rotations of the owner's key ---


def rotate(place):
    with place.owner("another machine") as repo:
        rotating.rotate(repo, rotating.plan_rotation(repo, (), {}))


def seal_anew(place):
    with place.owner() as repo:
        return reencrypt(repo, progress=Silent(), cancel=Cancel())


@pytest.mark.parametrize("removed", [False, True])
def test_client_outlives_the_master_key_that_it_was_enrolled_under(place, removed):
    """Its area's key is carried over before the key goes that it was sealed under; a removal likewise."""
    place.write(a=b"first")
    first = place.backup()
    if removed:
        place.remove(unseen=True)
        place.backup()
        place.remove()
    before = place.known()
    rotate(place)
    assert seal_anew(place).retired.epochs == (0,)
    assert place.known() == before
    assert [item.id for item in place.listed(fresh=True).snapshots] == [first.snapshot]
    names = sorted(place.owner_backend.names("enrolled"))
    client = before.enrolment.client
    kept = [RecordName(client=client, removed=gone, copy=copy) for gone in (False, removed) for copy in (False, True)]
    assert names == sorted({name.object_name(1) for name in kept})
    if removed:
        with pytest.raises(UsageError, match="removed already"):
            place.remove()
    with place.owner() as repo:
        assert areas.list_clients(repo)[1] == []


def test_client_is_not_enrolled_under_a_key_that_was_rotated(place):
    """It would be lost with that key, if whoever retires it has listed before."""
    with place.owner("asleep") as sleeper:
        rotate(place)
        with pytest.raises(KeyRotated):
            areas.enrol(sleeper, "late", (), lambda _client: KeptBackend())
        with pytest.raises(KeyRotated):
            remove(sleeper, place.known().enrolment.client, place.area)
    assert len(list(place.owner_backend.names("enrolled"))) == 2


def test_record_of_a_client_that_was_put_too_late_is_taken_away(place, monkeypatch):
    """Where the key is rotated between the look before and the put."""
    rotations = iter([rotate])
    monkeypatch.setattr(Repo, "announce", lambda *_arguments: [turn(place) for turn in rotations])
    with place.owner("asleep") as sleeper, pytest.raises(KeyRotated):
        areas.enrol(sleeper, "late", (), lambda _client: KeptBackend())
    assert len(list(place.owner_backend.names("enrolled"))) == 2


def test_run_counts_that_all_removals_name(place):
    """A second removal, of whoever saw none yet, lets nothing back in."""
    place.write(a=b"first")
    place.backup()
    place.remove(unseen=True)
    place.backup()
    client = place.known().enrolment.client
    runs = frozenset(parse_run_name(name) for name in place.area.names("runs"))
    assert len(runs) == 2
    with place.owner() as repo:
        name = RecordName(client=client, removed=True).object_name(1)
        later = Removal(client=client, time_ns=1, runs=runs)
        repo.backend.put(name, [repo.vault.seal_record(areas.KIND, name, later.encode())])
    assert len(place.known().removal.runs) == 1
