"""A client that cannot read writes: what it relies on, what it does without, and what it notices."""

from __future__ import annotations

import os
import shutil

import pytest

from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import decide, list_pending, load
from respaldo.codec.box import box_public
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption, Refused, StorageDenied
from respaldo.core.ids import Kind, PackName
from respaldo.core.seams import Silent
from respaldo.format.notice import Notice, notice_name
from respaldo.format.snapshot import Condemnation, Verdict
from respaldo.store.notices import seal_notice
from respaldo.store.ownpacks import FILES_MAX
from tests.store.owners import Place, backup, content


@pytest.fixture
def place(tmp_path):
    found = Place(tmp_path)
    found.write(a=os.urandom(100_000), b=os.urandom(100_000))
    return found


def names(place, folder):
    return sorted(name for name in place.area.snapshot() if name.startswith(folder + "/"))


def packs(place):
    return tuple(PackName(bytes.fromhex(name[6:])) for name in names(place, "packs"))


def condemn(place, *condemned, leaf=b"C" * 16):
    """Puts a condemnation, as the owner."""
    with place.opened() as repo:
        name = "condemned/" + leaf.hex()
        record = Condemnation(collector=b"c" * 16, time_ns=5, packs=condemned)
        repo.backend.put(name, [repo.vault.seal_record("condemnation", name, record.encode())])


def tell(place, *, leaf=b"C" * 16, owner=None, **said):
    """Puts a notice, as the owner or whoever signs so."""
    with place.opened() as repo:
        client = place.known().enrolment.client
        data = seal_notice(
            Notice(client=client, time_ns=5, **said),
            notice_name(leaf),
            owner=owner or Signer(repo.ring.admin_seed),
            client_box=box_public(place.credential.box_seed),
            header=repo.header,
            compressor=repo.vault.compressor,
            random=os.urandom,
        )
        place.area.put(notice_name(leaf), [data])


def restores(place, result):
    """Whether the owner reads a snapshot as the source is now."""
    expected = {path.name: path.read_bytes() for path in place.source.iterdir()}
    with place.opened(fresh=True) as repo:
        repo.synchronise()
        assert not repo.damaged
        assert result.snapshot in {item.id for item in load(repo).snapshots}
        return content(repo, result.manifest.root) == expected


# --- the ordinary case ---


def test_second_run_adds_next_to_nothing(place):
    """It deduplicates, takes over, counts changes, names and labels, all from what it remembers."""
    first = place.backup()
    place.write(c=b"new")
    second = place.backup()
    third = place.backup()
    assert second.manifest.figures.chunk_bytes_new < 5000
    assert third.manifest.figures.chunk_bytes_new < 2000
    assert second.manifest.parent == first.snapshot
    assert (second.manifest.changes.added, second.manifest.changes.changed) == (1, 0)
    assert [item.manifest.label.partition("-")[0] for item in (first, second, third)] == ["v0.0.1", "v0.0.2", "v0.0.3"]
    assert [item.manifest.kind for item in (first, second, third)] == ["snapshot", "incremental", "incremental"]
    assert all(item.manifest.session == item.snapshot for item in (first, second, third))
    assert restores(place, third)


def test_run_is_put_before_anything_that_it_seals(place):
    """Whatever cuts it off, the owner can open what is there."""
    order = []
    put = place.area.put

    def noting(name, pieces):
        order.append(name)
        put(name, pieces)

    place.area.put = noting
    result = place.backup()
    assert order[0] == f"runs/{result.snapshot.hex()}"


def test_client_seals_and_opens_nothing_but_its_session(place):
    """Not before, not after, and nothing that takes away."""
    first = place.backup()
    pending = f"pending/{first.snapshot.hex()}"
    with place.client() as repo:
        with pytest.raises(ValueError, match="no session"):
            repo.vault.seal_record("manifest", pending, b"x")
        with pytest.raises(Corruption):
            repo.vault.open_record("manifest", pending, place.area.get(pending))
        with Session(repo, Silent()) as session:
            session.begin()
            repo.vault.seal_record("manifest", pending, b"x")
            for kind in ("condemnation", "config", "pin", "trash", "catalogue", "verified", "sums", "client", "about"):
                with pytest.raises(ValueError, match="no such kind"):
                    repo.vault.seal_record(kind, "x/" + "0" * 32, b"x")
            with pytest.raises(Corruption):
                repo.vault.open_record("manifest", pending, place.area.get(pending))
        with pytest.raises(ValueError, match="no session"):
            repo.vault.seal_record("manifest", pending, b"x")


def test_client_reads_no_chunk_of_an_earlier_run(place):
    """Its index knows where they lie."""
    first = place.backup()
    with place.client() as repo:
        repo.synchronise()
        root = first.manifest.root
        assert repo.index.find(root, usable_only=True) is not None
        with pytest.raises(Corruption):
            repo.source.get(Kind.TREE, root)


