"""Where chunks were that are in no pack any more: segments remember what packs held that are gone or cut short."""

from __future__ import annotations

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, pack_object, segment_object
from respaldo.flows.check.chunks import MISSING_KEPT, Chunks
from respaldo.flows.check.findings import Findings
from respaldo.flows.check.objects import Inventory
from respaldo.format.pack import parse_footer
from respaldo.store.repo import Repo


def blame_packs(repo: Repo, chunks: Chunks, findings: Findings, inventory: Inventory) -> None:
    """Finds the packs that held what is missing; what was in none of a segment is blamed on the packs as such."""
    missing = chunks.missing
    if not missing:
        return
    for name in inventory.stray_segments:
        try:
            segment = repo.read_segment(name)
        except (Corruption, ObjectMissing):
            continue
        for item in segment.packs:
            if repo.index.number_of(item.pack) is not None:
                continue
            try:
                ids = parse_footer(item.footer, segment_object(name)).ids
            except Corruption:
                continue
            held = {ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(ids), CHUNK_ID_BYTES)} & missing.keys()
            held = {chunk_id for chunk_id in held if missing[chunk_id] is chunks.nowhere}
            if not held:
                continue
            what = pack_object(item.pack)
            finding = findings.by_name.get(what)
            if item.pack not in inventory.listing.packs:
                finding = findings.add(what, f"it is gone, and {segment_object(name)} lists it")
            elif finding is None:
                finding = findings.add(what, "it is not the pack that a segment lists")
            finding.missing += len(held)
            for chunk_id in held:
                missing[chunk_id] = finding
    left = sum(finding is chunks.nowhere for finding in missing.values())
    if left or len(missing) >= MISSING_KEPT:
        chunks.nowhere.missing = left
        chunks.nowhere.because("chunks that snapshots need are in none that can be read")
        findings.by_name[chunks.nowhere.name] = chunks.nowhere
