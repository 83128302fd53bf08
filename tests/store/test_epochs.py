"""Epochs: a new master key, who gets it, and what is left of a rotation that is cut off anywhere."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import replace

import pytest

from respaldo.backend.base import FOLDERS
from respaldo.backend.faults import Crash, Fault, Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.codec.keys import KeyRing
from respaldo.codec.slots import Kdf, Opened, Secret, Stretching
from respaldo.core.errors import Corruption, KeyRotated, Refused, UsageError, WrongSecret
from respaldo.core.ids import Kind
from respaldo.format.epoch import parse_record_name, record_name
from respaldo.store import epochs, rotating, slots
from respaldo.store.header import read_header
from respaldo.store.vault import make_vault
from tests.store.repositories import OTHER, SECRET, initialise, opened, replica, store

CHEAP = Kdf(passes=1, memory_kib=64 << 10)
THIRD = Secret(key=b"3" * 32)


@pytest.fixture
def backend(tmp_path):
    """Returns a repository with three slots."""
    made = MemoryBackend()
    initialise(made)
    with opened(made, tmp_path / "making") as repo:
        for label, secret in (("second", OTHER), ("third", THIRD)):
            add(repo, secret, label)
    return made


def add(repo, secret, label):
    return slots.add(
        repo.backend, repo.ring, repo.vault, secret=secret, kdf=CHEAP, label=label, now_ns=7, random=os.urandom
    )


def objects(backend):
    """Returns all that is there."""
    names = ["header", *(name for folder in FOLDERS for name, _ in backend.list(folder))]
    return {name: backend.get(name) for name in names}


def named(repo, *labels):
    return [slot.name for slot in slots.describe(repo.backend, repo.vault)[0] if slot.label in labels]


def rotate(repo, *labels):
    """Rotates the key of a repository, without the slots that bear some labels."""
    return rotating.rotate(repo, rotating.plan_rotation(repo, named(repo, *labels), {}))


def opens(backend, secret):
    """Returns the epoch that a secret opens a repository in."""
    return epochs.open_newest(backend, read_header(backend), secret, os.urandom)[0].number


def test_every_slot_that_is_kept_opens_the_new_epoch(backend, tmp_path):
    """Without its secret being known to whoever rotates; label and age stay, and nothing of the old slots is there."""
    with opened(backend, tmp_path / "one") as repo:
        before = {(slot.label, slot.created_ns) for slot in slots.describe(backend, repo.vault)[0]}
        done = rotate(repo)
        assert set(done.slots) == {name for name in done.slots if name.startswith("keys/")}
    for secret in (SECRET, OTHER, THIRD):
        assert opens(backend, secret) == 1
    with opened(backend, tmp_path / "two") as repo:
        found, damaged = slots.describe(backend, repo.vault)
        assert ({(slot.label, slot.created_ns) for slot in found}, damaged) == (before, [])
        assert {slot.epoch for slot in found} == {1}
        assert {slot.name for slot in found} == set(done.slots.values())
        assert not repo.epoch.pending


def test_slot_that_is_removed_after_the_plan_was_made_gets_no_new_key(backend, tmp_path):
    """Its key is to open nothing any more; the rotation goes on with the others, and without any it says why not."""
    with opened(backend, tmp_path / "one") as repo:
        plan = rotating.plan_rotation(repo, (), {})
        [going] = named(repo, "third")
        slots.remove(backend, going, os.urandom)
        assert going not in rotating.rotate(repo, plan).slots
    assert [opens(backend, secret) for secret in (SECRET, OTHER)] == [1, 1]
    with pytest.raises(WrongSecret):
        opens(backend, THIRD)


def test_passphrase_opens_after_a_rotation(backend, tmp_path):
    """Its slot costs what it did; with one salt for two slots the work is done once."""
    phrase = Secret(passphrase="contraseña".encode())
    with opened(backend, tmp_path / "one") as repo:
        add(repo, phrase, "phrase")
        rotate(repo)
    assert opens(backend, phrase) == 1
    with pytest.raises(WrongSecret):
        opens(backend, Secret(passphrase=b"contrasena"))


def test_content_is_named_as_before_and_old_content_is_read(backend, tmp_path):
    """Nothing need be uploaded anew because of a rotation."""
    with opened(backend, tmp_path / "one") as repo:
        [old], _ = store(repo, [(Kind.DATA, b"written before" * 100)])
        keys = repo.ring.content_keys
        rotate(repo)
    with opened(backend, tmp_path / "two") as repo:
        assert repo.ring.content_keys == keys
        [again, new], _ = store(repo, [(Kind.DATA, b"written before" * 100), (Kind.DATA, b"after" * 100)])
        assert again == old
        assert bytes(repo.source.get(Kind.DATA, old)) == b"written before" * 100
        assert bytes(repo.source.get(Kind.DATA, new)) == b"after" * 100
        rotate(repo)
    with opened(backend, tmp_path / "three") as repo:
        assert (repo.epoch.number, repo.epoch.in_use) == (2, [0, 1])
        assert bytes(repo.source.get(Kind.DATA, old)) == b"written before" * 100
        assert bytes(repo.source.get(Kind.DATA, new)) == b"after" * 100


def test_slot_that_is_left_out_opens_nothing_more(backend, tmp_path):
    """Its holder keeps the old key, which opens nothing that was written after; his slot put back helps him nothing."""
    with opened(backend, tmp_path / "one") as repo:
        [name] = named(repo, "second")
        kept = {name: backend.get(name)}
        old = repo.ring
        rotate(repo, "second")
    with pytest.raises(WrongSecret):
        opens(backend, OTHER)
    backend.damage(name, kept[name])
    with pytest.raises(KeyRotated):
        opens(backend, OTHER)
    with opened(backend, tmp_path / "two") as repo:
        _, [pack] = store(repo, [(Kind.DATA, b"after" * 100)])
        sealer = make_vault(old, repo.header, 3, os.urandom).sealer
        trailer = backend.get(f"packs/{pack.hex()}")[-88:]
        with pytest.raises(Corruption):
            sealer.open("trailer", "", 16, trailer, "x")
        assert repo.vault.sealer.open("trailer", "", 16, trailer, "x")


def test_old_key_and_an_old_copy_still_open_what_was_old(backend, tmp_path):
    """A rotation revokes nothing of what somebody could have copied before: the documents say so."""
    with opened(backend, tmp_path / "one") as repo:
        [old], _ = store(repo, [(Kind.DATA, b"written before" * 100)])
        copy = replica(objects(backend))
        rotate(repo, "second")
    with opened(copy, tmp_path / "two", secret=OTHER) as repo:
        assert bytes(repo.source.get(Kind.DATA, old)) == b"written before" * 100


def test_key_that_is_held_says_that_it_was_rotated(backend, tmp_path):
    """An agent's key, whose slot is removed; or is not yet, because the rotation was cut off."""
    with opened(backend, tmp_path / "one") as repo:
        held, slot = Opened(master=repo.ring.master, slot=repo.slot), backend.get(repo.slot)
        rotate(repo)
        with pytest.raises(KeyRotated):
            repo.announce("prune")
        with pytest.raises(KeyRotated):
            rotate(repo)
    with pytest.raises(WrongSecret):
        opens(backend, held)
    backend.damage(held.slot, slot)
    with pytest.raises(KeyRotated) as caught:
        opens(backend, held)
    assert caught.value.exit_status == 12


