"""The log: what was seen once is never silently unseen, whatever storage, other clients and crashes do."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from respaldo.backend.memory import MemoryBackend
from respaldo.codec.compress import Compressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import ObjectExists, StorageError, StorageFailed
from respaldo.format.logbook import FIRST, Entry, encode_object, object_name
from respaldo.format.snapshot import Outcome, Verdict
from respaldo.store.authority import COMMIT, ENTRY_PURPOSE, FORGET, PRUNE
from respaldo.store.clientlog import ClientLog
from respaldo.store.logbook import Logbook
from respaldo.store.recollection import Recollection
from respaldo.store.vault import Vault
from tests.store.repositories import Clock, Tape

RING = KeyRing(b"m" * 32, b"h" * 32)
PENDING = b"p" * 32


def vault():
    return Vault(Sealer(RING, b"r" * 16, Tape(b"seal")), Compressor(3))


def client(backend, path, name="a", kind=Logbook):
    """Returns one client's log of a repository."""
    return kind(
        backend=backend,
        vault=vault(),
        ring=RING,
        clock=Clock(),
        recollection=Recollection(path / name, Tape(name.encode())),
    )


def snapshot(number):
    return number.to_bytes(16, "big")


@pytest.fixture
def backend():
    return MemoryBackend()


def test_entries_follow_each_other_and_are_seen_by_others(backend, tmp_path):
    """What one client writes another one reads, in order, and nothing is found wrong."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    for number in range(5):
        assert one.committed(snapshot(number), PENDING)
    assert one.append(FORGET, [snapshot(1)])
    followed = other.follow()
    assert followed.findings == []
    assert [entry.verb for entry in followed.fresh] == [COMMIT] * 5 + [FORGET]
    assert followed.memory.live == {snapshot(number) for number in (0, 2, 3, 4)}
    assert other.follow().fresh == []
    assert other.append(PRUNE, note="3 packs")
    [head] = [entry.heads for entry in one.follow().fresh]
    assert [(item.client, item.number) for item in head] == [(one.recollection.client, 5)]


def test_a_long_log_is_few_objects(backend, tmp_path):
    """Sixteen objects become one, sixteen of those one again; a client that is new reads them all and finds nothing."""
    one = client(backend, tmp_path)
    for number in range(600):
        one.committed(snapshot(number), PENDING)
    assert len(backend.names("log")) <= 2 + 16 + 16
    followed = client(backend, tmp_path, "b").follow()
    assert followed.findings == []
    assert [entry.number for entry in followed.fresh] == list(range(600))
    assert len(followed.memory.live) == 600
    assert [entry.number for entry in client(backend, tmp_path, "c").read_all()] == list(range(600))


@pytest.mark.parametrize("kept", range(20))
def test_a_rollback_is_found(backend, tmp_path, kept):
    """Whatever earlier state storage goes back to, who has seen more says so; who has not, cannot."""
    one, watcher = client(backend, tmp_path), client(backend, tmp_path, "watcher")
    states = [backend.snapshot()]
    for number in range(20):
        one.committed(snapshot(number), PENDING)
        states.append(backend.snapshot())
    watcher.follow()
    roll_back(backend, states[kept])
    for who in (one, watcher):
        findings = who.follow().findings
        assert len(findings) == 1
        assert "rolled back" in findings[0]
        assert who.follow().findings == findings, "it is said again and again"
    assert client(backend, tmp_path, "new").follow().findings == []
    assert watcher.follow(accept=True).findings
    assert watcher.follow().findings == []


def roll_back(backend, objects):
    for name in backend.names("log"):
        if name not in objects:
            backend.delete(name)
    for name, content in objects.items():
        backend.damage(name, content)


def test_what_another_client_saw_must_be_there(backend, tmp_path):
    """Storage that shows a client less than it showed another is found out as soon as that one's entry is shown."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    one.committed(snapshot(1), PENDING)
    hidden = backend.snapshot()
    one.committed(snapshot(2), PENDING)
    other.follow()
    other.committed(snapshot(3), PENDING)
    for name in backend.names("log"):
        if name not in hidden and one.recollection.client.hex() in name:
            backend.delete(name)
    [finding] = client(backend, tmp_path, "new").follow().findings
    assert "which is not there" in finding


def test_two_histories_of_one_client_are_a_fork(backend, tmp_path):
    """A client that went on after a rollback that it accepted has two histories; whoever saw the first one knows."""
    one, watcher = client(backend, tmp_path), client(backend, tmp_path, "watcher")
    one.committed(snapshot(1), PENDING)
    before = backend.snapshot()
    one.committed(snapshot(2), PENDING)
    watcher.follow()
    roll_back(backend, before)
    one.follow(accept=True)
    one.committed(snapshot(3), PENDING)
    assert watcher.follow().findings == []  # entry 1 is there: it is another one, and nothing new came that says so
    one.committed(snapshot(4), PENDING)
    [finding] = watcher.follow().findings
    assert "forked" in finding


