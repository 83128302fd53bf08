"""What there is of a log, what lacks of it, and what may be said of that: by whom, and to whom."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import StorageFailed
from respaldo.format.logbook import FIRST, Entry, Head, object_name
from respaldo.format.runrecord import run_name
from respaldo.store import recollection
from respaldo.store.authority import ADMIN_PURPOSE
from respaldo.store.clientlog import ClientLog
from respaldo.store.logloss import LOST, Gap, Losses, parse_subject, subject_of
from respaldo.store.logstate import give_up, put_again, survey_log
from tests.store.test_logbook import PENDING, RING, Torn, client, forged, roll_back, snapshot

CLIENT = b"c" * 16


@pytest.fixture
def backend():
    return MemoryBackend()


def write(one, count, start=0):
    for number in range(start, start + count):
        assert one.committed(snapshot(number), PENDING)


def test_gaps_are_what_no_object_holds(backend, tmp_path):
    """Whatever is deleted: exactly that lacks, and can be put again by who has seen it, in as few objects."""
    one, watcher = client(backend, tmp_path), client(backend, tmp_path, "watcher")
    write(one, 12)
    watcher.follow()
    who = one.recollection.client
    before = backend.snapshot()
    entries = survey_log(one).entries[who]
    for number in (0, 3, 4, 5, 9, 11):
        backend.delete(object_name(who, number))
    for log in (one, watcher):
        state = survey_log(log)
        assert state.gaps == [Gap(who, 0, 0), Gap(who, 3, 5), Gap(who, 9, 9), Gap(who, 11, 11)]
        assert [run for gap in state.gaps for run in state.runs(gap)] == [(gap, True) for gap in state.gaps]
    for gap in state.gaps:
        put_again(watcher, state, gap)
    assert sorted(backend.names("log")) == sorted(
        name for name in before if name not in {object_name(who, 3), object_name(who, 4)}
    )
    assert survey_log(client(backend, tmp_path, "new")).entries[who] == entries
    assert client(backend, tmp_path, "new").follow().findings == []


def test_a_stranger_knows_of_no_end(backend, tmp_path):
    """Who has seen nothing misses what lies between, and what others have seen, and no more."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    write(one, 6)
    other.follow()
    write(other, 1, 100)
    who = one.recollection.client
    for number in (1, 4, 5):
        backend.delete(object_name(who, number))
    state = survey_log(client(backend, tmp_path, "new"))
    assert state.gaps == [Gap(who, 1, 1), Gap(who, 4, 5)]
    assert [run for gap in state.gaps for run in state.runs(gap)] == [(gap, False) for gap in state.gaps]
    backend.delete(object_name(other.recollection.client, 0))
    assert survey_log(client(backend, tmp_path, "newer")).gaps == [Gap(who, 1, 1)]


def test_what_is_given_up_stops_nobody(backend, tmp_path):
    """Neither a client that has seen less, nor one that has seen more, nor the one whose entries they were."""
    one, less, more = (client(backend, tmp_path, name) for name in "abc")
    write(one, 2)
    less.follow()
    write(one, 3, 2)
    more.follow()
    write(more, 1, 50)
    who = one.recollection.client
    for number in (1, 3, 4):
        backend.delete(object_name(who, number))
    mender = client(backend, tmp_path, "mender")
    assert mender.follow().findings
    state = survey_log(mender)
    assert give_up(mender, state, state.gaps)
    assert survey_log(mender).gaps == []
    assert survey_log(mender).lost == [Gap(who, 1, 1), Gap(who, 3, 4)]
    for log in (one, less, more, mender, client(backend, tmp_path, "new")):
        assert log.follow().findings == []
    write(one, 1, 10)
    assert one.recollection.client == who, "the author goes on as he was"
    for log in (less, more, mender, client(backend, tmp_path, "newer")):
        followed = log.follow()
        assert followed.findings == []
        assert followed.memory.known[who].number == 5
        assert snapshot(10) in followed.memory.live


def test_more_than_what_was_given_up_is_missed_still(backend, tmp_path):
    """It is no leave to lose more."""
    one, mender = client(backend, tmp_path), client(backend, tmp_path, "mender")
    write(one, 6)
    who = one.recollection.client
    backend.delete(object_name(who, 2))
    state = survey_log(mender)
    give_up(mender, state, state.gaps)
    backend.delete(object_name(who, 3))
    [finding] = client(backend, tmp_path, "new").follow().findings
    assert finding == f"entries 2 to 3 of client {who.hex()[:8]} are missing"
    assert survey_log(mender).gaps == [Gap(who, 2, 3)]


