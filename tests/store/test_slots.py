"""Key slots as objects: added, listed, removed; the last one stays."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
from nacl.exceptions import RuntimeError as NaclRuntimeError
from nacl.pwhash import argon2id

from respaldo.backend.faults import CHANGES, Fault, Faults, lasting_failure
from respaldo.backend.local import LocalBackend
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.codec import slots as codec_slots
from respaldo.codec.slots import SLOTS_MAX, SLOTS_READ_MAX, Kdf, Opened, Secret
from respaldo.core.errors import Corruption, StorageDenied, StorageError, StorageFailed, UsageError, WrongSecret
from respaldo.format.header import close_object
from respaldo.store import slots
from tests.flows.check.scenes import flipped
from tests.protocol.scheduler import Scheduler, Script, Shared, _half_of
from tests.store.repositories import OTHER, SECRET, initialise, opened

CHEAP = Kdf(passes=1, memory_kib=64 << 10)


def add(repo, secret=OTHER, label="second", random=os.urandom):
    return slots.add(
        repo.backend, repo.ring, repo.vault, secret=secret, kdf=CHEAP, label=label, now_ns=7, random=random
    )


def opens(repo, secret):
    return slots.open_all(repo.backend, repo.header, secret)[0].master == repo.ring.master


def test_slot_that_was_added_opens_the_same_repository(repo):
    """Two secrets, one master key; each opens, others do not."""
    name = add(repo)
    assert (opens(repo, SECRET), opens(repo, OTHER)) == (True, True)
    for wrong in (Secret(key=b"w" * 32), Secret(passphrase=b"no slot of this method")):
        with pytest.raises(WrongSecret):
            opens(repo, wrong)
    infos, damaged = slots.describe(repo.backend, repo.vault)
    assert damaged == []
    assert {(info.label, info.method, info.kdf) for info in infos} == {("first", "key", None), ("second", "key", None)}
    assert next(info.created_ns for info in infos if info.name == name) == 7


def test_passphrase_opens_with_the_cost_of_its_slot(repo):
    """A passphrase is any bytes; its slot says what turning it into a key costs."""
    phrase = Secret(passphrase="contraseña".encode())
    name = add(repo, phrase)
    assert opens(repo, phrase)
    [info] = [info for info in slots.describe(repo.backend, repo.vault)[0] if info.name == name]
    assert (info.method, info.kdf) == ("argon2id", CHEAP)


def test_slot_that_was_removed_opens_nothing_more(repo):
    """Without its slot a secret is wrong."""
    name = add(repo)
    slots.remove(repo.backend, name, os.urandom)
    with pytest.raises(WrongSecret):
        opens(repo, OTHER)
    assert opens(repo, SECRET)


def test_slot_that_was_removed_and_is_put_back_opens(repo):
    """Which is why docs/security.md says that removing one revokes nothing for who has kept its bytes."""
    name = add(repo)
    kept = repo.backend.get(name)
    slots.remove(repo.backend, name, os.urandom)
    repo.backend.put(name, [kept])
    assert opens(repo, OTHER)


def test_last_slot_is_not_removed(repo):
    """Nobody can lock everybody out by mistake; slots that are damaged do not count."""
    [(first, _)] = repo.backend.list("keys")
    with pytest.raises(UsageError, match="last key slot"):
        slots.remove(repo.backend, first, os.urandom)
    other = add(repo)
    repo.backend.damage(other, flipped(repo.backend.get(other), 50))
    with pytest.raises(UsageError, match="last key slot"):
        slots.remove(repo.backend, first, os.urandom)
    slots.remove(repo.backend, other, os.urandom)
    assert opens(repo, SECRET)


def test_slot_that_is_not_there_cannot_be_removed(repo):
    """A wrong name is a wrong use, whatever it is."""
    for name in ("keys/ffff", "header", "keys/../header", ""):
        with pytest.raises(UsageError):
            slots.remove(repo.backend, name, os.urandom)


def test_there_are_at_most_sixteen_slots(repo):
    """The seventeenth is refused; one that came all the same locks nobody out, and a host of them is damage."""
    for number in range(SLOTS_MAX - 1):
        add(repo, Secret(key=bytes([number]) * 32))
    assert opens(repo, Secret(key=bytes([14]) * 32))
    with pytest.raises(UsageError, match="16 key slots"):
        add(repo, OTHER)
    [*_, (name, _)] = repo.backend.list("keys")
    repo.backend.damage("keys/ffffffffffffffff", repo.backend.get(name))
    assert opens(repo, SECRET)
    for number in range(SLOTS_READ_MAX - SLOTS_MAX):
        repo.backend.damage(f"keys/{number:016x}", repo.backend.get(name))
    with pytest.raises(Corruption, match="more than the 32"):
        opens(repo, SECRET)


def test_damaged_slots_do_not_keep_another_from_opening(repo):
    """As long as one sound slot fits; where none does and some are damaged, the damage is named, not the secret."""
    other = add(repo)
    content = repo.backend.get(other)
    for bad in (b"", content[:-1], flipped(content, 3), b"\0" * 5000):
        repo.backend.damage(other, bad)
        assert opens(repo, SECRET)
        with pytest.raises(Corruption) as caught:
            opens(repo, OTHER)
        assert caught.value.name == other
        infos, damaged = slots.describe(repo.backend, repo.vault)
        assert ([info.label for info in infos], [error.name for error in damaged]) == (["first"], [other])


KINDS = ["directory", "FIFO", "socket", "symlink", "unreadable"]


def misplace(path, kind):
    """Puts something under a name that is no object, or cannot be read."""
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "symlink":
        path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_slot_does_not_keep_another_from_opening(tmp_path, kind):
    """Whatever stands in the place of one slot, the others open; where none does, that one is named."""
    local = LocalBackend(tmp_path / "repository", create=True)
    initialise(local)
    with opened(local, tmp_path / "cache") as repo:
        name = "keys/" + "0" * 16
        misplace(tmp_path / "repository" / name, kind)
        if kind == "unreadable":
            local.put(name, [b"x"])
            real = local.get

            def get(asked, offset=0, length=None):
                if asked == name:
                    raise StorageDenied(name, "Permission denied")
                return real(asked, offset, length)

            local.get = get
        assert opens(repo, SECRET)
        with pytest.raises((Corruption, StorageError), match=name) as caught:
            opens(repo, OTHER)
        assert "no other key slot opens" in caught.value.hint
        assert not isinstance(caught.value, WrongSecret)


def test_label_may_be_long_but_not_longer(repo):
    """A label is up to 256 bytes of anything; storage sees no difference."""
    name = add(repo, label="é" * 128)
    short = add(repo, Secret(key=b"s" * 32), label="")
    assert len(repo.backend.get(name)) == len(repo.backend.get(short))
    with pytest.raises(UsageError):
        add(repo, label="é" * 129)


def test_slot_that_cannot_be_put_is_an_error(repo):
    """A slot whose put failed is not there."""
    failing = Faults(repo.backend, [Fault(at=1, error=lasting_failure, verbs=CHANGES)])
    repo.backend = failing
    with pytest.raises(StorageFailed):
        add(repo)
    assert len(failing.inner.list("keys")) == 1


# --- what can be seen from outside -----------------------------------------------------------------------------------


class Watched(Wrapper):
    """Remembers what was read."""

    def __init__(self, inner):
        super().__init__(inner)
        self.read = []

    def get(self, name, offset=0, length=None):
        self.read.append(name)
        return self.inner.get(name, offset, length)


def test_neither_reads_nor_work_tell_which_slot_opened(repo, monkeypatch):
    """Whichever opens, or none: the same slots are read in the same order, and the same costs are paid."""
    costly = Kdf(passes=2, memory_kib=65 << 10)
    phrases = [Secret(passphrase=b"phrase %d" % number) for number in range(3)]
    for phrase, kdf in zip(phrases, (CHEAP, costly, CHEAP), strict=True):
        slots.add(repo.backend, repo.ring, repo.vault, secret=phrase, kdf=kdf, label="", now_ns=7, random=os.urandom)
    paid = []
    stretch = codec_slots._wrapping_key

    def counted(secret, kdf, salt):
        paid.append(kdf)
        return stretch(secret, kdf, salt)

    monkeypatch.setattr(codec_slots, "_wrapping_key", counted)
    seen = set()
    for secret in (*phrases, Secret(passphrase=b"wrong"), Secret(passphrase=b"w" * 1000)):
        watched, opened_ = Watched(repo.backend), None
        paid.clear()
        with contextlib.suppress(WrongSecret):
            opened_ = slots.open_all(watched, repo.header, secret)[0]
        assert (opened_ is not None) == (secret in phrases)
        seen.add((tuple(watched.read), tuple(paid)))
    [(read, costs)] = seen
    assert list(read) == sorted(name for name, _ in repo.backend.list("keys"))
    assert sorted(kdf.passes for kdf in costs) == [1, 1, 2]


def test_slot_that_asks_for_more_memory_than_there_is_keeps_nobody_out(repo, monkeypatch):
    """A forged slot may ask for a gibibyte on a small machine: the others open, and it is named where none does."""
    phrase = Secret(passphrase=b"phrase")
    add(repo, phrase)
    greedy = add(repo, Secret(passphrase=b"other"))
    salt = slots.read(repo.backend, greedy).salt
    stretch = argon2id.kdf

    def poor(size, password, given, **cost):
        if given == salt:
            raise NaclRuntimeError("no memory")
        return stretch(size, password, given, **cost)

    monkeypatch.setattr(argon2id, "kdf", poor)
    assert opens(repo, phrase)
    with pytest.raises(Corruption, match="no memory") as caught:
        opens(repo, Secret(passphrase=b"other"))
    assert caught.value.name == greedy


# --- two clients at once ---------------------------------------------------------------------------------------------


def removing(backend, name):
    def act():
        with contextlib.suppress(UsageError):
            slots.remove(backend, name, os.urandom)

    return act


def test_clients_never_remove_the_last_slots_of_one_another(repo):
    """Two or three at once, in any order of their calls, also where one dies at any of them: a slot stays."""
    kept = set()
    for seed in range(600):
        shared = MemoryBackend()
        for name, _ in [("header", 0), *repo.backend.list("keys")]:
            shared.damage(name, repo.backend.get(name))
        names = [name for name, _ in shared.list("keys")]
        for number in range(1 + seed % 2):
            name = f"keys/{number:015x}{seed % 7}"
            shared.damage(name, shared.get(names[0]))
            names.append(name)
        scheduler = Scheduler(seed)
        crash_at = seed // 2 % 12 if seed % 3 == 0 else 0
        clients = [
            Shared(shared, scheduler, crash_at * (number == 0), after=bool(seed % 5)) for number in range(len(names))
        ]
        scheduler.run({name: removing(client, name) for name, client in zip(names, clients, strict=True)})
        left = [name for name, _ in shared.list("keys") if "." not in name]
        assert left, seed
        kept.add(len(left))
    assert 1 in kept


def test_slot_that_goes_while_another_client_lists_does_not_count(repo):
    """A listing may show a slot and miss the mark of its removal where both go meanwhile: the slot is read again."""
    [(first, _)] = repo.backend.list("keys")
    repo.backend.delete(first)
    names = [name for name in (f"keys/{number:016x}" for number in range(40)) if _half_of(name) == 0][:2]
    repo.backend.damage(names[0], (made := slot_of(repo, names[0])))
    repo.backend.damage(names[1], made)
    marks = iter([value for value in range(200) if _half_of(f"{names[0]}.{value:016x}") == 1])
    scheduler = Script(("B", "put keys"), ("A", "delete keys"), ("B", "list on keys"), ("A", None), ("B", None))
    a, b = (Shared(repo.backend, scheduler) for _ in range(2))

    def remove_first():
        slots.remove(a, names[0], lambda length: next(marks).to_bytes(length, "big"))

    def remove_second():
        with pytest.raises(UsageError, match="last key slot"):
            slots.remove(b, names[1], os.urandom)

    scheduler.run({"A": remove_first, "B": remove_second})
    assert [name for name, _ in repo.backend.list("keys")] == [names[1]]


def slot_of(repo, name):
    return slots.make(name, repo.ring, SECRET, CHEAP, repo.vault, label="", now_ns=7, random=os.urandom)


def test_two_clients_may_remove_one_slot_at_once(repo):
    """Whoever is second finds it gone, which is what it wanted; no mark is left."""
    for seed in range(100):
        name = add(repo, Secret(key=b"x" * 32))
        scheduler = Scheduler(seed)
        clients = [Shared(repo.backend, scheduler) for _ in range(2)]
        scheduler.run({str(number): removing(client, name) for number, client in enumerate(clients)})
        assert [item for item, _ in repo.backend.list("keys") if item.startswith(name)] == []
        assert len(repo.backend.list("keys")) == 1


def test_mark_of_a_crash_is_removed_with_its_slot(repo):
    """A slot that somebody began to remove counts no more; removing it once more ends what was begun."""
    [(first, _)] = repo.backend.list("keys")
    second = add(repo)
    repo.backend.put(f"{second}.{'0' * 16}", [close_object(b"")])
    with pytest.raises(UsageError, match="another client") as caught:
        slots.remove(repo.backend, first, os.urandom)
    assert second[5:] in caught.value.hint
    assert opens(repo, OTHER)
    slots.remove(repo.backend, second, os.urandom)
    assert [name for name, _ in repo.backend.list("keys")] == [first]


def test_clients_that_add_at_once_never_lock_everybody_out(repo):
    """At fifteen slots two add one each: at most sixteen stay once both have ended, and readers open all the time."""
    for number in range(SLOTS_MAX - 2):
        add(repo, Secret(key=bytes([number]) * 32))
    for seed in range(60):
        scheduler = Scheduler(seed)
        shared = [Shared(repo.backend, scheduler) for _ in range(3)]

        def adding(backend, number):
            def act():
                with contextlib.suppress(UsageError):
                    slots.add(
                        backend,
                        repo.ring,
                        repo.vault,
                        secret=Secret(key=bytes([100 + number]) * 32),
                        kdf=CHEAP,
                        label="",
                        now_ns=7,
                        random=os.urandom,
                    )
                assert opens(repo, SECRET)

            return act

        before = {name for name, _ in repo.backend.list("keys")}
        scheduler.run({str(number): adding(backend, number) for number, backend in enumerate(shared)})
        after = {name for name, _ in repo.backend.list("keys")}
        assert len(after) <= SLOTS_MAX
        for name in after - before:
            repo.backend.delete(name)


# --- what was opened before -------------------------------------------------------------------------------------------


def test_what_was_opened_opens_again_until_its_slot_is_removed(repo, tmp_path):
    """A master key that is kept somewhere serves as long as its slot is there."""
    name = add(repo)
    kept = Opened(master=repo.ring.master, slot=name)
    with opened(repo.backend, tmp_path / "other", secret=kept) as other:
        assert other.slot == name
    slots.remove(repo.backend, name, os.urandom)
    for slot in (name, "header", "keys/../header", ""):
        with pytest.raises(WrongSecret):
            opened(repo.backend, tmp_path / "third", secret=Opened(master=repo.ring.master, slot=slot))


def test_use_of_a_slot_is_told_to_whoever_opens_it(repo):
    """What a key is for stands sealed beside its label, at no cost in size."""
    other = add(repo, label="")
    name = slots.add(
        repo.backend,
        repo.ring,
        repo.vault,
        secret=Secret(key=b"r" * 32),
        kdf=CHEAP,
        label="",
        now_ns=7,
        random=os.urandom,
        use=slots.RECOVERY,
    )
    uses = {info.name: info.use for info in slots.describe(repo.backend, repo.vault)[0]}
    assert (uses[name], uses[other]) == ("recovery", "")
    assert len(repo.backend.get(name)) == len(repo.backend.get(other))
    assert b"recovery" not in repo.backend.get(name)
