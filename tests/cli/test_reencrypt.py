"""`respaldo key reencrypt`: everything under the newest key, the old one destroyed, nothing lost on the way."""

from __future__ import annotations

import contextlib
import os

import pytest

from respaldo.api import Places, Secret, open_repository
from respaldo.backend.base import FOLDERS
from respaldo.backend.local import LocalBackend
from respaldo.codec.keys import KeyRing
from respaldo.core.errors import Corruption, RespaldoError, StorageFull
from respaldo.core.ids import Kind, pack_object
from respaldo.format.pack import parse_footer
from respaldo.store.census import take_census
from respaldo.store.vault import make_vault

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def old(place):
    """Returns what opens with the master key that there is now."""
    secret = Secret(key=bytes(range(32)))
    places = Places(cache_dir=place / "old cache", state_dir=place / "old state")
    with open_repository(str(place / "repository"), secret, places=places) as opened:
        repo = opened.within
        return make_vault(KeyRing(repo.ring.master, repo.header.hash), repo.header, 3, os.urandom)


def opened_by(repository, vault):
    """Returns the names of all objects of which the beginning was sealed by what a vault knows."""
    with LocalBackend(repository) as backend:
        census = take_census(backend, vault)
    return [item.name for folders in census.by_epoch.values() for items in folders.values() for item in items]


def blocks_opened_by(repo, vault):
    """Returns how many blocks there are, and how many of them a vault opens."""
    repo.synchronise()
    count = found = 0
    for pack in repo.index.packs():
        footer = parse_footer(repo.index.footer(pack.number), "footer")
        for block, offset in zip(footer.blocks, footer.offsets, strict=False):
            sealed = repo.backend.get(pack_object(pack.name), offset, block.sealed_length)
            count += 1
            with contextlib.suppress(Corruption):
                vault.sealer.open(Kind(block.kind).word, "", block.raw_length, sealed, "block")
                found += 1
    return count, found


def labels(cli, *words):
    return [item["label"] for item in cli("snapshots", *words, "--json").json["snapshots"]]


def filled(cli, tree):
    """Makes snapshots, one pinned, one in the trash, one verified, with checksums."""
    for label in ("one", "two", "three"):
        (tree / f"file of {label}").write_bytes(os.urandom(100_000))
        cli("snapshot", tree, "--label", label, "--tag", label)
    cli("pin", "one", "--reason", "for ever")
    cli("forget", "two", "--grace", "9d")
    cli("verify", "--read-data", "--checksums")


def test_nothing_opens_under_the_old_key_any_more(cli, place, repository, tree, old):
    """All snapshots are there as they were, under new ids that the old ones still mean; no object opens as before."""
    filled(cli, tree)
    before = cli("snapshots", "--json").json["snapshots"]
    assert len(opened_by(repository, old)) > 10
    cli("key", "rotate")
    planned = cli("key", "reencrypt", "--dry-run", "--json").json["epochs"]
    assert [(item["epoch"], item["in_use"], item["objects"].get("pending", 0)) for item in planned] == [
        (0, True, 3),
        (1, True, 0),
    ]
    done = cli("key", "reencrypt", "--json").json
    assert (done["retired"], done["left"], done["failed"], len(done["snapshots"])) == ([0], [], {}, 3)
    assert opened_by(repository, old) == []
    places = Places(cache_dir=place / "new cache", state_dir=place / "new state")
    with open_repository(str(repository), Secret(key=bytes(range(32))), places=places) as opened:
        count, found = blocks_opened_by(opened.within, old)
        assert (count > 3, found) == (True, 0)
        assert blocks_opened_by(opened.within, opened.within.vault) == (count, count)
    assert {item.split("/")[0] for item in os.listdir(repository)} <= FOLDERS | {"header"}
    after = cli("snapshots", "--json").json["snapshots"]
    for first, second in zip(before, after, strict=True):
        assert done["snapshots"][first["id"]] == second["id"]
        for key in first.keys() - {"id", "parent", "session"}:
            assert first[key] == second[key], key
        cli("restore", f"{first['id']}:{tree}", place / first["id"])
        assert (place / first["id"] / "big").read_bytes() == (tree / "big").read_bytes()
    assert (after[0]["pinned"], bool(after[0]["verified"])) == (True, True)
    cli("undo", "two")
    assert labels(cli) == ["one", "two", "three"]
    assert cli("verify", "--read-data").status == 0
    assert cli("log", "show", "--json").status == 0
    assert [item["epoch"] for item in cli("key", "epochs", "--json").json["epochs"]] == [1]


def test_again_there_is_nothing_to_do(cli, tree):
    """A second run changes nothing; a repository whose key was never rotated has nothing to be sealed anew."""
    cli("snapshot", tree)
    assert "never rotated" in cli("key", "reencrypt").out
    cli("key", "rotate")
    cli("key", "reencrypt")
    done = cli("key", "reencrypt", "--json").json
    assert (done["snapshots"], done["new_packs"], done["retired"], done["left"]) == ({}, 0, [], [])


def test_two_epochs_go_at_once(cli, repository, tree, old, place):
    """Whatever number of rotations lies behind."""
    for label in ("one", "two", "three"):
        cli("snapshot", tree, "--label", label)
        cli("key", "rotate")
    assert cli("key", "reencrypt", "--json").json["retired"] == [0, 1, 2]
    assert opened_by(repository, old) == []
    assert labels(cli) == ["one", "two", "three"]
    (place / "cache").rename(place / "cache of before")
    (place / "state").rename(place / "state of before")
    assert labels(cli) == ["one", "two", "three"]
    assert cli("verify", "--read-data").status == 0