def test_a_copied_identity_becomes_another_client(backend, tmp_path):
    """A machine and its clone share a key: the one that comes second goes on under a new one, and loses nothing."""
    one = client(backend, tmp_path)
    one.committed(snapshot(1), PENDING)
    copied = tmp_path / "clone"
    copied.mkdir()
    for name in ("memory", "identity"):
        (copied / name).write_bytes((tmp_path / "a" / name).read_bytes())
    clone = client(backend, tmp_path, "clone")
    one.committed(snapshot(2), PENDING)
    assert clone.committed(snapshot(3), PENDING)
    assert clone.recollection.client != one.recollection.client
    followed = client(backend, tmp_path, "new").follow()
    assert followed.findings == []
    assert followed.memory.live == {snapshot(1), snapshot(2), snapshot(3)}


class Torn(MemoryBackend):
    """Loses the answer to a put: before it is done, or after."""

    moment = ""

    def put(self, name, pieces):
        if name.startswith("log/") and self.moment:
            moment, self.moment = self.moment, ""
            if moment == "after":
                super().put(name, pieces)
            raise KeyboardInterrupt
        super().put(name, pieces)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_entry_that_was_cut_off_is_settled_by_the_next(tmp_path, moment):
    """Whether or not the entry arrived, the client goes on under the same name and says what it owes."""
    backend = Torn()
    one = client(backend, tmp_path)
    one.committed(snapshot(1), PENDING)
    one.owe(snapshot(2), PENDING)
    decided(backend, 2, Verdict.COMMIT)
    one.owe(snapshot(3), PENDING)  # which came to nothing
    one.owe(snapshot(5), PENDING)  # as did this
    decided(backend, 5, Verdict.ABORT)
    one.owe(snapshot(6), PENDING)  # not decided yet
    backend.put(f"pending/{snapshot(6).hex()}", [b"manifest"])
    who = one.recollection.client
    backend.moment = moment
    with pytest.raises(KeyboardInterrupt):
        one.committed(snapshot(2), PENDING)
    one = client(backend, tmp_path)
    one.committed(snapshot(4), PENDING)
    assert one.recollection.client == who
    followed = client(backend, tmp_path, "new").follow()
    assert followed.findings == []
    assert followed.memory.live == {snapshot(1), snapshot(2), snapshot(4)}
    decided(backend, 6, Verdict.COMMIT)
    one.committed(snapshot(7), PENDING)
    assert one.recollection.load().live == {snapshot(number) for number in (1, 2, 4, 6, 7)}


def test_what_another_process_has_said_is_not_said_again(backend, tmp_path):
    """Of a snapshot that was forgotten before its slow writer goes on, a second entry would say that it is there."""
    slow, same, other = client(backend, tmp_path), client(backend, tmp_path), client(backend, tmp_path, "b")
    slow.owe(snapshot(1), PENDING)
    decided(backend, 1, Verdict.COMMIT)
    same.committed(snapshot(2), PENDING)
    other.follow()
    same.append(FORGET, [snapshot(1)])
    other.follow()
    assert slow.committed(snapshot(1), PENDING)
    assert missed(slow, 2) == missed(other, 2) == set()
    slow.committed(snapshot(3), PENDING)
    assert other.follow().memory.live == {snapshot(2), snapshot(3)}


def test_of_an_area_each_process_says_what_it_owes(backend, tmp_path):
    """The client cannot read an outcome: what another process of it owes it leaves to that one, which says it."""
    slow, same = client(backend, tmp_path, kind=ClientLog), client(backend, tmp_path, kind=ClientLog)
    slow.owe(snapshot(1), PENDING)
    decided(backend, 1, Verdict.COMMIT)
    same.committed(snapshot(2), PENDING)
    slow.committed(snapshot(1), PENDING)
    assert client(backend, tmp_path, "owner").follow().memory.live == {snapshot(1), snapshot(2)}


def decided(backend, number, verdict):
    """Decides a snapshot, as the catalogue does."""
    name = f"outcome/{snapshot(number).hex()}"
    outcome = Outcome(verdict=verdict, pending_hash=PENDING)
    backend.put(name, [vault().seal_record("outcome", name, outcome.encode())])


def missed(log, *numbers):
    """Returns what lacks where these snapshots are there, and nothing changes."""
    there = [snapshot(number) for number in numbers]
    return log.missing(there, lambda: there)


