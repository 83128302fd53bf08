"""The credential: a file that makes a machine a client, and holds all that it needs to write, and nothing that reads.

One line of text behind a comment, so that it can be copied and pasted. What it pins (the header's hash, the public
keys) is never taken from storage. Where a client with rights was renewed, the line from before may stand beside the new
one: it opens what was granted then. Implements docs/format.md, "Credential".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.format import canonical
from respaldo.format.config import CONTENT_KEYS_BYTES, Config, parse_config
from respaldo.format.enrolment import CLIENT_BYTES, HASH_BYTES, KEY_BYTES, is_client_name, parse_rights
from respaldo.format.epoch import EPOCH_MAX

CREDENTIAL_BYTES_MAX: Final = 1 << 15
_MARK: Final = b"respaldo-client-"
_CHECK_BYTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Is what a client holds.

    ``sign_seed``, ``box_seed``: its private keys. ``owner_box``, ``owner_sign``: the public keys of the area's owner,
    to which it seals runs and by whose signature it knows notices. ``content_keys`` and ``config``: how its area cuts
    and names content. ``client``: its id, empty where the signing key makes it. ``epoch``: of the area. ``former``:
    those that it had before, as far as they are kept, the newest first.
    """

    name: str
    rights: tuple[str, ...]
    header_hash: bytes
    sign_seed: bytes = field(repr=False)
    box_seed: bytes = field(repr=False)
    owner_box: bytes
    owner_sign: bytes
    content_keys: bytes = field(repr=False)
    config: Config = field(repr=False)
    client: bytes = b""
    epoch: int = 0
    former: tuple[Credential, ...] = ()

    def encode(self) -> bytes:
        """Returns the file's bytes, without those that it had before."""
        keys = [self.header_hash, self.sign_seed, self.box_seed, self.owner_box, self.owner_sign, self.content_keys]
        fields = [self.name, list(self.rights), *keys, self.config.encode()]
        raw = canonical.pack([2, *fields, self.client, self.epoch] if self.epoch else [1, *fields])
        comment = f"# A credential of respaldo, for the client {self.name}. Whoever has it can write as this client.\n"
        return comment.encode() + _MARK + base64.urlsafe_b64encode(raw + _check(raw)) + b"\n"


def parse_credential(data: bytes, what: str) -> Credential:
    """Parses a credential's file; raises `Corruption`."""
    lines = [line.strip() for line in data.split(b"\n")] if len(data) <= CREDENTIAL_BYTES_MAX else []
    found = [_parse_line(line.removeprefix(_MARK), what) for line in lines if line.startswith(_MARK)]
    if not found:
        raise Corruption(what, "not the credential of a client")
    newest, *former = sorted(found, key=lambda item: item.epoch, reverse=True)
    if len({item.epoch for item in found}) < len(found) or any(
        item.header_hash != newest.header_hash for item in former
    ):
        raise Corruption(what, "it holds credentials of several clients, or one twice")
    return replace(newest, former=tuple(former))


def _parse_line(line: bytes, what: str) -> Credential:
    try:
        decoded = base64.b64decode(line, altchars=b"-_", validate=True)
    except binascii.Error:
        decoded = b""
    raw, check = decoded[:-_CHECK_BYTES], decoded[-_CHECK_BYTES:]
    if not raw or check != _check(raw):
        raise Corruption(what, "a character of the credential was changed or is missing")
    fields = canonical.unpack(raw, what)
    client, epoch = b"", 0
    match fields:
        case [2, *fields, bytes(client), int(epoch)] if len(client) == CLIENT_BYTES and 0 < epoch < EPOCH_MAX:
            pass
        case [1, *fields]:
            pass
        case _:
            raise Corruption(what, "not a credential of this format")
    match fields:
        case [
            str(name),
            list(rights),
            bytes(header_hash),
            bytes(sign_seed),
            bytes(box_seed),
            bytes(owner_box),
            bytes(owner_sign),
            bytes(content_keys),
            bytes(config),
        ] if (
            is_client_name(name)
            and len(header_hash) == HASH_BYTES
            and all(len(key) == KEY_BYTES for key in (sign_seed, box_seed, owner_box, owner_sign))
            and len(content_keys) == CONTENT_KEYS_BYTES
        ):
            return Credential(
                name=name,
                rights=parse_rights(rights, what),
                header_hash=header_hash,
                sign_seed=sign_seed,
                box_seed=box_seed,
                owner_box=owner_box,
                owner_sign=owner_sign,
                content_keys=content_keys,
                config=parse_config(config, what),
                client=client,
                epoch=epoch,
            )
    raise Corruption(what, "not a credential of this format")


def _check(raw: bytes) -> bytes:
    return hashlib.sha256(raw).digest()[:_CHECK_BYTES]
