"""The power fails at every point of a snapshot, and every fsync of one on a disk fails.

What was under way is lost, kept or torn. Afterwards the first snapshot must be whole, there must be no half one, and
the next run must succeed: with the client's cache as it was (it was the server that fell) and without one.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections import Counter

import pytest

from respaldo.backend.durability import KEPT, LOST, TORN, DurabilityModel
from respaldo.backend.faults import Crash
from respaldo.backend.local import LocalBackend
from respaldo.core.errors import RespaldoError, StorageFailed, StorageFull
from tests.protocol.scene import back_up, committed, contents, fresh_cache, open_repository, snapshot_of

pytestmark = pytest.mark.usefixtures("_inline", "_saves_always")


def model_of(stage, **options) -> DurabilityModel:
    """Returns a medium on which the first snapshot is durable."""
    model = DurabilityModel(**options)
    model._visible, model._durable = dict(stage.objects), dict(stage.objects)
    return model


def steps_of(stage) -> int:
    model = model_of(stage)
    with open_repository(model, stage.copy_of_cache()) as repo:
        snapshot_of(back_up(repo, stage.source))
    return model.steps


def crash(stage, model, cache) -> None:
    with pytest.raises(Crash), open_repository(model, cache) as repo:
        back_up(repo, stage.source)


@pytest.mark.parametrize("fates", [LOST, KEPT, TORN], ids=["lost", "kept", "torn"])
def test_power_cut_at_every_step_costs_no_snapshot(stage, fates):
    """Whatever became of the change that was under way, what was committed is whole and the next run succeeds."""
    steps = steps_of(stage)
    assert steps > 20
    for step in range(1, steps + 1):
        model = model_of(stage, crash_at=step)
        crash(stage, model, cache := stage.copy_of_cache())
        volatile = model.volatile()
        assert len(volatile) <= 1
        if not volatile and fates is not LOST:
            continue  # nothing was under way: the same for all fates
        model.power_cut(fates)
        left = model.snapshot()
        stage.check(model, cache)
        again = model_of(stage)
        again._visible, again._durable = dict(left), dict(left)
        stage.check(again, fresh_cache(stage.folder / "fresh"))


def test_medium_that_lies_is_found_out(stage):
    """Without a sync that is one, this very test finds a snapshot that is not whole: it would see a missing fsync."""
    rng = random.Random(3)
    found = Counter()
    for step in (*range(1, steps_of(stage) + 1), *[0] * 20):
        model = model_of(stage, sync=False, crash_at=step)
        with open_repository(model, stage.copy_of_cache()) as repo:
            if step:
                with pytest.raises(Crash):
                    back_up(repo, stage.source)
            else:
                back_up(repo, stage.source)
        model.power_cut(lambda _verb, _name: rng.choice(("lost", "kept")))
        with open_repository(model, fresh_cache(stage.folder / "fresh")) as repo:
            repo.synchronise()
            for snapshot in committed(repo):
                try:
                    contents(repo, snapshot)
                except RespaldoError:
                    found["not whole"] += 1
                else:
                    found["whole"] += 1
    assert found["not whole"]


# --- a disk ----------------------------------------------------------------------------------------------------------


class Syncs:
    """Says what was synced, and (with `look`) what had its name by then; fails at the k-th; makes nothing durable."""

    def __init__(self, root, *, look: bool = False, fail_at: int = 0, error: int = errno.EIO) -> None:
        self.root = root
        self.look = look
        self.fail_at = fail_at
        self.error = error
        self.seen: list[tuple[str, str, frozenset[str]]] = []

    def sync_file(self, fd: int) -> None:
        self._sync("file", fd)

    def sync_dir(self, fd: int) -> None:
        self._sync("directory", fd)

    def _sync(self, kind: str, fd: int) -> None:
        path = os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), self.root)
        folder = path if kind == "directory" else os.path.dirname(path)
        self.seen.append((kind, folder, frozenset(objects_of(self.root)) if self.look else frozenset()))
        if len(self.seen) == self.fail_at:
            raise OSError(self.error, os.strerror(self.error))


def objects_of(root) -> list[str]:
    """Returns the objects that have their names, sorted."""
    return sorted(
        os.path.relpath(path, root) for path in root.rglob("*") if path.is_file() and not path.name.startswith(".")
    )


def disk_of(stage, root, objects) -> LocalBackend:
    """Puts objects into a new directory on a disk."""
    backend = LocalBackend(root, create=True, fsync=Syncs(root))
    for name, content in objects.items():
        backend.put(name, [content])
    return backend


def on_local_disk(stage, root, syncs, cache):
    """Makes a snapshot on a disk; returns the error or None."""
    backend = LocalBackend(root, fsync=Syncs(root))
    try:
        with open_repository(backend, cache, random.Random(5).randbytes) as repo:
            backend._syncer = backend._folders._syncer = syncs
            snapshot_of(back_up(repo, stage.source))
    except RespaldoError as error:
        return error
    return None


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_every_fsync_that_fails_costs_no_snapshot(stage, quick, error):
    """Where the disk says that it could not write, the run fails, leaves no litter, and costs nothing."""
    template = quick / f"disk-{error}"
    disk_of(stage, template, stage.objects).close()
    looked_at = set()
    for at in range(1, 1000, 1 if error == errno.EIO else 4):
        place = quick / f"disk-{error}-{at}"
        shutil.copytree(template, place)
        syncs = Syncs(place, fail_at=at, error=error)
        raised = on_local_disk(stage, place, syncs, cache := stage.copy_of_cache())
        if len(syncs.seen) < at:  # all of them have failed once
            assert raised is None
            break
        kind, folder, _ = syncs.seen[at - 1]
        if raised is None:
            assert (kind, folder) == ("directory", "sessions")
            assert at == len(syncs.seen), "deleting the marker at the end, and nothing else, may fail"
        else:
            assert isinstance(raised, StorageFull if error == errno.ENOSPC else StorageFailed)
        backend = LocalBackend(place, fsync=Syncs(place))
        assert backend.litter() == []
        state = (kind, folder.partition("/")[0], tuple(sorted(path.partition("/")[0] for path in objects_of(place))))
        if state not in looked_at:  # listings sync directories too, and change nothing
            looked_at.add(state)
            stage.check(backend, cache)
        shutil.rmtree(place)
    assert len(looked_at) > 10


def test_fsyncs_come_in_the_order_of_the_protocol(stage, quick):
    """Each object is synced, then its directory, before anything that refers to it is even begun."""
    root = quick / "order"
    disk_of(stage, root, stage.objects).close()
    before = set(objects_of(root))
    syncs = Syncs(root, look=True)
    assert on_local_disk(stage, root, syncs, stage.copy_of_cache()) is None
    order: list[tuple[str, str]] = []
    for kind, folder, there in syncs.seen:
        top = folder.partition("/")[0]
        new = {name.partition("/")[0] for name in there - before}
        if kind == "file":
            order.append((kind, top))
            assert top == "sessions" or "sessions" in new
            if top == "segments":
                assert "packs" in new
            elif top == "pending":
                assert {"packs", "segments"} <= new
                packs = sum(name.startswith("packs/") for name in there)
                segments_begun = order.count(("file", "segments"))
                assert packs - sum(name.startswith("packs/") for name in before) == order.count(("file", "packs"))
                assert segments_begun == sum(name.startswith("segments/") for name in there - before)
            elif top == "outcome":
                assert "pending" in new
        elif order and order[-1] == ("file", top):
            # The directory of the object, in which it has its name by now; listings sync directories too, later.
            order.append((kind, top))
    assert len(order) % 2 == 0
    pairs = list(zip(order[::2], order[1::2], strict=True))
    assert all(
        file == ("file", top) and directory == ("directory", top) for file, directory in pairs for top in [file[1]]
    )
    tops = [file[1] for file, _ in pairs]
    assert tops[0] == "sessions"
    assert tops[-2:] == ["pending", "outcome"]
    assert set(tops[1:-2]) == {"packs", "segments"}
    assert tops[-3] == "segments"
    for at, top in enumerate(tops):
        if top == "segments":
            assert tops[at - 1] == "packs"
