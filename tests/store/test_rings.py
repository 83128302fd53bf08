"""Rings of an area: what opens under the keys of a run, and whose runs count."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from respaldo.catalog.snapshots import load
from respaldo.codec.box import box_public
from respaldo.codec.keys import RUN_KINDS, SEALED_KINDS, KeyRing, RunRing
from respaldo.codec.seal import HEAD_BYTES, associated_data, seal_with
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import Corruption
from respaldo.format.epoch import removed_name
from respaldo.format.runrecord import Author, run_name
from respaldo.store.rings import AreaRings
from respaldo.store.runs import new_run
from respaldo.store.vault import make_vault
from tests.store.owners import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def draw(place, session, *, seed=b"", author=Author.CLIENT, client=b"", header=None, time_ns=0):
    """Draws a run and puts its record, as whoever has the seed would."""
    credential = place.credential
    signer = Signer(seed or credential.sign_seed)
    ring, run = new_run(
        author=author,
        signer=signer,
        client=client or client_of(Signer(credential.sign_seed).public),
        session=session,
        owner_box=credential.owner_box,
        client_box=box_public(credential.box_seed),
        rights=(),
        header=header or place.header,
        time_ns=time_ns,
        random=os.urandom,
    )
    place.area.damage(run_name(session), run.encode())
    return ring


def rings_of(place):
    client = place.known()
    owner = KeyRing(client.enrolment.master, place.header.hash)
    return AreaRings((owner,), client, place.area, place.header)


def forge(place, ring, kind, name, message):
    """Seals as a run's ring would if it sealed everything: under the keys that a thief can derive."""
    aad = associated_data(ring.epoch, place.header.repository, kind, name, len(message))
    return b"".join(seal_with(ring._purpose("seal " + kind), ring.hedge, aad, message, os.urandom))


@pytest.mark.parametrize("kind", sorted(SEALED_KINDS))
def test_run_opens_what_a_snapshot_is_made_of_and_no_more(place, kind):
    """Whatever a thief derives from the key of a run: condemnations, configurations, pins and the like do not open."""
    session = b"s" * 16
    ring = draw(place, session)
    name = {"manifest": "pending/", "outcome": "outcome/", "marker": "sessions/"}.get(kind, "")
    name = name and name + session.hex()
    sealed = forge(place, ring, kind, name, b"message")
    vault = make_vault(rings_of(place), place.header, 3, os.urandom)
    if kind in RUN_KINDS:
        assert vault.sealer.open(kind, name, 7, sealed, "it") == b"message"
    else:
        with pytest.raises(Corruption, match="was not made for this key"):
            vault.sealer.open(kind, name, 7, sealed, "it")


@pytest.mark.parametrize("kind", ["manifest", "outcome", "marker"])
def test_run_says_nothing_under_the_name_of_another(place, kind):
    """A snapshot opens under the run of its own name."""
    ring = draw(place, b"s" * 16)
    draw(place, b"t" * 16)
    name = {"manifest": "pending/", "outcome": "outcome/", "marker": "sessions/"}[kind] + (b"t" * 16).hex()
    vault = make_vault(rings_of(place), place.header, 3, os.urandom)
    with pytest.raises(Corruption):
        vault.sealer.open(kind, name, 7, forge(place, ring, kind, name, b"message"), "it")


def opens(place, ring):
    """Whether a pack's footer under a ring opens."""
    vault = make_vault(rings_of(place), place.header, 3, os.urandom)
    return vault.sealer.ring_of("footer", "", 7, forge(place, ring, "footer", "", b"message")[:HEAD_BYTES]) is not None


def test_runs_that_count(place):
    """Signed by the client, or by the owner as the owner; for this area, under their own names."""
    owner_seed = KeyRing(place.known().enrolment.master, place.header.hash).admin_seed
    assert opens(place, draw(place, b"1" * 16))
    assert opens(place, draw(place, b"2" * 16, author=Author.OWNER, seed=owner_seed))
    assert not opens(place, draw(place, b"3" * 16, seed=b"thief" + bytes(27)))
    assert not opens(place, draw(place, b"4" * 16, author=Author.OWNER))
    assert not opens(place, draw(place, b"5" * 16, author=Author.CLIENT, seed=owner_seed))
    assert not opens(place, draw(place, b"6" * 16, client=b"another client's"))
    elsewhere = replace(place.header, repository=b"another area's  ")
    assert not opens(place, draw(place, b"7" * 16, header=elsewhere))


