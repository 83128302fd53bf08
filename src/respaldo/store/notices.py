"""Notices: put by whoever collects in an area, read by its client, who can read no condemnation.

Implements docs/format.md, "Notice". What follows from one is its reader's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from respaldo.backend.base import Backend
from respaldo.codec.box import BOX_OVERHEAD_BYTES, open_box, seal_box
from respaldo.codec.compress import Compressor, Decompressor
from respaldo.codec.padding import SMALL_STEP_BYTES, padded
from respaldo.codec.signing import Signer, is_signed
from respaldo.core.errors import Corruption
from respaldo.core.seams import Random
from respaldo.format import frame
from respaldo.format.credential import Credential
from respaldo.format.enrolment import SIGNATURE_BYTES
from respaldo.format.header import HASH_BYTES, Header, close_object, unclose_object
from respaldo.format.notice import NOTICE_BYTES_MAX, NOTICE_RAW_BYTES_MAX, Notice, parse_notice

PURPOSE: Final = "notice"
_SIGNED_FOR: Final = PURPOSE.encode()


def seal_notice(
    notice: Notice,
    name: str,
    *,
    owner: Signer,
    client_box: bytes,
    header: Header,
    compressor: Compressor,
    random: Random,
) -> bytes:
    """Returns the object of a notice, signed by the area's owner, for one client.

    Raises ValueError where it is longer than a notice may be: what was moved can be left out.
    """
    draft = replace(notice, signature=bytes(SIGNATURE_BYTES)).signed()
    raw = replace(notice, signature=owner.sign(_SIGNED_FOR, header.hash, draft)).encode()
    if len(raw) > NOTICE_RAW_BYTES_MAX:
        msg = f"a notice of {len(raw)} bytes is longer than one can be"
        raise ValueError(msg)
    head, body = frame.squeeze(raw, compressor)
    around = BOX_OVERHEAD_BYTES + HASH_BYTES
    length = padded(around + len(head) + len(body), SMALL_STEP_BYTES) - around
    box = seal_box(
        client_box,
        purpose=PURPOSE,
        header_hash=header.hash,
        name=name,
        message=frame.build(head, body, length),
        random=random,
        suite=header.suite,
    )
    return close_object(box)


def read_notice(
    backend: Backend, name: str, *, credential: Credential, client: bytes, header: Header, decompressor: Decompressor
) -> Notice:
    """Reads a notice to this client and checks that the owner signed it; raises `Corruption`, `ObjectMissing`."""
    data = unclose_object(backend.get_whole(name, NOTICE_BYTES_MAX), name)
    message = open_box(
        credential.box_seed, data, purpose=PURPOSE, header_hash=header.hash, name=name, suite=header.suite
    )
    notice = parse_notice(frame.unbuild(message, decompressor, name, raw_length_max=NOTICE_RAW_BYTES_MAX), name)
    if notice.client != client or not is_signed(
        credential.owner_sign, notice.signature, _SIGNED_FOR, header.hash, notice.signed()
    ):
        raise Corruption(name, "it is not signed by the area's owner")
    return notice
