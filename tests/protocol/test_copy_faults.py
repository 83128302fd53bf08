"""Every call of a copy fails, to the repository that is read and to the one that is written, and every one is the last.

Afterwards what was copied is whole, nothing is there twice, the repository that was read is as it was, and the next
copy comes to its end, with the cache that the failed one left and without one.
"""

from __future__ import annotations

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure, passing_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.core.errors import StorageError, StorageFull
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.copying.options import CopyOptions, lacks
from respaldo.flows.copying.run import run_copy
from tests.flows.copying.lab import Lab
from tests.protocol.scene import change_tree, contents, copy_cache, memory_with

pytestmark = pytest.mark.usefixtures("_inline")


def full(name: str) -> StorageFull:
    return StorageFull(name, "injected")


class Theatre:
    """Has a lab in which one of two snapshots is copied, and plays the second copy from there any number of times."""

    def __init__(self, folder, *, alike: bool) -> None:
        self.lab = lab = Lab(folder, alike=alike)
        lab.snapshot()
        lab.copy()
        change_tree(lab.tree, 3)
        lab.snapshot()
        self.objects_a, self.objects_b = lab.a.snapshot(), lab.b.snapshot()
        copy_cache(lab.folder / "cache b0", lab.folder / "cache")

    def reset(self) -> None:
        """Puts everything back as it was before the second copy."""
        lab = self.lab
        lab.a, lab.b = memory_with(self.objects_a), memory_with(self.objects_b)
        lab.source.inner, lab.target.inner = lab.a, lab.b
        copy_cache(lab.folder / "cache", lab.folder / f"cache b{lab.caches}")

    def run(self, side: str, faults: Faults) -> BaseException | None:
        """Copies; the faults of one side begin once both are open. Returns the error or None."""
        lab = self.lab
        try:
            with lab.open_source() as source, lab.open_target() as target:
                repo = source if side == "source" else target
                faults.inner = repo.backend
                repo.backend = repo.source._backend = faults
                wanted = load(source).snapshots
                run_copy(source, target, wanted, CopyOptions(), progress=Silent(), cancel=Cancel())
        except (StorageError, Crash) as error:
            return error
        return None

    def look(self, copies: set[int], *, lacking: bool = False) -> None:
        """Fails unless what is committed is whole, and there once; ``lacking``: one that says what it lacks may be."""
        with self.lab.open_source() as source, self.lab.open_target() as target:
            originals = {item.id: contents(source, item.id) for item in load(source).snapshots}
            found = load(target)
            assert not found.damaged
            whole = []
            for item in found.snapshots:
                if lacking and any(lacks(item.manifest)):
                    continue
                origin = item.manifest.origin
                assert contents(target, item.id) == originals[origin[1]]
                whole.append(origin)
            assert len(whole) == len(set(whole)), "one is there twice"
            assert len(whole) in copies
            result = run_verify(target, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
            assert result.damages == ()


@pytest.fixture(scope="module", params=[True, False], ids=["alike", "anew"])
def theatre(request, tmp_path_factory):
    """Two repositories that name content alike, or do not."""
    from tests.protocol.scene import inline_workers  # as the mark, which is of one test

    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        return Theatre(tmp_path_factory.mktemp("copy"), alike=request.param)


def calls_of(theatre: Theatre, side: str) -> list[tuple[str, str]]:
    theatre.reset()
    faults = Faults(MemoryBackend())
    assert theatre.run(side, faults) is None
    theatre.look({2})
    return faults.calls


@pytest.mark.parametrize(("error", "after"), [(lasting_failure, False), (full, False), (Crash, False), (Crash, True)])
def test_no_call_to_what_is_written_costs_anything(theatre, error, after):
    """Wherever it ends: the first copy stays, the second is whole or not there, and the next run makes it."""
    calls = calls_of(theatre, "target")
    assert {verb for verb, _ in calls} >= {"put", "list"}
    changes = [at for at, (verb, _) in enumerate(calls, 1) if verb in CHANGES]
    assert {calls[at - 1][1].partition("/")[0] for at in changes} >= {"packs", "segments", "pending", "outcome"}
    # A full disk refuses to take; to die after a call that changes nothing is to die before the next one.
    for at in changes if after or error is full else range(1, len(calls) + 1):
        theatre.reset()
        raised = theatre.run("target", Faults(MemoryBackend(), [Fault(at=at, error=error, after=after)]))
        verb, name = calls[at - 1]
        if verb == "put" or error is Crash:
            assert type(raised) is type(error(name)), (at, verb, name)
        else:
            assert raised is None or isinstance(raised, StorageError)
        if at in changes:
            theatre.look({1, 2})
            if error is lasting_failure:
                theatre.lab.forget_everything()
        assert theatre.run("target", Faults(MemoryBackend())) is None
        theatre.look({2})
        assert theatre.lab.a.snapshot() == theatre.objects_a


@pytest.mark.parametrize("error", [lasting_failure, passing_failure, Crash])
def test_no_call_to_what_is_read_costs_anything(theatre, error):
    """Where it cannot be read, that is said, or what could not be had is named; nothing half is committed."""
    calls = calls_of(theatre, "source")
    assert any(name.startswith("packs/") for _, name in calls)
    for at in range(1, len(calls) + 1):
        theatre.reset()
        raised = theatre.run("source", Faults(MemoryBackend(), [Fault(at=at, error=error)]))
        assert raised is None or isinstance(raised, Crash if error is Crash else StorageError)
        theatre.look({1, 2}, lacking=True)
        assert theatre.run("source", Faults(MemoryBackend())) is None
        theatre.look({2}, lacking=True)
        assert theatre.lab.a.snapshot() == theatre.objects_a