@pytest.mark.parametrize("signed", [False, True])
def test_only_an_admin_key_gives_up(backend, tmp_path, signed):
    """A client's own key is not enough, so that nobody who may only write takes the others' past away."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    write(one, 4)
    write(other, 1, 50)
    who, theirs = one.recollection.client, other.recollection.client
    backend.delete(object_name(who, 1))
    entry = Entry(
        client=theirs,
        number=1,
        previous=other.memory().known[theirs].hash,
        time_ns=1,
        verb=LOST,
        subjects=(subject_of(Gap(who, 1, 1), b""),),
    )
    if signed:
        entry = replace(entry, admin=one.admin.sign(ADMIN_PURPOSE, RING.header_hash, entry.signed()))
    forged(other, entry, key=(tmp_path / "b" / "identity").read_bytes())
    findings = client(backend, tmp_path, "new").follow().findings
    if signed:
        assert findings == []
    else:
        assert sorted(findings) == sorted(
            [
                f"entry 1 of client {who.hex()[:8]} is missing",
                f"entry 1 of client {theirs.hex()[:8]} says lost, and no admin key that was valid then has signed it",
            ]
        )


def test_a_gap_is_named_in_64_bytes():
    """With the client's key, which must be his."""
    key = Signer(b"a" * 32).public
    gap = Gap(client_of(key), 3, 1 << 62)
    assert len(subject_of(gap, key)) == 64
    assert parse_subject(subject_of(gap, key)) == (gap, key)
    assert parse_subject(subject_of(gap, b"")) == (gap, b"")
    assert parse_subject(subject_of(Gap(CLIENT, 3, 4), key)) is None
    assert parse_subject(subject_of(Gap(CLIENT, 4, 3), b"")) is None
    assert parse_subject(b"short") is None


@pytest.mark.parametrize(("first", "last", "expected"), [(2, 5, True), (3, 4, True), (2, 6, False), (1, 2, False)])
def test_losses_join(first, last, expected):
    """Two that touch are one."""
    subjects = tuple(subject_of(Gap(CLIENT, *part), b"") for part in ((4, 5), (2, 3), (2, 2)))
    entry = Entry(client=CLIENT, number=0, previous=FIRST, time_ns=0, verb=LOST, subjects=subjects)
    assert Losses([entry]).has(CLIENT, first, last) is expected
    assert not Losses([entry]).has(b"d" * 16, first, last)


