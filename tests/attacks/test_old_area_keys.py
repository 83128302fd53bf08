"""What whoever held the keys of an area can and cannot do once its client was renewed: he has its storage, too."""

from __future__ import annotations

import contextlib
import os

import pytest

from respaldo.api.reencrypting import reencrypt
from respaldo.catalog.snapshots import load
from respaldo.codec.box import box_public, open_box
from respaldo.codec.compress import Compressor
from respaldo.codec.keys import KeyRing, RunRing
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption, CredentialRenewed
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.enrolment import parse_record_name
from respaldo.format.epoch import ended_name
from respaldo.format.notice import Notice, notice_name
from respaldo.format.pack import TRAILER_BYTES
from respaldo.format.runrecord import ROOT, Author, parse_run, run_name
from respaldo.store.authority import FORGET
from respaldo.store.logbook import Logbook
from respaldo.store.notices import seal_notice
from respaldo.store.recollection import Recollection
from respaldo.store.rotating import plan_rotation, rotate
from respaldo.store.runs import new_run, owners_ring
from respaldo.store.vault import make_vault
from tests.store.owners import Place, content

KINDS = {"pending": "manifest", "outcome": "outcome", "log": "log", "sessions": "marker"}


class Holder:
    """Read the client's enrolment before its keys were renewed: the area's master key, and all runs until then."""

    def __init__(self, place):
        self.place = place
        self.enrolment = place.known().enrolment
        self.ring = KeyRing(self.enrolment.master, place.header.hash)
        self.objects = place.area.snapshot()

    def rings(self):
        """All that he can make: of the area in whatever epoch, and of the runs whose boxes he opens."""
        hash_ = self.place.header.hash
        yield from (KeyRing(self.enrolment.master, hash_, epoch=epoch) for epoch in (0, 1))
        for name in self.place.area.names("runs"):
            run = parse_run(self.place.area.get(name), name)
            try:
                master = owners_ring(run, self.ring.box_seed, self.place.header).master
            except Corruption:
                continue
            yield from (RunRing(master, hash_, epoch=epoch) for epoch in (0, 1))

    def opens(self, name):
        """Whether he opens an object: a record whole, a pack's end."""
        data = self.place.area.get(name)
        folder = name.partition("/")[0]
        for ring in self.rings():
            vault = make_vault(ring, self.place.header, 3, os.urandom)
            if folder == "packs":
                head = data[-TRAILER_BYTES:][:HEAD_BYTES]
                if vault.sealer.ring_of("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, head) is not None:
                    return True
                continue
            try:
                vault.open_record(KINDS[folder], name, data)
            except Corruption:
                continue
            return True
        return False


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    found.write(before=os.urandom(20_000))
    return found


@pytest.fixture
def first(place):
    return place.backup()


@pytest.fixture
def holder(place, first):
    return Holder(place)


def test_reads_nothing_that_is_stored_afterwards(place, holder):
    """Neither what the client puts nor what a collector does; what was there he reads, which the document says."""
    sealed = ("packs", *KINDS)
    before = [name for name in place.area.snapshot() if name.partition("/")[0] in sealed]
    assert {name.partition("/")[0] for name in before} == {"packs", "pending", "outcome", "log"}
    assert all(map(holder.opens, before))
    new = place.renew()
    place.write(after=os.urandom(20_000))
    place.backup(credential=new)
    place.prune(repack_below=1, renew=True)
    fresh = [name for name in place.area.snapshot() if name not in before and name.partition("/")[0] in sealed]
    assert {name.partition("/")[0] for name in fresh} == {"packs", "pending", "outcome", "log"}
    assert not any(map(holder.opens, fresh))


def test_reads_no_content_once_it_was_carried_over(place, holder):
    """Not even what was there before, where he gets it from storage only then."""
    place.renew()
    with place.opened() as repo:
        reencrypt(repo, progress=Silent(), cancel=Cancel())
    packs = [name for name in place.area.snapshot() if name.startswith("packs/")]
    assert packs
    assert not any(map(holder.opens, packs))
    assert all(map(holder.opens, place.area.names("pending")))


def test_learns_no_key_of_an_owner_who_has_rotated_his_own_before(place, holder):
    """The renewal is sealed under the owner's key as it is then; the old one, which he may have had, is of no use."""
    with place.owner() as repo:
        old = make_vault(repo.ring, repo.header, 3, os.urandom)
        rotate(repo, plan_rotation(repo, (), {}))
    place.renew()
    names = [name for name in place.owner_backend.names("enrolled") if parse_record_name(name).renewal]
    assert len(names) == 2
    for name in place.owner_backend.names("enrolled"):
        with pytest.raises(Corruption) if name in names else contextlib.nullcontext():
            old.open_record("client", name, place.owner_backend.get(name))


def test_says_nothing_to_the_client_in_the_owners_name(place, holder, first):
    """A notice that he signs is not believed, even by the right box key."""
    new = place.renew()
    name = notice_name(b"n" * 16)
    place.area.put(
        name,
        [
            seal_notice(
                Notice(client=holder.enrolment.client, time_ns=1, retired=frozenset({first.snapshot})),
                name,
                owner=Signer(holder.ring.admin_seed),
                client_box=box_public(new.box_seed),
                header=place.header,
                compressor=Compressor(3),
                random=os.urandom,
            )
        ],
    )
    with place.client(new) as repo:
        assert repo.apply_notices() == []
        assert [error.name for error in repo.damaged] == [name]
        assert first.snapshot in repo.log.memory().live


@pytest.mark.parametrize("author", list(Author))
def test_writes_nothing_that_counts_as_the_clients(place, holder, first, author):
    """A run takes the client's signature; one that he signs as the owner opens what the old key opens anyway."""
    place.renew()
    _, run = new_run(
        author=author,
        signer=Signer(holder.ring.admin_seed),
        client=holder.enrolment.client,
        session=b"f" * 16,
        owner_box=box_public(holder.ring.box_seed),
        client_box=holder.enrolment.box_public,
        rights=(),
        header=place.header,
        time_ns=0,
        random=os.urandom,
    )
    place.area.put(run_name(b"f" * 16), [run.encode()])
    with place.opened(fresh=True) as repo:
        assert (b"f" * 16 in repo.area.known()) is (author is Author.OWNER)
        assert [item.id for item in load(repo).snapshots] == [first.snapshot]


def test_takes_the_client_back_to_the_old_keys(place, holder, first):
    """He shows it a world without the sign: it has no way back to keys that its credential does not name."""
    new = place.renew()
    place.area.delete(ended_name(0))
    for name in list(place.area.snapshot()):
        if name not in holder.objects:
            place.area.delete(name)
    place.write(after=b"after")
    made = place.backup(credential=new)
    run = parse_run(place.area.get(run_name(made.snapshot)), run_name(made.snapshot))
    with pytest.raises(Corruption):
        open_box(
            holder.ring.box_seed,
            run.box,
            purpose=ROOT,
            header_hash=place.header.hash,
            name=run_name(made.snapshot),
        )
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, made.manifest.root)["after"] == b"after"


