"""A client is renewed: other keys for it and its area, the same snapshots, and nothing that is committed is lost."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC
from functools import partial

import pytest

from respaldo.api.reencrypting import reencrypt
from respaldo.api.retention import plan_retention
from respaldo.catalog import told
from respaldo.catalog.retention import Policy
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import announce_forgetting, forget, load
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES
from respaldo.core.errors import (
    Corruption,
    CredentialRenewed,
    KeyRotated,
    ObjectExists,
    ObjectMissing,
    Refused,
    UsageError,
)
from respaldo.core.ids import pack_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.credential import parse_credential
from respaldo.format.enrolment import LIST, RESTORE, RecordName
from respaldo.format.epoch import ended_name
from respaldo.format.pack import TRAILER_BYTES
from respaldo.format.runrecord import run_name
from respaldo.store import areas, renewing, rotating
from respaldo.store.granted import GrantedRepo
from tests.store.owners import Place, content


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    found.write(a=os.urandom(50_000), b=b"text " * 2000)
    return found


def verified(place, *, fresh=True):
    with place.opened(fresh=fresh) as repo:
        assert not repo.log.follow().findings
        return run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())


def ids(place, *, fresh=True):
    return [item.id for item in place.listed(fresh=fresh).snapshots]


def test_client_goes_on_under_other_keys(place):
    """It finds what it stored, uploads nothing anew, and its owner reads old and new; the old credential is over."""
    first = place.backup()
    old, new = place.credential, place.renew()
    assert parse_credential(new.encode(), "x") == new
    assert (new.client, new.epoch, new.content_keys) == (place.known().enrolment.client, 1, old.content_keys)
    assert not {old.sign_seed, old.box_seed, old.owner_box, old.owner_sign} & {
        new.sign_seed,
        new.box_seed,
        new.owner_box,
        new.owner_sign,
    }
    before = set(place.area.snapshot())
    with pytest.raises(CredentialRenewed, match="web was renewed"):
        place.backup()
    assert {name.partition("/")[0] for name in set(place.area.snapshot()) - before} == {"runs"}
    place.write(c=b"new")
    second = place.backup(credential=new)
    assert second.manifest.parent == first.snapshot
    assert second.manifest.figures.stored_bytes < 2000
    for fresh in (False, True):
        assert ids(place, fresh=fresh) == [first.snapshot, second.snapshot]
    assert not verified(place).damages
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, second.manifest.root)["c"] == b"new"
        assert content(repo, first.manifest.root).keys() == {"a", "b"}


def test_renewed_again_and_again(place):
    """Each credential ends with the next one, and all that was committed counts."""
    made = [place.backup().snapshot]
    credentials = [place.credential]
    for number in range(3):
        credentials.append(place.renew())
        place.write(a=b"%d" % number)
        for old in credentials[:-1]:
            with pytest.raises(CredentialRenewed):
                place.backup(credential=old, machine="elsewhere")
        made.append(place.backup(credential=credentials[-1]).snapshot)
        place.prune(repack_below=0)
    assert ids(place) == made
    assert not verified(place).damages


class Meanwhile:
    """Acts before the k-th call of a backend: what another machine does between two steps of this one."""

    STEPS = ("put", "get", "names", "list", "exists", "delete")

    def __init__(self, backend, k, act):
        self.backend, self.left, self.act, self.acts = backend, k, act, False

    def __enter__(self):
        self.originals = {name: getattr(self.backend, name) for name in self.STEPS}
        for name, original in self.originals.items():
            setattr(self.backend, name, partial(self.step, original))
        return self

    def __exit__(self, *_):
        for name, original in self.originals.items():
            setattr(self.backend, name, original)

    def step(self, original, *args):
        if not self.acts:
            self.left -= 1
            if self.left == 0:
                self.acts = True
                self.act()
                self.acts = False
        return original(*args)

    @property
    def over(self):
        """Whether there were fewer calls than that."""
        return self.left > 0


def test_snapshot_that_is_made_while_the_client_is_renewed_counts_or_fails(tmp_path):
    """At whichever of its steps: never does it say that it is committed, and is not."""
    k, outcomes = 0, set()
    while True:
        k += 1
        place = Place(tmp_path / str(k))
        place.write(a=b"a")
        made = []
        with Meanwhile(place.area, k, lambda place=place, made=made: made.append(place.renew())) as meanwhile:
            try:
                result = place.backup()
            except CredentialRenewed:
                result = None
        if meanwhile.over:
            break
        listed = place.listed(fresh=True)
        assert [item.id for item in listed.snapshots] == ([result.snapshot] if result else [])
        assert not (listed.damaged or listed.undecided)
        outcomes.add(result is not None)
        place.write(b=b"b")
        after = place.backup(credential=made[0])
        with place.opened(fresh=True) as repo:
            repo.synchronise()
            assert content(repo, after.manifest.root) == {"a": b"a", "b": b"b"}
    assert outcomes == {False, True}
    assert k > 20


def test_renewing_while_a_snapshot_is_made_at_any_step_of_it(tmp_path):
    """The other way round: the snapshot is made as a whole between two steps of who renews."""
    k, outcomes = 0, set()
    while True:
        k += 1
        place = Place(tmp_path / str(k))
        place.write(a=b"a")
        made = []

        def snapshot(place=place, made=made):
            try:
                made.append(place.backup().snapshot)
            except CredentialRenewed:
                made.append(None)

        with Meanwhile(place.area, k, snapshot) as meanwhile:
            new = place.renew()
        if meanwhile.over:
            break
        assert ids(place) == [item for item in made if item]
        outcomes.add(made[0] is not None)
        assert place.backup(credential=new).snapshot in ids(place)
    assert outcomes == {False, True}


def test_cut_off_between_the_steps_is_done_by_renewing_again(place):
    """The client fails until then, loudly; nothing is lost."""
    first = place.backup()
    put = place.owner_backend.put

    def cut_off(name, pieces):
        if name.startswith("enrolled/"):
            raise KeyboardInterrupt
        put(name, pieces)

    place.owner_backend.put = cut_off
    with pytest.raises(KeyboardInterrupt):
        place.renew()
    place.owner_backend.put = put
    with pytest.raises(CredentialRenewed):
        place.backup()
    assert ids(place) == [first.snapshot]
    new = place.renew()
    assert new.epoch == 1
    place.write(b=b"b")
    second = place.backup(credential=new)
    assert ids(place) == [first.snapshot, second.snapshot]


def test_of_two_who_renew_one_is_told(place):
    """And the other's credential counts."""
    made = []
    put = place.owner_backend.put

    def meanwhile(name, pieces):
        if name.startswith("enrolled/") and not made:
            made.append(None)
            made.append(place.renew(machine="another owner"))
        put(name, pieces)

    place.owner_backend.put = meanwhile
    with pytest.raises(Refused, match="at the same time"):
        place.renew()
    place.owner_backend.put = put
    after = place.backup(credential=made[1])
    assert ids(place) == [after.snapshot]