def test_replayed_run(place):
    """The record of an old run under a new name is no run."""
    ring = draw(place, b"1" * 16)
    record = place.area.get(run_name(b"1" * 16))
    place.area.delete(run_name(b"1" * 16))
    place.area.put(run_name(b"2" * 16), [record])
    assert not opens(place, ring)
    rings = rings_of(place)
    assert rings.known() == {}
    assert rings.refused == {b"2" * 16: "not a run of this format, or under another's name"}


def test_removed_client(place):
    """What it wrote stays; what it begins afterwards, at whatever time it says, does not count.

    Storage hides from it that it was removed.
    """
    place.write(a=b"a")
    first = place.backup()
    ring = draw(place, b"1" * 16)
    place.remove()
    place.area.delete(removed_name(0))
    late = draw(place, b"2" * 16, time_ns=1)
    assert opens(place, ring)
    assert not opens(place, late)
    place.write(a=b"b")
    second = place.backup()
    assert {item.id for item in place.listed(fresh=True).snapshots} == {first.snapshot}
    with place.opened(fresh=True) as repo:
        catalogue = load(repo)
        assert second.snapshot not in catalogue.undecided
        assert repo.area.refused[second.snapshot] == "its client had been removed when it came"


def test_what_is_kept_of_runs_tells_nothing_and_obeys_a_removal(place):
    """The owner's cache holds no key in clear; a run that it remembers is gone where a removal does not list it."""
    ring = draw(place, b"1" * 16)
    with place.opened() as repo:
        repo.vault.sealer.ring_of("footer", "", 7, forge(place, ring, "footer", "", b"message")[:HEAD_BYTES])
    cached = b"".join(path.read_bytes() for path in (place.path / "owner").rglob("*") if path.is_file())
    assert ring.master not in cached
    place.area.delete(run_name(b"1" * 16))
    with place.opened() as repo:
        assert opens_in(repo, place, ring)
    place.remove()
    with place.opened() as repo:
        assert not opens_in(repo, place, ring)


def opens_in(repo, place, ring):
    return repo.vault.sealer.ring_of("footer", "", 7, forge(place, ring, "footer", "", b"message")[:HEAD_BYTES])


def test_runs_are_read_once_and_only_when_needed(place):
    """What the area's own keys open takes no run; of a thousand, what one wrote next to another is found at once."""
    known = [draw(place, number.to_bytes(16, "big"), time_ns=number) for number in range(100)]
    rings = rings_of(place)
    vault = make_vault(rings, place.header, 3, os.urandom)
    reads = []
    get = place.area.get
    place.area.get = lambda name, *rest: reads.append(name) or get(name, *rest)
    own = b"".join(make_vault(rings.sealing, place.header, 3, os.urandom).sealer.seal("footer", "", 7, b"message"))
    assert vault.sealer.open("footer", "", 7, own, "it") == b"message"
    assert reads == []
    for number in (50, 51, 49):
        assert vault.sealer.open("footer", "", 7, forge(place, known[number], "footer", "", b"message"), "it")
    assert len(reads) == 100
    tried = []
    opening = rings.opening
    rings.opening = lambda kind, name: (tried.append(ring) or ring for ring in opening(kind, name))
    vault.sealer.open("footer", "", 7, forge(place, known[50], "footer", "", b"message"), "it")
    assert len(tried) <= 4
    assert isinstance(tried[-1], RunRing)


def test_garbage_does_not_list_runs_for_ever(place):
    """Objects that open under nothing are looked into a bounded number of times, until storage is listed again."""
    rings = rings_of(place)
    listed = []
    names = place.area.names
    place.area.names = lambda folder: listed.append(folder) or names(folder)
    for _ in range(500):
        assert list(rings.opening("footer", "")) == [rings.sealing]
    assert 0 < len(listed) < 100
    ring = draw(place, b"1" * 16)
    rings.look_again()
    assert [item.master for item in rings.opening("footer", "")] == [rings.sealing.master, ring.master]
