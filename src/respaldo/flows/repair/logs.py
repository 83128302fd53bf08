"""What a repair does about the log: entries that are kept are put again, what is lost for good is said to be lost.

Never writes in another client's name: what it puts again are that one's own bytes, and what it says of a loss it says
in its own. Implements docs/format.md, "Repair".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from respaldo.core.errors import Corruption, ObjectExists
from respaldo.flows.repair.options import Step, Verb
from respaldo.format.logbook import object_name, parse_name
from respaldo.store.logbook import Logbook
from respaldo.store.logstate import LogState, give_up, put_again, survey_log
from respaldo.store.repo import Repo

FOLDER = "log"
_UNREAD = "it cannot be read"
_ACCEPT = "if you know why, say so in the log and go on with: respaldo repair --accept-rollback"


def plan_log(repo: Repo, faults: Mapping[str, str], *, accept_lost: bool) -> Iterator[Step]:
    """Decides about damaged objects of the log, and about what lacks."""
    log = repo.log
    if log is None or not any(name.startswith(FOLDER + "/") for name in faults):
        return
    state = survey_log(log)
    runs = [run for gap in state.gaps for run in state.runs(gap)]
    lost = [gap for gap, is_kept in runs if not is_kept]
    if accept_lost:  # before what shows that it was there goes
        for gap in lost:
            text = f"{gap} {gap.are} lost for good, and the log will say so"
            yield Step(verb=Verb.GIVE_UP, name=object_name(gap.client, gap.last), text=text)
    for name, reason in sorted(state.damaged.items()):
        place = parse_name(name)
        if reason.startswith(_UNREAD):
            yield Step(verb=Verb.LEAVE, name=name, text=f"{reason}; check the disk and its permissions")
        elif place is not None and place[1] in state.entries.get(place[0], {}) and _is_read(log, name):
            yield Step(verb=Verb.LEAVE, name=name, text=f"{reason}: nobody can mend that; see: respaldo log show")
        elif place is None or accept_lost or not any(place in gap for gap in lost):
            yield Step(verb=Verb.ASIDE, name=name, text=_said(state, place))
    for gap, is_kept in runs:
        name = object_name(gap.client, gap.last)
        if is_kept:
            yield Step(verb=Verb.AGAIN, name=name, text=f"this machine has kept {gap}")
        elif not accept_lost:
            text = f"{gap} {gap.are} in no object, and not kept on this machine; {_ACCEPT}"
            yield Step(verb=Verb.LEAVE, name=name, text=text)


def _said(state: LogState, place: tuple[bytes, int] | None) -> str:
    if place is None or place[1] in state.entries.get(place[0], {}):
        return "what it said stands in other objects"
    if place in state.seen:
        return "what it said is kept here, and is put again"
    if any(place in gap for gap in state.lost):
        return "what it said is known to be lost"
    return "what it said is lost for good"


def _is_read(log: Logbook, name: str) -> bool:
    """Whether an object opens: then it is what is in it that is wrong."""
    try:
        log.read_object(name)
    except Corruption:
        return False
    return True


def mend_log(repo: Repo, step: Step) -> str:
    """Does a step, as far as things still are so; returns what came of it, nothing where that is what was planned."""
    log, place = repo.log, parse_name(step.name)
    if log is None or place is None:
        return ""
    state = survey_log(log)
    gap = next((run for gap in state.gaps for run, _ in state.runs(gap) if place == (run.client, run.last)), None)
    if gap is None:
        return "it is there now"
    if step.verb is Verb.AGAIN:
        try:
            put_again(log, state, gap)
        except ObjectExists:
            return "it is there now"
    elif not give_up(log, state, [gap]):
        raise Corruption(step.name, "this machine's state directory cannot be written to, so that it can say nothing")
    return ""