def test_numbers_that_others_say_cost_no_time(backend, tmp_path):
    """A client may say that it has seen entry 2⁶² of another one."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    write(one, 2)
    write(other, 1, 50)
    theirs = other.recollection.client
    entry = Entry(
        client=theirs,
        number=1,
        previous=other.memory().known[theirs].hash,
        time_ns=1,
        heads=(Head(one.recollection.client, 1 << 62, b"?" * 32),),
        verb="commit",
        subjects=(snapshot(60) + PENDING,),
    )
    forged(other, entry, key=(tmp_path / "b" / "identity").read_bytes())
    state = survey_log(one)
    [gap] = state.gaps
    assert gap == Gap(one.recollection.client, 2, 1 << 62)
    assert list(state.runs(gap)) == [(gap, False)]


def test_an_entry_that_was_torn_in_a_crash_can_be_put_again(tmp_path):
    """Its author has kept what it was to be."""
    backend = Torn()
    one = client(backend, tmp_path)
    write(one, 1)
    who = one.recollection.client
    backend.moment = "after"
    with pytest.raises(KeyboardInterrupt):
        write(one, 1, 1)
    name = object_name(who, 1)
    backend.damage(name, backend.get(name)[:100])
    write(one, 1, 2)
    assert one.recollection.client != who
    state = survey_log(one)
    assert list(state.damaged) == [name]
    assert [list(state.runs(gap)) for gap in state.gaps] == [[(Gap(who, 1, 1), True)]]
    backend.delete(name)
    put_again(one, state, state.gaps[0])
    assert client(backend, tmp_path, "new").follow().findings == []


def test_a_bad_sector_is_one_entry_that_cannot_be_read(backend, tmp_path):
    """It is a finding like damage; storage that fails as a whole, or may be read again, is not."""
    one = client(backend, tmp_path)
    write(one, 3)
    backend.put("header", [b"header"])
    name = object_name(one.recollection.client, 1)
    get, trouble = backend.get_whole, StorageFailed(name, "Input/output error")

    def fail(wanted, *more):
        if wanted == name:
            raise trouble
        return get(wanted, *more)

    backend.get_whole = fail
    assert survey_log(one).damaged == {name: "it cannot be read (Input/output error)"}
    [finding] = client(backend, tmp_path, "new").follow().findings
    assert finding.endswith("cannot be read: it cannot be read (Input/output error)")
    trouble.retryable = True
    with pytest.raises(StorageFailed):
        survey_log(one)
    trouble.retryable = False
    backend.delete("header")
    with pytest.raises(StorageFailed):
        survey_log(one)


def test_what_was_kept_of_another_history_is_not_put_back(backend, tmp_path):
    """After a rollback that was accepted, the author went another way: what he wrote before fits nothing there."""
    one = client(backend, tmp_path)
    write(one, 2)
    before = backend.snapshot()
    write(one, 1, 2)
    roll_back(backend, before)
    one.follow(accept=True)
    write(one, 2, 10)
    who = one.recollection.client
    entry = survey_log(one).entries[who][2]
    backend.delete(object_name(who, 2))
    state = survey_log(one)
    assert state.seen == {(who, 2): entry}


def test_what_is_kept_is_bounded_and_survives_a_crash(tmp_path, monkeypatch):
    """The latest stay; an end that was cut off hides none that follow."""
    place = recollection.Recollection(tmp_path / "a", os.urandom)
    with place.turn():
        assert place.seen() == []
        place.keep([b"one", b"two"])
        with (tmp_path / "a" / "seen").open("ab") as file:
            file.write(b"\nQUJ")
        place.keep([b"three"])
        assert place.seen() == [b"one", b"two", b"three"]
        monkeypatch.setattr(recollection, "_SEEN_BYTES_MAX", 1000)
        for number in range(200):
            place.keep([b"entry %03d" % number])
            assert (tmp_path / "a" / "seen").stat().st_size <= 1000
            assert place.seen()[-1] == b"entry %03d" % number
        assert len(place.seen()) > 30


class Slipping(MemoryBackend):
    """Lists the log while others add to it: what is done meanwhile may be in the listing, or not."""

    def __init__(self):
        super().__init__()
        self.meanwhile = None
        self.unseen = []

    def list(self, folder):
        found = super().list(folder)
        if folder == "log":
            if self.meanwhile is not None:
                meanwhile, self.meanwhile = self.meanwhile, None
                meanwhile()
            unseen, self.unseen = self.unseen, []
            found = [item for item in found if item[0] not in unseen]
        return found


READINGS = {
    "survey": lambda log, _: survey_log(log).faults == {},
    "read all": lambda log, _: [entry.number for entry in log.read_all()] == list(range(16)),
    "hash": lambda log, who: bool(log.hash_at(who, 2)),
    "losses": lambda log, _: log.losses().gaps == [],
}


@pytest.mark.parametrize("reading", READINGS)
def test_an_object_that_goes_while_the_log_is_read_is_no_loss(tmp_path, reading):
    """Whoever adds an entry deletes the object whose entries it repeats: its reader looks again."""
    backend = Slipping()
    one = client(backend, tmp_path)
    write(one, 15)
    backend.meanwhile = lambda: write(one, 1, 15)
    assert READINGS[reading](client(backend, tmp_path, "new"), one.recollection.client)
    assert backend.meanwhile is None


@pytest.mark.parametrize("reading", ["survey", "hash"])
def test_an_object_that_a_listing_passed_over_is_no_loss(tmp_path, reading):
    """A listing that goes on while others write shows what came later, and not what that one had seen."""
    backend = Slipping()
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    write(one, 4)
    other.follow()
    write(other, 1, 9)
    backend.unseen = [name for name in backend.names("log") if one.recollection.client.hex() in name]
    assert backend.unseen
    assert READINGS[reading](client(backend, tmp_path, "new"), one.recollection.client)


def test_an_area_whose_listing_passed_over_its_clients_end_lacks_nothing(tmp_path):
    """Its client looks again, too."""
    backend = Slipping()
    one = client(backend, tmp_path, kind=ClientLog)
    write(one, 3)
    for number in range(3):
        backend.put(run_name(snapshot(number)), [b"run"])
    backend.unseen = backend.names("log")[-1:]
    assert one.follow().findings == []
    backend.unseen = []
    backend.delete(object_name(one.recollection.client, 2))
    assert len(one.follow().findings) == 1