def test_hides_the_sign_from_who_has_the_old_credential(place, holder, first):
    """Then that one goes on for nothing, as under storage that drops what it is given: the owner takes none of it."""
    place.renew()
    place.area.delete(ended_name(0))
    late = place.backup()
    with place.opened(fresh=True) as repo:
        assert [item.id for item in load(repo).snapshots] == [first.snapshot]
        assert late.snapshot in repo.area.refused
        assert not run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel()).damages
    place.area.put(ended_name(0), [b"x"])
    with pytest.raises(CredentialRenewed):
        place.backup()


def test_signs_nothing_in_the_log_any_more(place, holder, first):
    """What takes the admin key, and comes after the renewal: a finding for everybody who follows the log."""
    new = place.renew()
    place.write(after=b"after")
    place.backup(credential=new)
    forged = KeyRing(holder.enrolment.master, place.header.hash).naming_as(place.credential.content_keys)
    log = Logbook(
        backend=place.area,
        vault=make_vault(forged, place.header, 3, os.urandom),
        ring=forged,
        clock=place.clock,
        recollection=Recollection(place.path / "holder", os.urandom),
    )
    assert log.append(FORGET, [first.snapshot])
    with place.opened(fresh=True) as repo:
        [finding] = repo.log.follow().findings
    assert "no admin key that was valid then" in finding
