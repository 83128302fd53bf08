"""A removal is noticed: by the owner whoever deletes its record, and by the client, which cannot be told it falsely."""

from __future__ import annotations

from dataclasses import replace

import pytest

from respaldo.backend.wrap import Wrapper
from respaldo.codec.signing import Signer
from respaldo.core.errors import ClientRemoved, Corruption, CredentialRenewed, StorageFailed, UsageError
from respaldo.format.enrolment import RecordName, Removal, RemovalSign
from respaldo.format.epoch import removed_name
from respaldo.format.header import close_object
from respaldo.format.logbook import SUBJECTS_MAX
from respaldo.format.runrecord import parse_run_name
from respaldo.store import removing
from respaldo.store.applied import apply_removal
from respaldo.store.areas import list_clients
from respaldo.store.authority import REMOVE
from respaldo.store.recollection import Memory, parse_memory
from respaldo.store.runs import REMOVAL_PURPOSE
from tests.store.owners import Place
from tests.store.test_areas import bend


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def removed(place, *, unseen=False):
    """Removes the client after a first snapshot; returns that one's id."""
    place.write(a=b"first")
    first = place.backup().snapshot
    place.remove(unseen=unseen)
    return first


class Slow(Wrapper):
    """Is storage at which the client is removed after so many puts."""

    def __init__(self, inner, left, place):
        super().__init__(inner)
        self.left = left
        self.place = place

    def put(self, name, pieces):
        self.inner.put(name, pieces)
        self.left -= 1
        if self.left == 0:
            self.place.remove()

    def close(self):
        pass


def delete_records(place):
    name = RecordName(client=place.credential.client or place.known().enrolment.client, removed=True)
    for copy in (False, True):
        place.owner_backend.delete(replace(name, copy=copy).object_name())


def followed(place, machine="owner"):
    """What a machine of the owner's makes of the records once it has followed the log."""
    with place.owner(machine) as repo:
        assert not repo.log.follow().findings
        return list_clients(repo)


# --- the client learns it ---


def test_removed_client_learns_it_and_stores_nothing(place):
    """Instead of a snapshot that counts for nobody, with status 0."""
    removed(place)
    before = place.area.snapshot()
    place.write(a=b"second")
    with pytest.raises(ClientRemoved) as found:
        place.backup()
    assert found.value.exit_status == 12
    assert "key client add" in found.value.hint
    assert place.area.snapshot() == before


def test_what_is_under_way_while_it_is_removed_counts(place):
    """Its run was put before it looked for the sign, which was there before runs were listed: at every step."""
    for stop in range(12):
        other = Place(place.path / str(stop))
        other.write(a=b"first")
        area = other.area
        other.area = Slow(area, stop, other)
        try:
            done = other.backup().snapshot
        except ClientRemoved:
            done = None
        other.area = area
        there = {item.id for item in other.listed(fresh=True).snapshots}
        assert there == ({done} if done else set())
        assert done is None or stop != 1


@pytest.mark.parametrize("harm", ["empty", "torn", "of another", "by another", "another purpose", "another area"])
def test_sign_that_the_owner_has_not_made_stops_nobody(place, harm):
    """Whoever can write to storage has no way to say that a client was removed."""
    with place.opened() as repo:
        owner = Signer(repo.ring.admin_seed)
    client, header_hash, purpose = place.known().enrolment.client, place.header.hash, REMOVAL_PURPOSE
    if harm == "of another":
        client = bytes(16)
    elif harm == "by another":
        owner = Signer(place.credential.sign_seed)
    elif harm == "another purpose":
        purpose = b"notice"
    elif harm == "another area":
        header_hash = bytes(32)
    sign = RemovalSign(client=client, time_ns=1)
    data = replace(sign, signature=owner.sign(purpose, header_hash, sign.signed())).encode()
    data = {"empty": close_object(b""), "torn": data[:-1]}.get(harm, data)
    place.area.put(removed_name(0), [data])
    place.write(a=b"first")
    done = place.backup().snapshot
    assert [item.id for item in place.listed(fresh=True).snapshots] == [done]
    place.remove()
    place.write(a=b"second")
    with pytest.raises(ClientRemoved):
        place.backup()


def test_client_that_was_renewed_is_told_under_its_new_key(place):
    """The sign is of the newest epoch, whose key nobody has who had the one before."""
    place.write(a=b"first")
    renewed = place.renew()
    place.remove()
    with pytest.raises(ClientRemoved):
        place.backup(credential=renewed)
    with pytest.raises(CredentialRenewed):
        place.backup()


# --- the owner does not unlearn it ---


@pytest.mark.parametrize("machine", ["owner", "new"])
def test_removal_outlives_its_records(place, machine):
    """The log says it, and which runs count: on the machine that removed it, and on one that sees it first now."""
    first = removed(place, unseen=True)
    runs = frozenset(parse_run_name(name) for name in place.area.names("runs"))
    delete_records(place)
    place.write(a=b"second")
    place.backup()
    found, damaged = followed(place, machine)
    assert [item.removal.runs for item in found] == [runs]
    assert ["respaldo key client remove web" in error.reason for error in damaged] == [True]
    listed = [item.id for item in place.opened_as(found[0])]
    assert listed == [first]