def test_slot_without_a_key_pair_is_named(backend, tmp_path):
    """One that older programs made does not say its public key: its secret is needed, or it is left out."""
    with opened(backend, tmp_path / "one") as repo:
        [name] = named(repo, "third")
        about = slots._about

        def older(vault, name, label, created_ns, use, public):
            from respaldo.format import canonical, frame

            raw = canonical.pack([1, label, created_ns])
            message = frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, 512)
            return b"".join(vault.sealer.seal("about", name, len(message), message))

        slots._about = older
        try:
            fourth = add(repo, Secret(key=b"4" * 32), "fourth")
        finally:
            slots._about = about
        plan = rotating.plan_rotation(repo, [], {})
        assert plan.unable == (fourth,)
        with pytest.raises(Refused, match=fourth[5:]):
            rotating.rotate(repo, plan)
        public = Stretching(Secret(key=b"4" * 32)).public(slots.read(backend, fourth))
        rotating.rotate(repo, rotating.plan_rotation(repo, [name], {fourth: public}))
    assert opens(backend, Secret(key=b"4" * 32)) == 1
    with pytest.raises(WrongSecret):
        opens(backend, THIRD)


def test_nobody_can_be_left_to_nobody(backend, tmp_path):
    """A rotation without all slots is refused."""
    with opened(backend, tmp_path / "one") as repo, pytest.raises(UsageError):
        rotate(repo, "first", "second", "third")


