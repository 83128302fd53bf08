"""What is explored, and what must go wrong where a rule is left out.

``python -m tests.protocol.model.scopes`` explores all of it and prints counts, and a trace for each rule.
"""

from __future__ import annotations

import sys
import time

from tests.protocol.model import retiring, segments
from tests.protocol.model.explore import Model, explore, trace
from tests.protocol.model.others import build
from tests.protocol.model.world import ROOT_P, C, D, Rules, Scope, T

SPLIT = (D | T, C | ROOT_P)
ALL_AT_ONCE = (D | T | C | ROOT_P,) * 2
FIRST_PACK, OWN_PACK, FIRST_COPY = 0b1, 0b10, 0b1000

QUICK: dict[str, Scope] = {
    "a writer, a collector, expiry": Scope(packs=SPLIT, forget=0b11, expire=0b10, mends=2),
    "the same by content, listings of packs torn": Scope(
        packs=SPLIT, takes_over=False, torn_packs=True, forget=0b11, expire=0b10
    ),
    "a writer, one collector for its pack and one for what it relies on": Scope(
        collectors=2, victims=(OWN_PACK, FIRST_PACK)
    ),
    "the same for copies": Scope(collectors=2, takes_over=False, victims=(FIRST_PACK | OWN_PACK, FIRST_COPY)),
    "two writers, the second after the first": Scope(writers=2, follows=True, forget=0b011),
    "two writers at once": Scope(writers=2, victims=(FIRST_PACK, 0), forget=0b001, mends=0),
    "two collectors": Scope(packs=(*SPLIT, D | T | C | ROOT_P), writers=0, collectors=2),
    "a writer that cannot read condemnations": Scope(packs=SPLIT, blind=True, forget=0b11, expire=0b10),
    "the same by content, and notices vanish": Scope(
        packs=SPLIT, blind=True, notices_vanish=True, takes_over=False, forget=0b11, mends=2
    ),
    "the same, relying on notices that come first and stay": Scope(
        collectors=2, blind=True, trusting=True, victims=(OWN_PACK, FIRST_PACK)
    ),
    "a reader, two collectors": Scope(writers=0, collectors=2, forget=0, reader=True, looks=2),
    "a reader, two collectors, more packs": Scope(packs=SPLIT, writers=0, collectors=2, reader=True, looks=3),
    "a reader, a writer, a collector": Scope(reader=True, looks=2, forget=0, mends=0),
}
"""Seconds each."""

LONG: dict[str, Scope] = {
    "a writer, two collectors": Scope(collectors=2),
    "a writer, two collectors, by content": Scope(collectors=2, takes_over=False),
    "a writer, two collectors, expiry": Scope(collectors=2, expire=0b10, victims=(OWN_PACK, FIRST_PACK)),
    "two writers at once, any packs": Scope(writers=2, forget=0b001, mends=0),
    "two writers, the second after the first, expiry": Scope(writers=2, follows=True, forget=0b111, expire=0b110),
}
"""A minute each, and some hundreds of megabytes."""

_ONE = Scope()
BROKEN: dict[str, Scope] = {
    "w1_condemned": Scope(writers=2, follows=True, forget=0b011, victims=(FIRST_PACK, 0)),
    "w4": _ONE,
    "w4_condemnations_first": _ONE,
    "w4_condemnations": _ONE,
    "w4_packs": _ONE,
    "w4_own": _ONE,
    "w4_subtrees": _ONE,
    "w4_subtrees_again": Scope(collectors=2, victims=(OWN_PACK, FIRST_PACK)),
    "w4_found": Scope(collectors=2, takes_over=False, victims=(FIRST_PACK | OWN_PACK, FIRST_COPY)),
    "manifest_before_w4": _ONE,
    "undecided_are_roots": _ONE,
    "g5": _ONE,
    "g5_twice": _ONE,
    "g5_again": _ONE,
    "g5_all_condemnations": Scope(packs=ALL_AT_ONCE, writers=0, collectors=2, forget=0, victims=(0b01, 0b10)),
    "condemned_first": _ONE,
    "manifest_first": Scope(expire=0b01),
    "aborts_stay": Scope(expire=0b10),
    "removal_waits": _ONE,
    "notice_first": Scope(blind=True, trusting=True),
    "w4_notices": Scope(blind=True, notices_vanish=True),
}
"""Rule of `Rules` → where it is missed."""

SEGMENTS: dict[str, segments.Rules] = {
    "two sessions merge, one adds, packs are moved, all is swept": segments.Rules(
        actors=("writer", "mover", "merger 1", "merger 2", "sweeper")
    ),
    "a reader meanwhile": segments.Rules(actors=("writer", "merger 1", "merger 2", "sweeper", "reader")),
    "a reader while packs are moved": segments.Rules(actors=("mover", "merger 1", "sweeper", "reader")),
    "a reader of segments alone, while they are merged": segments.Rules(
        footers=False, actors=("merger 1", "sweeper", "reader")
    ),
}
RETIRING: dict[str, retiring.Rules] = {"an old key is destroyed while two write": retiring.Rules()}
BROKEN_RETIRING: dict[str, retiring.Rules] = {
    name: retiring.Rules(**{name: False}) for name in retiring.Rules.__slots__
}
BROKEN_SEGMENTS: dict[str, segments.Rules] = {
    "durable_first": segments.Rules(durable_first=False),
    "packs_after": segments.Rules(packs_after=False),
    "lists_again": segments.Rules(lists_again=False, footers=False, actors=("merger 1", "sweeper", "reader")),
    "footers": segments.Rules(footers=False, actors=("mover", "merger 1", "sweeper", "reader")),
}


def without(rule: str) -> Model:
    """Returns the model in which a rule is left out and missed."""
    if rule in BROKEN_SEGMENTS:
        return segments.build(BROKEN_SEGMENTS[rule])
    if rule in BROKEN_RETIRING:
        return retiring.build(BROKEN_RETIRING[rule])
    scope = BROKEN[rule]
    fields = {name: getattr(scope, name) for name in Scope.__slots__}
    return build(Scope(**{**fields, "rules": Rules(**{rule: False})}))


def main() -> None:
    """Explores everything; the exit status is 1 where anything is wrong."""
    wrong = False
    models = {name: build(scope) for name, scope in {**QUICK, **LONG}.items()}
    models.update({name: segments.build(rules) for name, rules in SEGMENTS.items()})
    models.update({name: retiring.build(rules) for name, rules in RETIRING.items()})
    for name, model in models.items():
        begun_s = time.process_time()
        found = explore(model)
        print(f"{name}: {found} ({time.process_time() - begun_s:.0f} CPU-s)", flush=True)
        wrong |= bool(found.wrong)
    for rule in (*BROKEN, *BROKEN_SEGMENTS, *BROKEN_RETIRING):
        found = trace(without(rule))
        print(f"\nwithout {rule}: {found if found.wrong else 'nothing is missed'}", flush=True)
        wrong |= not found.wrong
    sys.exit(wrong)


if __name__ == "__main__":
    main()
