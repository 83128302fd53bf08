"""Parity as a check sees it: what it could mend in memory, what has none, and whether what there is of it is sound.

Damage that parity mends is damage, of which nothing is lost. An object without a sidecar is none, and is noted.
"""

from __future__ import annotations

from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.seams import Cancel
from respaldo.flows.check.findings import Findings
from respaldo.flows.check.result import Note
from respaldo.format.parity import SIDECAR_BYTES_MAX
from respaldo.store.mending import Mending
from respaldo.store.parity import FOLDER, is_sound
from respaldo.store.repo import Repo
from respaldo.store.sidecars import survey


def take_mended(repo: Repo, findings: Findings) -> None:
    """Makes findings of what was mended in memory while it was read."""
    backend = repo.backend
    if isinstance(backend, Mending):
        for name, what in backend.mended.items():
            finding = findings.by_name.get(name) or findings.add(name, what)
            finding.mendable = True


def check_parity(repo: Repo, findings: Findings, cancel: Cancel, *, read_data: bool) -> list[Note]:
    """Lists sidecars, reads them where that was asked for; returns what is worth knowing."""
    share = repo.config.parity
    if not share and not repo.backend.names(FOLDER):
        return []
    found = survey(repo.backend, share)
    if read_data:
        for name in sorted(found.sidecars.keys() - set(found.orphans)):
            cancel.check()
            _read(repo, findings, name)
    if not share or not found.missing:
        return []
    text = f"{len(found.missing)} of {len(found.objects)} objects have none yet; the next prune, or parity on, makes it"
    return [Note(name="parity", text=text)]


def _read(repo: Repo, findings: Findings, name: str) -> None:
    try:
        sound = is_sound(name, repo.backend.get_whole(name, SIDECAR_BYTES_MAX))
        reason = "" if sound else "its closing hash does not fit its bytes"
    except ObjectMissing:
        return
    except Corruption as error:
        reason = error.reason
    except StorageFailed as error:
        reason = f"it cannot be read ({error.reason})"
    if reason:
        findings.add(name, reason).mendable = True
