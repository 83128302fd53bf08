"""Targets: packs, whose footers say where everything is, and the parity that lies beside objects."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import Corruption
from respaldo.core.ids import Kind, PackName, pack_object
from respaldo.format import pack, parity
from respaldo.store import parity as shards
from respaldo.store.packs import PackWriter, open_block, read_footer, seal_block
from tests.format import samples
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target
from tests.fuzz.targets.seals import VAULT, framed

# --- packs -----------------------------------------------------------------------------------------------------------


def _made() -> bytes:
    """Makes a pack of two blocks."""
    backend = MemoryBackend()
    with PackWriter(backend, VAULT, samples.SESSION) as writer:
        for kind, letter in ((Kind.DATA, b"d"), (Kind.TREE, b"t")):
            lengths = (300).to_bytes(4, "little") * 4
            writer.add(seal_block(VAULT, kind, letter * 1200, b"".join(samples.IDS[:4]), lengths))
        writer.finish()
    [(name, _)] = backend.list("packs")
    return backend.get(name)


_NAME = PackName(b"p" * 32)
_PACK = _made()


def _stored(data: bytes) -> MemoryBackend:
    backend = MemoryBackend()
    backend.damage(pack_object(_NAME), data)
    return backend


def _read_pack(data: bytes) -> None:
    """Reads a pack's trailer and footer, then its blocks."""
    footer, encoded = read_footer(_stored(data), VAULT, _NAME, len(data))
    assert footer.encode() == encoded
    samples.drained(footer)
    at = 0
    for row in footer.blocks:
        try:
            raw = open_block(VAULT, row, data[at : at + row.sealed_length], "x")
        except Corruption:
            continue
        finally:
            at += row.sealed_length
        assert len(raw) == row.raw_length


def _with_footer(raw: bytes) -> bytes:
    """Returns a pack with another footer, sealed by whoever has the key."""
    body = _PACK[: read_footer(_stored(_PACK), VAULT, _NAME, len(_PACK))[0].body_length]
    inside = framed(raw)
    sealed = VAULT.sealer.seal("footer", "", len(inside), inside)
    trailer = pack.pack_trailer(len(body))
    return b"".join((body, *sealed, *VAULT.sealer.seal("trailer", "", len(trailer), trailer)))


_FOOTER = Wrapping(off=lambda data: read_footer(_stored(data), VAULT, _NAME, len(data))[1], on=_with_footer)


# --- parity ----------------------------------------------------------------------------------------------------------


def _sidecar(length: int, recovery: int) -> bytes:
    data = bytes(range(256)) * (length // 256 + 1)
    digest = hashlib.sha256(data[:length]).digest()
    shape = parity.Shape(length_bytes=length, digest=digest, recovery=recovery)
    payloads = parity.pack_table(shape, list(range(shape.data + shape.recovery)))
    payloads += payloads[:1] * shape.spare
    return parity.pack_sidecar(shape, payloads, [bytes(shape.shard_bytes)] * recovery)


def _units(data: bytes) -> bytes:
    """Gives every unit of a sidecar its hash again."""
    end = parity.SECTOR_BYTES - 64
    made = bytearray(data)
    for at in range(0, len(data) - end - 32 + 1, parity.SECTOR_BYTES):
        made[at + end : at + end + 32] = hashlib.sha256(bytes(made[at : at + end])).digest()
    return bytes(made)


def _read_sidecar(data: bytes) -> None:
    found = parity.parse_sidecar(data)
    if found is None:
        return
    shape = found.shape
    assert shape.sidecar_bytes <= parity.SIDECAR_BYTES_MAX
    whole = [found.payloads[number] for number in range(shape.table) if number in found.payloads]
    if len(whole) == shape.table:
        parity.unpack_table(shape, whole)


_OBJECT = bytes(range(256)) * 100
_OBJECT_NAME = f"packs/{hashlib.sha256(_OBJECT).hexdigest()}"


def _mend(data: bytes) -> None:
    """Mends an object with what is said to be its sidecar: either it is what it was, or it is given up."""
    length = int.from_bytes(data[:4], "little")
    backend = MemoryBackend()
    backend.damage(_OBJECT_NAME, data[4 : 4 + length])
    backend.damage(str(shards.sidecar_name(_OBJECT_NAME)), data[4 + length :])
    found = shards.mend(backend, _OBJECT_NAME)
    assert found is None or found == _OBJECT


def _damaged() -> Iterator[bytes]:
    sidecar = shards.make_sidecar(_OBJECT_NAME, _OBJECT, 100)
    bent = bytearray(_OBJECT)
    bent[5000] ^= 1
    yield len(bent).to_bytes(4, "little") + bytes(bent) + sidecar


_BESIDE = Wrapping(
    off=lambda data: data[4 + int.from_bytes(data[:4], "little") :],
    on=lambda sidecar: len(_OBJECT).to_bytes(4, "little") + bytes(len(_OBJECT)) + _units(sidecar),
)


TARGETS = [
    Target(name="pack", parse=_read_pack, seeds=lambda: [_PACK], wrappings=(_FOOTER,), form=Form.VALUE),
    Target(
        name="sidecar",
        parse=_read_sidecar,
        seeds=lambda: [_sidecar(20000, 2), _sidecar(5 * 4096, 3)],
        wrappings=(Wrapping(off=lambda data: data, on=_units),),
        modules=("respaldo.format.parity",),
    ),
    Target(name="mend", parse=_mend, seeds=_damaged, wrappings=(_BESIDE,), modules=("respaldo.format.parity",)),
]
