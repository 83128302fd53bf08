"""Targets: the log of what clients did."""

from __future__ import annotations

from respaldo.format import logbook
from respaldo.store import logloss
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target

CLIENT = bytes(range(16))
_FIRST = logbook.Entry(
    client=CLIENT,
    number=0,
    previous=logbook.FIRST,
    key=b"K" * 32,
    time_ns=5,
    verb="commit",
    subjects=(b"s" * 16 + b"h" * 32,),
    note="a note",
    signature=b"S" * 64,
)
_SECOND = logbook.Entry(
    client=CLIENT,
    number=1,
    previous=_FIRST.hash,
    time_ns=-7,
    verb="forget",
    subjects=(b"s" * 16,),
    heads=(logbook.Head(b"c" * 16, 9, b"h" * 32),),
    access=(3, b"a" * 32),
    admin=b"A" * 64,
    signature=b"S" * 64,
)
LOG_NAME = logbook.object_name(CLIENT, 1)


def _again_log(entries: object) -> bytes:
    assert isinstance(entries, tuple)
    return logbook.encode_object([entry.encode() for entry in entries])


_LOSS = logloss.subject_of(logloss.Gap(CLIENT, 3, 1 << 40), b"")


def _log_name(data: bytes) -> object:
    return logbook.parse_name(data.decode("utf-8", "surrogateescape"))


TARGETS = [
    Target(
        name="log",
        parse=lambda data: logbook.parse_object(data, LOG_NAME),
        seeds=lambda: [_again_log((_FIRST, _SECOND)), _again_log((_SECOND,))],
        again=_again_log,
        form=Form.VALUE,
        modules=("respaldo.format.logbook",),
    ),
    Target(
        name="log-entry",
        parse=lambda data: logbook.parse_entry(data, "x"),
        seeds=lambda: [_FIRST.encode(), _SECOND.encode()],
        again=lambda entry: entry.encode(),  # type: ignore[attr-defined]
        form=Form.VALUE,
        modules=("respaldo.format.logbook",),
    ),
    Target(
        name="log-name",
        parse=_log_name,
        seeds=lambda: [LOG_NAME.encode()],
        form=Form.TEXT,
        modules=("respaldo.format.logbook",),
    ),
    Target(
        name="log-loss",
        parse=logloss.parse_subject,
        seeds=lambda: [_LOSS],
        form=Form.BYTES,
        modules=("respaldo.store.logloss",),
    ),
]