def test_snapshots_that_vanished_are_missed(backend, tmp_path):
    """What was committed and not forgotten must be there; what was forgotten meanwhile is not missed."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    for number in range(3):
        one.committed(snapshot(number), PENDING)
    assert missed(one, 0, 1, 2) == set()
    other.append(FORGET, [snapshot(0)])
    assert missed(one, 1, 2) == set()
    assert missed(one, 1) == {snapshot(2)}
    one.give_up([snapshot(2)])
    assert missed(one, 1) == set()


def test_what_another_process_commits_after_the_listing_is_not_missed(backend, tmp_path):
    """Two processes of one client remember in one place: what one commits, the other may not have listed yet."""
    one, same = client(backend, tmp_path), client(backend, tmp_path)
    one.committed(snapshot(0), PENDING)
    listed = [snapshot(0)]
    same.committed(snapshot(1), PENDING)
    assert one.missing(listed, lambda: [snapshot(0), snapshot(1)]) == set()
    assert one.missing(listed, lambda: listed) == {snapshot(1)}


def test_what_another_client_forgets_between_two_listings_is_not_missed(backend, tmp_path):
    """What was remembered, and is gone when it is looked for again, somebody has said that he forgets."""
    one, other = client(backend, tmp_path), client(backend, tmp_path, "b")
    one.committed(snapshot(0), PENDING)

    def again():
        other.append(FORGET, [snapshot(0)])
        return []

    assert one.missing([], again) == set()


def test_forgetting_may_be_seen_before_the_commit(backend, tmp_path):
    """Another client may forget what is not in the log yet; the commit that follows does not bring it back."""
    one, other, third = (client(backend, tmp_path, name) for name in "abc")
    other.append(FORGET, [snapshot(1)])
    third.follow()
    one.committed(snapshot(1), PENDING)
    assert third.follow().memory.live == set()
    assert missed(third) == set()


def forged(one, entry, *, key):
    """Puts an entry signed by some key behind what one client wrote."""
    signer = Signer(key)
    signed = replace(entry, signature=signer.sign(ENTRY_PURPOSE, RING.header_hash, entry.signed()))
    name = object_name(signed.client, signed.number)
    one._backend.put(name, [vault().seal_record("log", name, encode_object([signed.encode()]))])
    return signed


@pytest.mark.parametrize("what", ["foreign key", "foreign client", "no admin", "not the one before", "gap"])
def test_entries_that_nobody_should_have_written_are_found(backend, tmp_path, what):
    """Whoever holds the repository's key but not the client's cannot speak for it, nor take anything away as it."""
    one = client(backend, tmp_path)
    one.committed(snapshot(1), PENDING)
    seed = (tmp_path / "a" / "identity").read_bytes()
    own = one.recollection.client
    entry = Entry(
        client=own,
        number=1,
        previous=one.follow().memory.known[own].hash,
        time_ns=1,
        verb=COMMIT,
        subjects=(snapshot(2) + PENDING,),
    )
    watcher = client(backend, tmp_path, "watcher")
    watcher.follow()
    if what == "foreign key":
        forged(one, entry, key=b"x" * 32)
    elif what == "foreign client":
        public = Signer(b"x" * 32).public
        forged(one, replace(entry, client=b"c" * 16, number=0, previous=FIRST, key=public), key=b"x" * 32)
    elif what == "no admin":
        forged(one, replace(entry, verb=FORGET, subjects=(snapshot(1),)), key=seed)
    elif what == "not the one before":
        forged(one, replace(entry, previous=b"?" * 32), key=seed)
    else:
        forged(one, replace(entry, number=3), key=seed)
    [finding] = watcher.follow().findings
    assert {
        "foreign key": "not signed by that client",
        "foreign client": "not signed by that client",
        "no admin": "no admin key",
        "not the one before": "forked",
        "gap": "are missing",
    }[what] in finding
    assert snapshot(1) in watcher.follow().memory.live


def test_a_damaged_entry_is_a_finding_that_can_be_accepted(backend, tmp_path):
    """Bit rot in the log stops nobody for ever: what follows it is followed again once that was accepted."""
    one, watcher = client(backend, tmp_path), client(backend, tmp_path, "watcher")
    one.committed(snapshot(0), PENDING)
    watcher.follow()
    for number in range(1, 4):
        one.committed(snapshot(number), PENDING)
    name = object_name(one.recollection.client, 2)
    backend.damage(name, backend.get(name)[:-1] + b"?")
    [finding] = watcher.follow().findings
    assert "cannot be read" in finding
    assert watcher.follow(accept=True).memory.live == {snapshot(number) for number in (0, 1, 3)}
    assert watcher.follow().findings == []
    one.committed(snapshot(4), PENDING)
    assert watcher.follow().findings == []


def test_storage_that_fails_is_no_finding(backend, tmp_path):
    """A listing that failed is never taken for an empty one."""

    class Failing(MemoryBackend):
        def list(self, folder):
            raise StorageFailed(folder)

    one = client(backend, tmp_path)
    one.committed(snapshot(0), PENDING)
    one._backend = Failing()
    with pytest.raises(StorageError):
        one.follow()


def test_who_cannot_remember_writes_nothing(backend, tmp_path):
    """Without a place for its identity a client does not write, and says so."""
    (tmp_path / "a").write_text("in the way")
    one = client(backend, tmp_path)
    assert one.committed(snapshot(0), PENDING) is False
    assert one.remembers is False
    assert backend.names("log") == []
    assert one.follow().findings == []


def test_a_damaged_memory_is_made_anew(backend, tmp_path):
    """It says that nothing is remembered, and trusts what it sees, as at the first time."""
    one = client(backend, tmp_path)
    one.committed(snapshot(0), PENDING)
    (tmp_path / "a" / "memory").write_bytes(b"nonsense")
    one = client(backend, tmp_path)
    assert one.follow().findings == []
    assert one.remembers is False


def test_what_is_written_is_for_this_user_alone(backend, tmp_path):
    """The signing key and the memory are readable by nobody else, whatever the umask."""
    client(backend, tmp_path).committed(snapshot(0), PENDING)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()} == {0o600}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_storage_that_takes_no_entry_is_an_error(backend, tmp_path):
    """It is not tried for ever."""

    class Full(MemoryBackend):
        def put(self, name, pieces):
            raise ObjectExists(name)

    one = client(Full(), tmp_path)
    with pytest.raises(ObjectExists):
        one.committed(snapshot(0), PENDING)


class Histories(RuleBasedStateMachine):
    """Several clients write and follow; storage rolls back. Against what each of them has seen."""

    def __init__(self):
        super().__init__()
        import tempfile
        from pathlib import Path

        self.folder = tempfile.TemporaryDirectory()
        self.backend = MemoryBackend()
        self.clients = {name: client(self.backend, Path(self.folder.name), name) for name in "abc"}
        self.seen = {name: {} for name in "abc"}
        self.states = []
        self.number = 0
        self.honest = True

    def teardown(self):
        self.folder.cleanup()

    @initialize()
    def begin(self):
        self.keep()

    def last(self):
        """Returns how far each client's log goes, as storage shows it."""
        found = {}
        for name in self.backend.names("log"):
            who, number = name.removeprefix("log/").split(".")
            found[who] = max(found.get(who, -1), int(number, 16))
        return found

    @precondition(lambda self: self.honest)
    @rule(who=st.sampled_from("abc"), times=st.integers(1, 20))
    def write(self, who, times):
        for _ in range(times):
            self.number += 1
            assert self.clients[who].committed(snapshot(self.number), PENDING)
        own = self.clients[who].recollection.client.hex()
        self.seen[who][own] = self.last()[own]

    @rule()
    def keep(self):
        self.states.append(copy.copy(self.backend.snapshot()))

    @rule(who=st.sampled_from("abc"))
    def follow(self, who):
        last = self.last()
        less = any(last.get(other, -1) < number for other, number in self.seen[who].items())
        findings = self.clients[who].follow().findings
        assert bool(findings) == less if self.honest else bool(findings) >= less
        if not findings:
            self.seen[who] = last

    @precondition(lambda self: self.honest and self.states)
    @rule(data=st.data())
    def roll_back(self, data):
        roll_back(self.backend, data.draw(st.sampled_from(self.states)))
        self.honest = False

    @invariant()
    def few_objects(self):
        assert len(self.backend.names("log")) <= 3 * 40


class TestHistories(Histories.TestCase):
    """Runs the machine."""

    settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_ids_of_clients_come_from_their_keys():
    """A key cannot be exchanged without becoming another client."""
    assert client_of(Signer(b"a" * 32).public) != client_of(Signer(b"b" * 32).public)
    assert len(client_of(Signer(b"a" * 32).public)) == 16


def test_an_epoch_that_another_process_has_seen_stays_remembered(tmp_path):
    """Whoever looked before that one, and comes after it, does not put an earlier one in its place."""
    one, same = (Recollection(tmp_path / "a", Tape(b"a")) for _ in range(2))
    seen = one.epoch()
    assert same.note_epoch(2, b"2" * 32, instead_of=same.epoch())
    assert one.note_epoch(1, b"1" * 32, instead_of=seen)
    assert one.epoch() == (2, b"2" * 32)
    assert one.note_epoch(1, b"1" * 32, instead_of=one.epoch())
    assert same.epoch() == (1, b"1" * 32)
