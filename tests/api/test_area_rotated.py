"""A client that is renewed, and whose area is sealed anew, while its owner has the area open: readers go on."""

from __future__ import annotations

import pytest

from respaldo import api
from respaldo.api import mount
from respaldo.core.errors import KeyRotated
from respaldo.core.seams import Cancel, Silent

SECRET = api.Secret(key=bytes(32))


@pytest.fixture
def places(tmp_path):
    """Has places for the owner, for another machine of his, and for the client."""
    return {
        name: api.Places(cache_dir=tmp_path / name / "cache", state_dir=tmp_path / name / "state")
        for name in ("owner", "other", "client")
    }


@pytest.fixture
def place(tmp_path, places):
    """Has a repository with a client, which has stored a snapshot."""
    place = str(tmp_path / "repository")
    api.init(place, SECRET, places=places["owner"])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"content")
    with api.open_repository(place, SECRET, places=places["owner"], writes=True) as owner:
        added = owner.clients.add("web")
    backup(tmp_path, place, added, places)
    return place


def backup(tmp_path, place, added, places):
    credential = api.parse_credential(added.credential, "x")
    with api.open_as_client(place, credential, places=places["client"], writes=True) as area:
        area.backup([bytes(tmp_path / "source")], api.BackupOptions(), progress=Silent(), cancel=Cancel())


def renew(place, places, *, rotates=False):
    """Renews the client and seals its area anew, on another machine; ``rotates``: after the owner's own key."""
    if rotates:
        with api.open_repository(place, SECRET, places=places["other"], writes=True) as owner:
            owner.slots.rotate(owner.slots.plan_rotation(None))
        with api.open_repository(place, SECRET, places=places["other"], writes=True) as owner:
            owner.slots.reencrypt(progress=Silent(), cancel=Cancel())
    with api.open_repository(place, SECRET, places=places["other"], writes=True) as owner:
        renewed = owner.clients.renew("web")
        with api.open_area(owner, "web", places=places["other"], writes=True) as area:
            area.slots.reencrypt(progress=Silent(), cancel=Cancel())
    return renewed


@pytest.mark.parametrize("rotates", [False, True])
def test_mount_of_an_area_follows(place, places, tmp_path, rotates):
    """It reads what was carried over, and shows what the client stores under its new credential."""
    with (
        api.open_repository(place, SECRET, places=places["owner"]) as owner,
        api.open_area(owner, "web", places=places["owner"]) as area,
    ):
        look = mount._Look(area.within)
        assert len(look()) == 1
        renewed = renew(place, places, rotates=rotates)
        (tmp_path / "source" / "more").write_bytes(b"more" * 1000)
        backup(tmp_path, place, renewed, places)
        assert len(look()) == 2
        assert area.within.epoch.number == 1
        assert not area.within.damaged


@pytest.mark.parametrize("rotates", [False, True])
def test_restore_goes_on(place, places, tmp_path, rotates):
    """Whose packs were carried over between the plan and the first byte."""
    with (
        api.open_repository(place, SECRET, places=places["owner"]) as owner,
        api.open_area(owner, "web", places=places["owner"]) as area,
    ):
        found = area.find("latest")
        renew(place, places, rotates=rotates)
        done = area.restore(found, bytes(tmp_path / "out"), api.RestoreOptions(), progress=Silent(), cancel=Cancel())
        assert not area.verify(api.VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel()).damages
    assert not done.failures
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("file")] == [b"content"]


def test_what_cannot_be_followed_is_said(place, places):
    """Who holds no secret of the owner's repository, as an agent does not, cannot read what the new keys are."""
    with api.open_repository(place, SECRET, places=places["owner"]) as owner:
        opened = owner.opened
    with (
        api.open_repository(place, opened, places=places["owner"]) as owner,
        api.open_area(owner, "web", places=places["owner"]) as area,
    ):
        look = mount._Look(area.within)
        assert len(look()) == 1
        renew(place, places, rotates=True)
        with pytest.raises(KeyRotated):
            look()


def test_sign_that_nobody_has_renewed_by_changes_nothing(place, places, tmp_path):
    """Storage can put one; and a renewal has one before it is there."""
    (area_path,) = (tmp_path / "repository" / "clients").iterdir()
    with (
        api.open_repository(place, SECRET, places=places["owner"]) as owner,
        api.open_area(owner, "web", places=places["owner"]) as area,
    ):
        look = mount._Look(area.within)
        (area_path / "epochs").mkdir(exist_ok=True)
        (area_path / "epochs" / ("0" * 15 + "7.ended")).write_bytes(b"forged")
        assert len(look()) == 1
        assert area.within.epoch.number == 0


def test_who_writes_stays(place, places):
    """As everywhere: what it has listed is of the epoch that it began in."""
    with (
        api.open_repository(place, SECRET, places=places["owner"]) as owner,
        api.open_area(owner, "web", places=places["owner"], writes=True) as area,
    ):
        renew(place, places)
        area.within.keep_up()
        assert area.within.epoch.number == 0