def test_removal_is_remembered_when_the_log_is_cut_off(place):
    """What was seen once is not unseen, whether the rollback is accepted or not."""
    removed(place, unseen=True)
    delete_records(place)
    for name in list(place.owner_backend.names("log")):
        place.owner_backend.delete(name)
    for accept in (False, True):
        with place.owner() as repo:
            assert repo.log.follow(accept=accept).findings
            assert list_clients(repo)[0][0].removal is not None


def test_machine_that_cannot_remember_takes_it_from_the_log_each_time(place, monkeypatch):
    """Where its state directory is read-only."""
    removed(place)
    delete_records(place)

    def full(*_arguments):
        raise OSError(28, "full")

    monkeypatch.setattr("respaldo.store.recollection.write_file", full)
    assert followed(place, "new")[0][0].removal is not None


def test_memory_of_a_program_that_remembered_no_removals_is_brought_up_to_date(place):
    """Once, from all of the log."""
    removed(place)
    delete_records(place)
    with place.owner() as repo:
        memory = repo.log.recollection.load()
        parts = parse_old(memory)
        assert parts.removed == {}
        assert not parts.all_removed
        (repo.log.recollection.path / "memory").write_bytes(old_form(memory))
    assert followed(place)[0][0].removal is not None
    with place.owner() as repo:
        assert repo.log.recollection.load() == memory


def old_form(memory):
    from respaldo.format import canonical

    return canonical.pack([1, *canonical.unpack(memory.encode(), "x")[1:-1]])


def parse_old(memory):
    return parse_memory(old_form(memory), "x")


def test_entry_that_no_admin_key_has_signed_removes_nobody(place, monkeypatch):
    """Whoever was shut out can add entries, and have a client removed no more than he could forget."""
    place.write(a=b"first")
    monkeypatch.setattr("respaldo.store.logbook.REMOVE", "another verb")
    with place.owner("shut out") as repo:
        repo.announce(REMOVE, [place.known().enrolment.client])
    found, damaged = followed(place)
    assert found[0].removal is None
    assert not damaged


def test_removal_that_lost_its_record_is_made_good(place):
    """By removing it once more, which lets nothing in that came meanwhile."""
    first = removed(place, unseen=True)
    delete_records(place)
    place.write(a=b"second")
    place.backup()
    place.remove()
    found, damaged = followed(place)
    assert not damaged
    assert [item.id for item in place.opened_as(found[0])] == [first]
    with pytest.raises(UsageError, match="removed already"):
        place.remove()
    with pytest.raises(ClientRemoved):
        place.backup()


def test_removal_may_stop_anywhere_and_be_done_again(place):
    """Whatever put fails, the next one ends it; once the log says it, it counts."""
    for stop in range(4):
        other = Place(place.path / str(stop))
        other.write(a=b"first")
        first = other.backup().snapshot

        class Failing(Wrapper):
            left = stop

            def put(self, name, pieces):
                if not Failing.left:
                    raise StorageFailed(name, "torn off")
                Failing.left -= 1
                self.inner.put(name, pieces)

            def close(self):
                pass

        owner, area = other.owner_backend, other.area
        client = other.known().enrolment.client
        other.owner_backend, other.area = Failing(owner), Failing(area)
        with pytest.raises(StorageFailed), other.owner() as repo:
            removing.remove(repo, client, other.area)
        other.owner_backend, other.area = owner, area
        assert (followed(other)[0][0].removal is not None) == (stop > 1)
        if stop < 3:
            other.remove()
        found, damaged = followed(other)
        assert not damaged
        assert [item.id for item in other.opened_as(found[0])] == [first]


def test_area_stays_closed_where_nobody_knows_what_counts(place):
    """Else a collector would take all that the client has stored for what nobody needs."""
    removed(place)
    name = RecordName(client=place.known().enrolment.client, removed=True)
    for copy in (False, True):
        bend(place.owner_backend, replace(name, copy=copy).object_name())
    with place.owner() as repo:  # as one that was removed by a program whose log did not say so
        memory = repo.log.recollection.load()
        memory.removed.clear()
        repo.log.recollection.save(memory)
        found = list_clients(repo)[0][0]
    assert found.removal is not None
    with pytest.raises(Corruption, match="which of its runs count"):
        place.opened(client=found)


def test_removal_of_more_runs_than_an_entry_names_takes_several(place):
    """And all that they name count."""
    client = bytes(16)
    runs = frozenset(number.to_bytes(16, "big") for number in range(4 * SUBJECTS_MAX))
    parts = list(removing.entries(Removal(client=client, time_ns=1, runs=runs)))
    assert [len(part) for part in parts] == [SUBJECTS_MAX, 2]
    memory = Memory()
    with place.owner() as repo:
        for part in parts:
            apply_removal(memory, repo.log._entry(Memory(), Signer(bytes(32)), REMOVE, tuple(part), ""))
    assert memory.removed[client].runs == runs