def test_last_slot_of_the_newest_epoch_stays(backend, tmp_path):
    """A sound slot that opens what is older does not count."""
    with opened(backend, tmp_path / "one") as repo:
        [name] = named(repo, "second")
        old = backend.get(name)
        rotate(repo, "second", "third")
    backend.damage(name, old)
    with opened(backend, tmp_path / "two") as repo:
        with pytest.raises(UsageError, match="last key slot"):
            slots.remove(backend, repo.slot, os.urandom, rotating.opener(repo.vault, 1))
        slots.remove(backend, name, os.urandom, rotating.opener(repo.vault, 1))
    assert opens(backend, SECRET) == 1


def test_record_is_kept_twice_and_either_will_do(backend, tmp_path):
    """Without it nothing old could be read: a damaged one is not the end."""
    with opened(backend, tmp_path / "one") as repo:
        [old], _ = store(repo, [(Kind.DATA, b"written before" * 100)])
        rotate(repo)
    names = [name for name, _ in backend.list("epochs")]
    assert sorted(map(parse_record_name, names)) == [(1, 1), (1, 2)]
    for name in names:
        whole = backend.get(name)
        backend.damage(name, whole[:-1])
        with opened(backend, tmp_path / name[-1]) as repo:
            assert bytes(repo.source.get(Kind.DATA, old)) == b"written before" * 100
        backend.damage(name, whole)
    for name in names:
        backend.damage(name, b"")
    with pytest.raises(Corruption, match="epochs/"):
        opens(backend, SECRET)