def test_client_gets_nothing_but_notices_from_storage(place):
    """What it does not need to read it does not ask for: append-only storage need not serve it."""
    place.backup()
    got = []
    get = place.area.get

    def noting(name, offset=0, length=None):
        got.append(name)
        return get(name, offset, length)

    place.area.get = noting
    place.write(c=b"new")
    result = place.backup()
    own = {name for name in got if result.snapshot.hex() in name}
    assert {name.partition("/")[0] for name in set(got) - own} <= {"header"}


# --- another machine, a lost cache ---


def test_lost_cache_uploads_again(place):
    """And no snapshot is the worse for it."""
    place.backup()
    again = place.backup(machine="reinstalled")
    assert again.manifest.figures.chunk_bytes_new > 200_000
    assert restores(place, again)


def test_lost_index_is_made_anew_from_what_was_noted(place):
    """A machine that went down while it wrote the index does not store everything again."""
    place.backup()
    place.write(c=os.urandom(20_000))
    place.backup()
    with place.client() as repo:
        shutil.rmtree(repo.cache_dir)
    again = place.backup()
    assert again.manifest.figures.chunk_bytes_new < 5000
    assert restores(place, again)


def test_what_was_noted_and_is_gone_or_damaged_is_not_relied_on(place):
    """Storage says what is there; what was noted says only what is in it."""
    place.backup()
    with place.client() as repo:
        shutil.rmtree(repo.cache_dir / "index")
        own = repo.own.path
        assert list(own.iterdir())
    for name in names(place, "packs"):
        place.area.delete(name)
    again = place.backup()
    assert again.manifest.figures.chunk_bytes_new > 200_000
    assert restores(place, again)
    shutil.rmtree(repo.cache_dir / "index")
    for path in own.iterdir():
        data = bytearray(path.read_bytes())
        data[-50] ^= 1
        path.write_bytes(data)
    assert restores(place, place.backup())


def test_notes_are_gathered(place):
    """However often it ran, few files are left, without what is gone."""
    for number in range(FILES_MAX + 3):
        place.write(c=b"%d" % number)
        place.backup()
    with place.client() as repo:
        assert len(list(repo.own.path.iterdir())) < 5
        assert {item.pack for item in repo.own} == set(packs(place))
        shutil.rmtree(repo.cache_dir / "index")
    assert place.backup().manifest.figures.chunk_bytes_new < 5000


def test_run_that_was_cut_off_is_gone_on_with(place, monkeypatch):
    """What it stored is found again, though the session that stored it can no longer be read."""

    def cut_off(self, manifest, relied):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Session, "commit", cut_off)
        with pytest.raises(KeyboardInterrupt):
            place.backup()
    assert not names(place, "sessions")
    again = place.backup()
    assert again.manifest.figures.chunk_bytes_new < 5000
    assert restores(place, again)


# --- condemnations ---


def test_notice_says_what_is_condemned(place):
    """Nothing else is stored again."""
    place.backup()
    place.write(c=os.urandom(50_000))
    place.backup()
    with place.client() as repo:
        repo.synchronise()
        first = min(repo.index.packs())
    tell(place, condemned=((b"C" * 16, (first.name,)),))
    condemn(place, first.name)
    with place.client() as repo:
        listing = repo.list_packs()
        assert listing.condemned == {first.name}
        assert first.name in listing.packs
    result = place.backup()
    assert 0 < result.manifest.figures.chunk_bytes_new < 240_000
    assert restores(place, result)


def test_condemnation_without_a_notice_condemns_everything_that_is_there(place):
    """Once: what is stored after it was seen cannot be meant."""
    place.backup()
    condemn(place)
    again = place.backup()
    assert again.manifest.figures.chunk_bytes_new > 200_000
    assert restores(place, again)
    third = place.backup()
    assert third.manifest.figures.chunk_bytes_new < 2000


@pytest.mark.parametrize("forgery", ["signature", "box", "name", "client"])
def test_forged_notice_is_none(place, forgery):
    """What it says of a condemnation is not heeded; everything counts as condemned."""
    place.backup()
    everything = packs(place)
    leaf = b"C" * 16
    match forgery:
        case "signature":
            tell(place, condemned=((leaf, ()),), owner=Signer(b"x" * 32))
        case "box":
            tell(place, condemned=((leaf, ()),))
            name = names(place, "notices")[0]
            data = bytearray(place.area.get(name))
            data[40] ^= 1
            place.area.delete(name)
            place.area.put(name, [data])
        case "name":
            tell(place, condemned=((leaf, ()),), leaf=b"D" * 16)
            name = names(place, "notices")[0]
            data = place.area.get(name)
            place.area.delete(name)
            place.area.put(notice_name(leaf), [data])
        case "client":
            tell(place, condemned=((b"E" * 16, ()),))
    condemn(place, *everything)
    with place.client() as repo:
        assert repo.list_packs().condemned == set(everything)
    assert restores(place, place.backup())