def test_renewed_under_a_key_that_was_rotated_meanwhile(place):
    """It would be lost with that key; the record is taken away again, and renewing once more helps."""
    first = place.backup()
    with place.owner("asleep") as sleeper:
        with place.owner("another machine") as repo:
            rotating.rotate(repo, rotating.plan_rotation(repo, (), {}))
        with pytest.raises(KeyRotated):
            renewing.renew(sleeper, areas.list_clients(sleeper)[0][0], lambda client: place.opened(client=client))
    new = place.renew()
    with place.owner() as repo:
        assert reencrypt(repo, progress=Silent(), cancel=Cancel()).retired.epochs == (0,)
        assert not areas.list_clients(repo)[1]
    place.write(b=b"b")
    second = place.backup(credential=new)
    assert ids(place) == [first.snapshot, second.snapshot]
    client = place.known().enrolment.client
    names = {
        RecordName(client=client, renewal=at, copy=copy, epoch=epoch).object_name()
        for at, epoch in ((0, 1), (1, 0))
        for copy in (False, True)
    }
    assert set(place.owner_backend.names("enrolled")) == names


def test_client_that_was_removed_is_not_renewed(place):
    """And one that was renewed can be removed: what began under either credential before that counts."""
    first = place.backup()
    new = place.renew()
    place.write(b=b"b")
    second = place.backup(credential=new)
    place.remove(unseen=True)
    place.write(a=b"late")
    place.backup(credential=new)
    assert ids(place) == [first.snapshot, second.snapshot]
    with pytest.raises(UsageError, match="was removed"):
        place.renew()


