"""A repair as callers see it: what a check found, handed to the flow that mends it.

The flows do not know one another; this is where the one's findings become the other's diagnosis.
"""

from __future__ import annotations

from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import examine
from respaldo.flows.repair.options import Diagnosis, RepairOptions, RepairPlan, RepairResult
from respaldo.flows.repair.run import Repair
from respaldo.store.repo import Repo


class Repairing:
    """Is a repair that was prepared: its plan, and the way to carry it out."""

    def __init__(self, repo: Repo, options: RepairOptions, *, progress: Progress, cancel: Cancel) -> None:
        diagnosis = diagnose(repo, options, progress=progress, cancel=cancel)
        self._repair = Repair(repo, diagnosis, options, cancel=cancel)
        self.plan: RepairPlan = self._repair.plan()

    def carry_out(self, *, progress: Progress, cancel: Cancel) -> RepairResult:
        """Does what the plan says."""
        return self._repair.execute(self.plan, progress=progress, cancel=cancel)


def diagnose(repo: Repo, options: RepairOptions, *, progress: Progress, cancel: Cancel) -> Diagnosis:
    """Looks at everything, as deep as the options say; changes nothing."""
    found = examine(repo, VerifyOptions(read_data=options.read_data), progress=progress, cancel=cancel)
    faults = {damage.name: damage.reason for damage in found.findings.freeze()}
    unlisted = any(note.text.startswith("no segment lists") for note in found.inventory.notes)
    return Diagnosis(faults=faults, incomplete=found.incomplete, unlisted=unlisted)