def test_condemned_between_the_looks(place, monkeypatch):
    """A collector that condemns and deletes after W1 is seen in W4: what was relied on is read from its source."""
    place.backup()
    there = packs(place)
    place.write(c=b"new")
    begin = Session.begin
    done = []

    def begun(self):
        found = begin(self)
        if not done:
            done.append(1)
            tell(place, condemned=((b"C" * 16, there),))
            condemn(place, *there)
            for name in names(place, "packs"):
                place.area.delete(name)
        return found

    monkeypatch.setattr(Session, "begin", begun)
    result = place.backup()
    assert result.manifest.figures.chunk_bytes_new >= 200_000
    assert restores(place, result)
    assert len(names(place, "pending")) == len(list_pending(place.opened())) == 2  # the attempt before is gone


def test_attempt_that_was_given_up_stays_undecided_where_nothing_can_be_deleted(place, monkeypatch):
    """It puts no abort, which takes the owner; and what it left is no snapshot."""
    place.backup()
    there = packs(place)
    begin = Session.begin
    done = []

    def begun(self):
        found = begin(self)
        if not done:
            done.append(1)
            tell(place, condemned=((b"C" * 16, there),))
            condemn(place, *there)
        return found

    monkeypatch.setattr(Session, "begin", begun)
    discard = place.area.discard

    def denied(chosen):
        if any(name.startswith("pending/") for name in chosen):
            raise StorageDenied("pending")
        return discard(chosen)

    monkeypatch.setattr(place.area, "discard", denied)
    place.write(c=b"new")
    result = place.backup()
    assert len(names(place, "pending")) == 3
    assert len(names(place, "outcome")) == 2
    assert restores(place, result)
    assert len(place.listed().undecided) == 1


# --- the outcome ---


def test_owners_abort_wins(place, monkeypatch):
    """The client says so instead of claiming a snapshot."""
    sink = Session.save

    def saved(self):
        sink(self)
        if names(place, "pending"):
            return
        with place.opened() as repo:
            decide(repo, self.id, Verdict.ABORT, bytes(32))

    monkeypatch.setattr(Session, "save", saved)
    with pytest.raises(Refused, match="does not count"):
        place.backup()
    assert not place.listed().snapshots


def test_abort_under_the_keys_of_a_run_is_none(place):
    """A client that puts one has left its snapshot undecided."""
    with place.client() as repo, Session(repo, Silent()) as session:
        session.begin()
        backup_root = session.sink.put(Kind.TREE, b"x")
        assert backup_root
        session.save()
        decide(repo, session.id, Verdict.ABORT, bytes(32))
        aborted = session.id
    assert aborted not in place.listed().aborted


# --- what it notices ---


def test_rollback_of_its_runs_is_noticed(place):
    """As far as it can be: its own runs, and its own entries of the log."""
    place.backup()
    before = dict(place.area.snapshot())
    place.write(c=b"new")
    last = place.backup()
    for name in set(place.area.snapshot()) - set(before):
        place.area.delete(name)
    with place.client() as repo:
        findings = repo.log.follow().findings
        assert len(findings) == 2
        assert last.snapshot.hex()[:8] in findings[0]
        assert "log" in findings[1]
        repo.log.follow(accept=True)
        assert not repo.log.follow().findings
        assert backup(repo, place.source).snapshot
    with place.client() as repo:
        assert not repo.log.follow().findings


def test_forgotten_snapshots_and_retired_runs_are_no_rollback(place):
    """The owner may forget; where it deletes a run's record, it says so first."""
    first = place.backup()
    place.write(c=b"new")
    place.backup()
    place.area.delete(f"pending/{first.snapshot.hex()}")
    place.area.delete(f"outcome/{first.snapshot.hex()}")
    with place.client() as repo:
        assert not repo.log.follow().findings
    tell(place, retired=frozenset({first.snapshot}))
    place.area.delete(f"runs/{first.snapshot.hex()}")
    with place.client() as repo:
        repo.apply_notices()
        assert not repo.log.follow().findings


def test_owner_follows_the_clients_log(place):
    """Each run adds an entry to one chain, sealed under its own keys."""
    place.backup()
    place.write(c=b"new")
    place.backup()
    with place.opened(fresh=True) as repo:
        entries = repo.log.read_all()
        assert [(entry.verb, entry.number) for entry in entries] == [("commit", 0), ("commit", 1)]
        assert not repo.log.follow().findings
