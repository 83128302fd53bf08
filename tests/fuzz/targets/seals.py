"""Targets: what lies around structures, seals, frames, compression, and the slots that hold the key."""

from __future__ import annotations

from collections.abc import Iterator

from respaldo.backend.memory import MemoryBackend
from respaldo.codec import slots
from respaldo.codec.compress import Compressor, Decompressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.core.errors import Corruption
from respaldo.core.ids import SUITES
from respaldo.format import canonical, frame, header
from respaldo.store.slots import describe
from respaldo.store.vault import Vault
from tests.format import samples
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target
from tests.fuzz.targets.stored import CLOSED

RING = KeyRing(b"m" * 32, b"h" * 32)
REPOSITORY = bytes(range(16))


def _vault(suite: str) -> Vault:
    return Vault(Sealer(RING, REPOSITORY, bytes, suite), Compressor())


VAULTS = [_vault(suite) for suite in sorted(SUITES)]
VAULT = VAULTS[0]
_RAW = samples.OUTCOME.encode()
_RECORD = "outcomes/" + "ab" * 16


def _sealed_by_anybody(data: bytes) -> bytes:
    """Opens a record of storage, whose bytes are anybody's."""
    return VAULTS[data[0] % len(VAULTS)].open_record("outcome", _RECORD, data[1:]) if data else b""


def _opened_by_author(data: bytes) -> bytes:
    """Opens what an author, who has the key, put into a seal."""
    sealed = b"".join(VAULT.sealer.seal("segment", "", len(data), data))
    return VAULT.open_segment(sealed, "x")


def framed(raw: bytes) -> bytes:
    head, body = frame.squeeze(raw, Compressor())
    return frame.build(head, body, len(head) + len(body) + 16)


_FRAMED = Wrapping(off=samples.unbuild, on=framed)


def _key_slot(data: bytes) -> bytes:
    """Tries a key on a slot, as opening a repository does; a slot's word decides how much work that is."""
    slot = slots.parse_slot(_SLOT_NAME, header.unclose_object(data, "x"))
    return b"" if slot.kdf else slots.unwrap(slot, slots.Secret(key=b"k" * 32), b"h" * 32)


_SLOT_NAME = "keys/0011223344556677"


def _about(raw: bytes) -> None:
    """Reads what a slot says of itself, which whoever has the key may have written."""
    message = frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, len(raw) + frame.HEAD.size)
    about = b"".join(VAULT.sealer.seal("about", _SLOT_NAME, len(message), message))
    stored = slots.Slot(
        name=_SLOT_NAME, method=slots.FILE_KEY, kdf=None, salt=b"S" * 16, wrapped=samples.SLOT.wrapped, about=about
    )
    backend = MemoryBackend()
    backend.damage(_SLOT_NAME, header.close_object(stored.encode()))
    found, damaged = describe(backend, VAULT)
    assert len(found) + len(damaged) == 1
    if damaged:
        raise damaged[0]


def _slots() -> Iterator[bytes]:
    secret = slots.Secret(key=b"k" * 32)
    made = slots.wrap(
        master=b"m" * 32,
        secret=secret,
        kdf=slots.STANDARD,
        header_hash=b"h" * 32,
        name=_SLOT_NAME,
        about=lambda _: b"",
        random=bytes,
    )
    yield header.close_object(made.encode())
    yield header.close_object(samples.SLOT.encode())


def _squeezed(raw: bytes) -> bytes:
    found = Compressor().compress(raw)
    assert found is not None
    return found


TARGETS = [
    Target(
        name="record",
        parse=_sealed_by_anybody,
        seeds=lambda: [
            bytes([number]) + vault.seal_record("outcome", _RECORD, _RAW) for number, vault in enumerate(VAULTS)
        ],
    ),
    Target(
        name="sealed-frame",
        parse=_opened_by_author,
        seeds=lambda: [*samples.FRAMES, frame.HEAD.pack(frame.ZSTD, 4, 1 << 28) + b"\x28\xb5\x2f\xfd"],
        wrappings=(_FRAMED,),
    ),
    Target(
        name="zstd",
        parse=lambda data: Decompressor().decompress(data[8:], int.from_bytes(data[:8], "little") % (1 << 29), "x"),
        seeds=lambda: [
            len(raw).to_bytes(8, "little") + _squeezed(raw) for raw in (b"a" * 5000, bytes(range(256)) * 40)
        ],
    ),
    Target(
        name="key-slot", parse=_key_slot, seeds=_slots, wrappings=(CLOSED,), refusals=(Corruption, slots.WrongSecret)
    ),
    Target(
        name="about",
        parse=_about,
        seeds=lambda: (canonical.pack([1, "laptop", 5]), canonical.pack([1, "", -5, "shares 3/5"])),
        form=Form.VALUE,
    ),
]