def test_another_client_sees_no_rollback(cli, tree, monkeypatch, place):
    """Who has seen the repository before finds all that was there, by its log, under other names."""
    cli("snapshot", tree, "--label", "one")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place / "other"))
        cli("snapshot", tree, "--label", "two")
    cli("snapshots")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place / "other"))
        cli("key", "rotate")
        cli("key", "reencrypt")
    assert labels(cli) == ["one", "two"]
    cli("snapshot", tree, "--label", "three")
    for state in ("other", "state"):
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(place / state))
            assert labels(cli) == ["one", "two", "three"]


def test_prune_carries_over_what_it_copies(cli, repository, tree, old):
    """Lazily: a pack is of one epoch, whatever was copied into it as it was sealed."""
    for number in range(20):
        (tree / "big").write_bytes(os.urandom(50_000))
        cli("snapshot", tree, "--label", f"n{number}")
    cli("key", "rotate")
    before = {name for name in opened_by(repository, old) if name.startswith("packs/")}
    cli("prune")
    after = {name for name in opened_by(repository, old) if name.startswith("packs/")}
    assert after < before
    assert cli("verify", "--read-data").status == 0


def test_clients_that_cannot_read_stay_enrolled(cli, place, tree, monkeypatch, repository, old):
    """Their enrolments and removals are sealed anew under other names; their areas keep keys of their own."""
    for name in ("web", "gone"):
        cli("key", "client", "add", name, "--out", place / name)

    def as_client(*words, expected=0):
        with monkeypatch.context() as patch:
            patch.delenv("RESPALDO_KEY_FILE")
            patch.setenv("XDG_CACHE_HOME", str(place / "there" / "cache"))
            patch.setenv("XDG_STATE_HOME", str(place / "there" / "state"))
            return cli(*words, "--client-file", place / "web", expected=expected)

    as_client("snapshot", tree, "--label", "one")
    cli("key", "client", "remove", "gone")
    for _ in range(2):
        assert "the areas of clients (web) keep their keys" in cli("key", "rotate").err
        cli("key", "reencrypt")
        assert opened_by(repository, old) == []
        listed = cli("key", "client", "list", "--json").json["clients"]
        assert [(item["name"], bool(item["removed"])) for item in listed] == [("web", False), ("gone", True)]
        cli("key", "client", "remove", "gone", expected=2)
        as_client("snapshot", tree)
        assert "one" in labels(cli, "--client", "web")
    assert cli("verify", "--read-data", "--all-clients").status == 0


def test_copies_elsewhere_are_known_again(cli, place, tree):
    """`sync` copies nothing anew, and takes nothing for extra, because ids have changed here."""
    cli("snapshot", tree, "--label", "one")
    other = place / "other repository"
    cli("init", "-r", other)
    cli("sync", "--to", other)
    cli("key", "rotate")
    cli("key", "reencrypt")
    (tree / "new").write_text("new")
    cli("snapshot", tree, "--label", "two")
    done = cli("sync", "--to", other, "--delete", "--json").json
    assert labels(cli, "-r", other) == ["one", "two"], done


def test_snapshot_under_way_keeps_the_old_key(cli, place, repository, tree):
    """While a session has a marker under it: nothing is retired, and all else is done."""
    cli("snapshot", tree, "--label", "one")
    secret = Secret(key=bytes(range(32)))
    places = Places(cache_dir=place / "c", state_dir=place / "s")
    from respaldo.catalog.session import Session
    from respaldo.core.seams import Silent

    with open_repository(str(repository), secret, places=places, writes=True) as opened:
        session = Session(opened.within, Silent())
        with session:
            catalogue = session.begin()
            manifest = catalogue.snapshots[0].manifest
            cli("key", "rotate")
            done = cli("key", "reencrypt", "--json", expected=3).json
            assert (done["busy"], done["retired"]) == (True, [])
            with contextlib.suppress(RespaldoError):
                session.commit(manifest, set())
    assert len(labels(cli)) == 2
    assert cli("key", "reencrypt", "--json").json["retired"] == [0]
    assert len(labels(cli)) == 2
    assert cli("verify", "--read-data").status == 0


def test_session_that_comes_too_late_commits_nothing(cli, place, repository, tree):
    """Without a marker that anybody saw: it sees the sign, says so, and leaves nothing that hinders anybody."""
    cli("snapshot", tree, "--label", "one")
    secret = Secret(key=bytes(range(32)))
    places = Places(cache_dir=place / "c", state_dir=place / "s")
    from respaldo.catalog.session import Session
    from respaldo.core.errors import KeyRotated
    from respaldo.core.seams import Silent

    with (
        open_repository(str(repository), secret, places=places, writes=True) as opened,
        Session(opened.within, Silent()) as session,
    ):
        manifest = session.begin().snapshots[0].manifest
        for path in (repository / "sessions").iterdir():
            path.unlink()
        cli("key", "rotate")
        assert cli("key", "reencrypt", "--json").json["retired"] == [0]
        with pytest.raises(KeyRotated):
            session.commit(manifest, set())
    assert labels(cli) == ["one"]
    assert cli("verify", "--read-data").status == 0
    cli("prune")


def test_reencrypt_says_that_the_disk_is_full_and_what_to_do(cli, tree, monkeypatch):
    """Where there is no room for what is sealed anew, that is said, it is no success, and the next run goes on."""
    cli("snapshot", tree)
    cli("key", "rotate")

    def full(*_):
        raise StorageFull("packs/x", "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("respaldo.flows.gc.copy.Copier.pack", full)
        done = cli("key", "reencrypt", "--json", expected=1)
        assert "too full" in done.err
        assert "hint: free space there, and run the command again" in done.err
        assert (done.json["full"], done.json["retired"]) == (True, [])
    done = cli("key", "reencrypt", "--json").json
    assert (done["full"], done["retired"]) == (False, [0])