def test_rotation_that_is_cut_off_anywhere_locks_nobody_out(backend, tmp_path):
    """After every single call of it: all kept secrets open, the next rotation finishes, who was left out stays out."""
    before = objects(backend)
    seen = set()
    for at, after in ((step // 2, bool(step % 2)) for step in itertools.count(2)):
        stored = replica(before)
        faults = Faults(stored, [Fault(at=at, after=after)])
        with opened(stored, tmp_path / "one") as repo:
            plan = rotating.plan_rotation(repo, named(repo, "third"), {})
            repo.backend = faults
            with contextlib.suppress(Crash):
                rotating.rotate(repo, plan)
        reached = opens(stored, SECRET)
        assert opens(stored, OTHER) == reached
        seen.add(reached)
        with opened(stored, tmp_path / "two", secret=OTHER) as repo:
            if repo.epoch.number:
                rotating.finish(repo, repo.epoch)
            else:
                rotate(repo, "third")
        assert opens(stored, SECRET) == opens(stored, OTHER) == 1
        with pytest.raises(WrongSecret):
            opens(stored, THIRD)
        assert len(stored.list("keys")) == 2
        assert min(map(parse_record_name, stored.names("epochs"))) != (1, 0)
        if not faults.crashed:
            break
    assert seen == {0, 1}


def test_of_two_rotators_one_loses(backend, tmp_path):
    """And leaves nothing behind; both open what the other made."""
    with opened(backend, tmp_path / "one") as first, opened(backend, tmp_path / "two", secret=OTHER) as second:
        plans = [rotating.plan_rotation(repo, [], {}) for repo in (first, second)]
        put = backend.put

        def other_first(name, pieces):
            backend.put = put
            if name == record_name(1, 0):
                rotating.rotate(second, plans[1])
            put(name, pieces)

        backend.put = other_first
        with pytest.raises(KeyRotated):
            rotating.rotate(first, plans[0])
    for secret in (SECRET, OTHER, THIRD):
        assert opens(backend, secret) == 1
    assert len(backend.list("keys")) == 3


def test_slot_that_comes_while_the_key_is_rotated_gets_the_new_key(backend, tmp_path):
    """One that was put after the rotator had listed them; but none that was to be shut out."""
    late = Secret(key=b"l" * 32)
    with opened(backend, tmp_path / "one") as repo:
        plan = rotating.plan_rotation(repo, named(repo, "third"), {})
        add(repo, late, "late")
        rotating.rotate(repo, plan)
    assert opens(backend, late) == 1
    assert len(backend.list("keys")) == 3


def test_torn_record_is_no_epoch_and_is_cleared_on_request(backend, tmp_path):
    """On storage that puts no object at once, a rotation can be cut off within its one step, or be in it just now."""
    backend.damage(record_name(1, 0), b"half of it")
    assert opens(backend, SECRET) == 0
    with opened(backend, tmp_path / "one") as repo:
        with pytest.raises(Refused, match="not whole"):
            rotate(repo)
        assert rotating.clear_torn(backend, repo.epoch) == 1
        rotate(repo)
    backend.damage(record_name(2, 0), b"half of it")
    assert opens(backend, SECRET) == 1


def test_record_of_nobody_opens_for_nobody(backend, tmp_path):
    """Whoever writes to storage alone can lock out, as he could by deleting, and no more."""
    ring = KeyRing(b"x" * 32, b"y" * 32, epoch=5)
    with opened(backend, tmp_path / "one") as repo:
        record = epochs.EpochRecord(time_ns=0, content_keys=bytes(192))
        vault = make_vault(ring, repo.header, 3, os.urandom)
        item = rotating._object(epochs.Epoch(number=5, rings=epochs.EpochRings([ring]), record=record), 0, vault)
    backend.damage(record_name(5, 0), item.encode())
    with pytest.raises(KeyRotated):
        opens(backend, SECRET)


def test_storage_cannot_give_an_epoch_to_another_number(backend, tmp_path):
    """A record is bound to its name: an old one does not come back as a newer one."""
    with opened(backend, tmp_path / "one") as repo:
        rotate(repo)
    backend.damage(record_name(2, 1), backend.get(record_name(1, 1)))
    with pytest.raises(KeyRotated):
        opens(backend, SECRET)
    backend.delete(record_name(2, 1))
    backend.damage(record_name(1, 9), backend.get(record_name(1, 1)))
    assert opens(backend, SECRET) == 1


class Overtaken(MemoryBackend):
    """Lets somebody else act once, between the listing of a folder and what is done with it."""

    def __init__(self, folder, act, objects):
        super().__init__()
        for name, content in objects.items():
            self.damage(name, content)
        self._folder, self._act = folder, act

    def list(self, folder):
        found = super().list(folder)
        if folder == self._folder and self._act is not None:
            act, self._act = self._act, None
            act(self)
        return found


@pytest.mark.parametrize("folder", ["epochs", "keys", "config"])
@pytest.mark.parametrize("before", [0, 1])
def test_a_rotation_while_a_repository_is_opened_is_no_damage(backend, tmp_path, folder, before):
    """Records, slots and configurations go, each after another one has come: who has listed them looks again."""

    def rotated(storage):
        with opened(storage, tmp_path / "other") as repo:
            rotate(repo)
        with opened(storage, tmp_path / "other") as repo:
            retire(repo)

    for _ in range(before):
        rotated(backend)
    storage = Overtaken(folder, rotated, objects(backend))
    with opened(storage, tmp_path / "late") as repo:
        assert repo.config
        assert repo.epoch.number == before + 1


def retire(repo):
    """Puts a configuration and a record in the place of those that are there, as re-encryption does."""
    listed = repo.backend.names("config")
    repo.configure(lambda now: now)
    repo.backend.discard(listed)
    rotating.save_record(repo.backend, replace(repo.epoch, record=replace(repo.epoch.record, masters=())), repo.vault)
