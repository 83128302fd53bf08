"""Targets: what concerns clients that can write and not read, and epochs of keys."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence

from respaldo.codec import box
from respaldo.format import credential, enrolment, epoch, notice, runrecord
from tests.format import samples
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target

_SEED = bytes(range(32))
_PUBLIC = box.box_public(_SEED)
_ABOUT = {"purpose": "root", "header_hash": b"h" * 32, "name": "runs/" + "ab" * 16}
_NAMES: Sequence[tuple[Callable[[str], object], Callable[..., str]]] = (
    (enrolment.parse_record_name, enrolment.RecordName.object_name),
    (epoch.parse_record_name, lambda found: epoch.record_name(*found)),
    (epoch.parse_retiring_name, epoch.retiring_name),
    (epoch.parse_ended_name, epoch.ended_name),
    (epoch.parse_removed_name, epoch.removed_name),
    (notice.parse_notice_name, notice.notice_name),
    (runrecord.parse_run_name, runrecord.run_name),
)


def _name(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for parse, name_of in _NAMES:
        found = parse(text)
        assert found is None or name_of(found) == text, "a name that is not its own"


def _same(found: object) -> None:
    assert isinstance(found, credential.Credential)
    assert credential.parse_credential(found.encode(), "x") == found


def _credential_of(raw: bytes) -> bytes:
    return credential._MARK + base64.urlsafe_b64encode(raw + credential._check(raw)) + b"\n"


def _inside(data: bytes) -> bytes:
    line = next(line for line in data.split(b"\n") if line.startswith(credential._MARK))
    return base64.urlsafe_b64decode(line.removeprefix(credential._MARK))[: -credential._CHECK_BYTES]


TARGETS = [
    Target(
        name="credential",
        parse=lambda data: credential.parse_credential(data, "x"),
        seeds=lambda: (samples.CREDENTIAL.encode(),),
        use=_same,
        form=Form.VALUE,
        wrappings=(Wrapping(off=_inside, on=_credential_of),),
        modules=("respaldo.format.credential",),
    ),
    Target(
        name="area-name",
        parse=_name,
        seeds=lambda: (
            *(name.encode() for name in (epoch.record_name(3, 1 << 60), epoch.retiring_name(0), epoch.ended_name(1))),
            epoch.removed_name(2).encode(),
            enrolment.RecordName(client=b"C" * 16).object_name().encode(),
            enrolment.RecordName(client=b"C" * 16, renewal=2).object_name().encode(),
            enrolment.RecordName(client=b"C" * 16, removed=True, copy=True, epoch=3).object_name().encode(),
            *(name.encode() for name in (notice.notice_name(b"n" * 16), runrecord.run_name(b"r" * 16))),
        ),
        form=Form.TEXT,
        modules=("respaldo.format.enrolment", "respaldo.format.epoch", "respaldo.format.notice"),
    ),
    Target(
        name="box",
        parse=lambda data: box.open_box(_SEED, data, **_ABOUT),  # type: ignore[arg-type]
        seeds=lambda: (box.seal_box(_PUBLIC, message=b"m" * 32, random=lambda length: b"\x07" * length, **_ABOUT),),  # type: ignore[arg-type]
    ),
]