@pytest.mark.parametrize("harm", ["damaged", "gone", "other"])
def test_renewal_that_cannot_be_read_lets_nobody_go_on_in_the_old_epoch(place, harm):
    """One copy helps; without any, the area is not opened: its old keys are not the ones that count."""
    place.backup()
    place.renew()
    new = place.renew()
    place.backup(credential=new)
    client = place.known().enrolment.client
    names = [RecordName(client=client, renewal=1, copy=copy).object_name() for copy in (False, True)]
    for name in names:
        assert ids(place)
        data = place.owner_backend.get(name)
        place.owner_backend.delete(name)
        if harm == "damaged":
            place.owner_backend.put(name, [data[:100] + bytes([data[100] ^ 1]) + data[101:]])
        elif harm == "other":
            with place.owner() as repo:
                other = replace(areas.list_clients(repo)[0][0].renewals[0], runs=frozenset())
                repo.backend.put(name, [repo.vault.seal_record(areas.KIND, name, other.encode())])
            break
    with pytest.raises(Corruption, match="the keys of the client's area were renewed"):
        place.opened(fresh=True)
    with place.owner() as repo:
        assert len(areas.list_clients(repo)[1]) == {"damaged": 2, "gone": 1, "other": 2}[harm]


def test_runs_under_the_old_credential_are_neither_there_nor_damage(place):
    """Whoever is kept from seeing the sign goes on: the owner can tell that there are such runs, and takes none."""
    first = place.backup()
    new = place.renew()
    place.area.delete(ended_name(0))
    place.write(a=b"unseen")
    late = place.backup()
    place.area.put(ended_name(0), [b"whatever"])
    second = place.backup(credential=new, machine="elsewhere")
    assert ids(place) == [first.snapshot, second.snapshot]
    assert not verified(place).damages
    with place.opened(fresh=True) as repo:
        repo.area.known()
        assert repo.area.refused == {late.snapshot: "its client had another credential when it came"}
    place.prune()
    assert ids(place) == [first.snapshot, second.snapshot]


def test_owner_of_an_older_epoch_takes_nothing_away(place):
    """A collector that was asleep meanwhile is told to begin again; what it had begun to write stays readable."""
    place.backup()
    with place.opened() as asleep:
        place.renew(machine="another owner")
        with pytest.raises(KeyRotated):
            asleep.announce("prune")


@pytest.mark.parametrize("rights", [(), (LIST, RESTORE)])
def test_collector_moves_what_is_old_under_the_new_keys(tmp_path, rights):
    """And tells the client where it went, in notices that the new credential opens; the old ones are gone."""
    place = Place(tmp_path, rights=rights)
    place.write(a=os.urandom(50_000), b=os.urandom(50_000))
    first = place.backup()
    (place.source / "a").unlink()
    place.write(c=b"c")
    second = place.backup()
    with place.opened() as repo:
        announce_forgetting(repo, [first.snapshot])
        forget(repo, first.snapshot)
    place.prune(repack_below=1)
    assert place.area.names("notices")
    new = place.renew()
    place.write(d=b"d")
    with place.client(new) as repo:
        assert not repo.damaged
        listing = repo.list_packs()
        assert listing.packs
        assert not repo.damaged
    third = place.backup(credential=new)
    assert third.manifest.figures.stored_bytes < 2000
    with place.opened() as repo:
        verified_before = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
        assert not verified_before.damages
        done = reencrypt(repo, progress=Silent(), cancel=Cancel())
    assert done.prune.new_packs
    assert not done.retired.epochs
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert content(repo, third.manifest.root).keys() == {"b", "c", "d"}
        assert content(repo, second.manifest.root).keys() == {"b", "c"}
        rings = {repo.vault.sealer.ring_of(*trailer(place, repo, pack)).epoch for pack in repo.index.packs()}
        assert rings == {1}
    assert not verified(place).damages
    place.write(e=b"e")
    assert place.backup(credential=new).manifest.figures.stored_bytes < 2000


