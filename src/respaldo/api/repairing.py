"""A repair as callers see it: what a check found, handed to the flow that mends it.

The flows do not know one another; this is where the one's findings become the other's diagnosis.
"""

from __future__ import annotations

from dataclasses import replace

from respaldo.api.history import History
from respaldo.api.parity import Parity
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import examine
from respaldo.flows.repair.options import Diagnosis, RepairOptions, RepairPlan, RepairResult, Step, Verb
from respaldo.flows.repair.run import Repair
from respaldo.store.repo import Repo


class Repairing:
    """Is a repair that was prepared: its plan, and the way to carry it out. What parity mends comes first."""

    def __init__(
        self, repo: Repo, options: RepairOptions, history: History, *, progress: Progress, cancel: Cancel
    ) -> None:
        self._history = history if options.accept_lost else None
        diagnosis = diagnose(repo, options, progress=progress, cancel=cancel)
        self._repo = repo
        self._of_structure = any(map(_is_of_structure, diagnosis.faults))
        self._parity = Parity(repo)
        mended = self._parity.mended
        faults = {name: reason for name, reason in diagnosis.faults.items() if name not in mended}
        self._repair = Repair(repo, replace(diagnosis, faults=faults), options, cancel=cancel)
        self._rest = self._repair.plan()
        steps = tuple(Step(verb=Verb.MEND, name=name, text=reason) for name, reason in sorted(mended.items()))
        self.plan = RepairPlan(steps=steps + self._rest.steps, faults=len(steps) + self._rest.faults)

    def carry_out(self, *, progress: Progress, cancel: Cancel) -> RepairResult:
        """Does what the plan says."""
        done: list[Step] = []
        left: list[Step] = []
        aside: list[str] = []
        for item in self._parity.mend(step.name for step in self.plan.steps if step.verb is Verb.MEND):
            cancel.check()
            step = Step(verb=Verb.MEND if item.mended else Verb.LEAVE, name=item.name, text=item.reason)
            (done if item.mended else left).append(step)
            aside += [item.aside] if item.aside else []
            progress.note(1, str(step))
        result = self._repair.execute(self._rest, progress=progress, cancel=cancel)
        if self._history is not None:
            self._history.accept()
        if self._of_structure:  # what no honest client writes may be nothing that could be marked as lost
            again = diagnose(self._repo, RepairOptions(), progress=progress, cancel=cancel)
            text = "{}; it was written so: leave it, or forget the snapshots that verify names"
            left += [
                Step(verb=Verb.LEAVE, name=name, text=text.format(reason))
                for name, reason in sorted(again.faults.items())
                if _is_of_structure(name)
            ]
        return replace(
            result,
            plan=self.plan,
            done=(*done, *result.done),
            left=(*left, *result.left),
            aside=(*aside, *result.aside),
        )


def _is_of_structure(fault: str) -> bool:
    """Whether a fault is one of a tree or a list, whose bytes are what they were when they were written."""
    return fault.startswith(("tree ", "list "))


def diagnose(repo: Repo, options: RepairOptions, *, progress: Progress, cancel: Cancel) -> Diagnosis:
    """Looks at everything, as deep as the options say; changes nothing.

    Raises `KeyRotated` where the key was rotated since the repository was opened: what is written under the new one
    would be taken for damage.
    """
    epoch = repo.epoch  # who only reads may go on in another one
    found = examine(repo, VerifyOptions(read_data=options.read_data), progress=progress, cancel=cancel)
    faults = {damage.name: damage.reason for damage in found.findings.freeze()}
    if faults:
        repo.require_newest(epoch)
    unlisted = any(note.text.startswith("no segment lists") for note in found.inventory.notes)
    return Diagnosis(faults=faults, incomplete=found.incomplete, unlisted=unlisted)