def trailer(place, repo, pack):
    head = place.area.get(pack_object(pack.name), pack.length_bytes - TRAILER_BYTES, HEAD_BYTES)
    return "trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, head


def test_client_with_rights_keeps_them(tmp_path):
    """Under the new credential it reads what comes; with the old line beside it, what was, too."""
    place = Place(tmp_path, rights=(LIST, RESTORE))
    place.write(a=b"first")
    first = place.backup()
    old, new = place.credential, place.renew()
    place.write(a=b"second")
    second = place.backup(credential=new)
    both = parse_credential(old.encode() + new.encode(), "x")
    assert both == replace(new, former=(old,))
    assert parse_credential(new.encode() + old.encode(), "x") == both

    def granted(credential, machine):
        return GrantedRepo(
            place.area,
            place.header,
            credential,
            cache_dir=tmp_path / machine,
            clock=place.clock,
            random=os.urandom,
        )

    with granted(both, "both") as repo:
        repo.synchronise(lenient=True)
        assert [item.id for item in load(repo).snapshots] == [first.snapshot, second.snapshot]
        assert content(repo, first.manifest.root) == {"a": b"first"}
        assert content(repo, second.manifest.root) == {"a": b"second"}
    with granted(new, "new") as repo:
        repo.synchronise(lenient=True)
        assert [item.id for item in load(repo).snapshots] == [second.snapshot]


def test_what_the_owner_saw_before_still_tells_times(place):
    """Its entries under the old admin key are an owner's: what they did not know yet was not there."""
    day_ns = 24 * 3600 * 10**9
    good = place.backup()
    place.clock.now += 3 * day_ns
    place.prune()
    new = place.renew()
    place.clock.now += day_ns
    now, place.clock.now = place.clock.now, place.clock.now - round(3.9 * day_ns)
    forged = place.backup(machine="elsewhere", credential=new)
    place.clock.now = now
    with place.opened(fresh=True) as repo:
        plan = plan_retention(repo, load(repo), Policy(keep={"daily": 1}), zone=UTC)
    doubts = {item.snapshot.id: item.decision.doubt for item in plan.items}
    assert doubts == {good.snapshot: None, forged.snapshot: "late"}


def test_run_is_left_where_it_is_by_who_learns_that_he_is_late(place):
    """It says nothing, and opens nothing: the session that put it has written nothing."""
    place.renew()
    with place.client() as repo, pytest.raises(CredentialRenewed), Session(repo, Silent()) as session:
        session.begin()
    assert run_name(session.id) in place.area.snapshot()
    assert not verified(place).damages


def test_sign_that_is_there_already_hinders_nobody(place):
    """Whoever forges one stops the client, which storage can do anyhow; renewing helps against it."""
    place.area.put(ended_name(0), [b"forged"])
    with pytest.raises(CredentialRenewed):
        place.backup()
    new = place.renew()
    after = place.backup(credential=new)
    assert ids(place) == [after.snapshot]
    with pytest.raises(ObjectExists):
        place.area.put(ended_name(0), [b"again"])


def test_an_object_of_the_log_that_goes_while_commits_are_read_hides_none(place, monkeypatch):
    """A client that adds an entry deletes the object that it repeats: what that one committed is read from the new."""
    snapshot = place.backup()
    read, gone = told._read, []

    def once(repo, name):
        if not gone:
            gone.append(name)
            raise ObjectMissing(name)
        return read(repo, name)

    monkeypatch.setattr(told, "_read", once)
    with place.opened() as repo:
        assert snapshot.snapshot in told.read_commits(repo).told
