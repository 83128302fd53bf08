"""Targets: structures as a repository's storage holds them, and what lies around them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from respaldo.backend.memory import MemoryBackend
from respaldo.codec import slots
from respaldo.codec.compress import Compressor, Decompressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.core.errors import Corruption
from respaldo.core.ids import SUITES, Kind, PackName, pack_object
from respaldo.format import canonical, content, frame, header, logbook, pack, parity, tree
from respaldo.kernel.layout import META
from respaldo.store import parity as shards
from respaldo.store.packs import PackWriter, open_block, read_footer, seal_block
from respaldo.store.vault import Vault
from respaldo.views.columns import parse_columns
from tests.format import samples
from tests.fuzz.mutate import Form, Wrapping
from tests.fuzz.target import Target

MANY_FORMS = {"frame", "closing", "manifest"}
"""Frames and closed objects carry what is free to vary; a manifest may say more than this program knows."""
NO_VALUES = {"frame", "closing", "trailer", "node"}
CLOSED = Wrapping(off=lambda data: header.unclose_object(data, "x"), on=header.close_object)
_MAGIC = Wrapping(
    off=lambda data: data.removeprefix(header.MAGIC) if data.startswith(header.MAGIC) else None,
    on=lambda body: header.MAGIC + body,
)


def _behind(*wrappings: Wrapping) -> Wrapping:
    """Returns several wrappings as one, the outermost first."""

    def off(data: bytes) -> bytes | None:
        inner: bytes | None = data
        for wrapping in wrappings:
            inner = None if inner is None else wrapping.off(inner)
        return inner

    def on(data: bytes) -> bytes:
        for wrapping in reversed(wrappings):
            data = wrapping.on(data)
        return data

    return Wrapping(off=off, on=on)


AROUND = {"header": (_behind(CLOSED, _MAGIC), CLOSED), "closing": (CLOSED,)}


def _of_samples(name: str) -> Target:
    return Target(
        name=name,
        parse=samples.PARSERS[name],
        seeds=lambda: samples.CORPUS[name],
        refusals=samples.REFUSALS,
        again=None if name in MANY_FORMS else lambda value: samples.reencode(name, value),
        use=samples.drained,
        form=Form.BYTES if name in NO_VALUES else Form.VALUE,
        wrappings=AROUND.get(name, ()),
        modules=("respaldo.format", "respaldo.codec"),
    )


# --- keys and seals ----------------------------------------------------------------------------------------------------

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


def _framed(raw: bytes) -> bytes:
    head, body = frame.squeeze(raw, Compressor())
    return frame.build(head, body, len(head) + len(body) + 16)


_FRAMED = Wrapping(off=samples.unbuild, on=_framed)

def _key_slot(data: bytes) -> bytes:
    """Tries a key on a slot, as opening a repository does; a slot's word decides how much work that is."""
    slot = slots.parse_slot("keys/0011223344556677", header.unclose_object(data, "x"))
    return b"" if slot.kdf else slots.unwrap(slot, slots.Secret(key=b"k" * 32), b"h" * 32)


def _slots() -> Iterator[bytes]:
    secret = slots.Secret(key=b"k" * 32)
    name = "keys/0011223344556677"
    made = slots.wrap(
        master=b"m" * 32, secret=secret, kdf=slots.STANDARD, header_hash=b"h" * 32, name=name, about=b"", random=bytes
    )
    yield header.close_object(made.encode())
    yield header.close_object(samples.SLOT.encode())


# --- packs -------------------------------------------------------------------------------------------------------------


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
    framed = _framed(raw)
    sealed = VAULT.sealer.seal("footer", "", len(framed), framed)
    trailer = pack.pack_trailer(len(body))
    return b"".join((body, *sealed, *VAULT.sealer.seal("trailer", "", len(trailer), trailer)))


_FOOTER = Wrapping(off=lambda data: read_footer(_stored(data), VAULT, _NAME, len(data))[1], on=_with_footer)


# --- trees, read in other ways -----------------------------------------------------------------------------------------


def _references(data: bytes) -> None:
    """Says what a tree refers to; of what is a tree, the same as its entries say."""
    found = tree.parse_references(data, "x")
    try:
        parsed = tree.parse_tree(data, "x")
    except Corruption:
        return
    if isinstance(parsed, tree.Branch):
        assert found.trees == b"".join(name for name, _ in parsed.runs)
        return
    parts = (found, found.lost) if found.lost else (found,)
    ids = sum(len(part.trees) + len(part.data) + sum(len(ids) for _, ids in part.lists) for part in parts if part)
    assert ids == len(parsed.content), "it refers to more or less than its content"


def _columns(data: bytes) -> None:
    """Lists a tree without an object for an entry; of what is a tree, the same as its entries say."""
    found = parse_columns(data, "x")
    if isinstance(found, tree.Branch):
        return
    rows = found.rows(0, len(found.names))
    for name, _, _, _ in rows:
        assert name not in {b"", b".", b".."}
        assert b"/" not in name
        assert b"\0" not in name
    _refusing(found.trees)
    _refusing(lambda: found.longest_owner)
    try:
        entries = found.entries
    except Corruption:
        return
    assert [entry.name for entry in entries] == found.names, "a listing shows other names"
    assert [entry.mode for entry in entries] == [META.unpack_from(found.meta, at * META.size)[0] for at in range(len(rows))]


def _refusing(ask: Callable[[], object]) -> None:
    try:
        ask()
    except Corruption:
        return


def _node_ids(data: bytes) -> None:
    found = content.parse_node_ids(data, "x")
    try:
        rows = content.parse_node(data, "x")
    except Corruption:
        return
    assert found == b"".join(row.id for row in rows if row.id != content.HOLE)


# --- parity ------------------------------------------------------------------------------------------------------------


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


# --- the log -----------------------------------------------------------------------------------------------------------

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


def _log_name(data: bytes) -> object:
    return logbook.parse_name(data.decode("utf-8", "surrogateescape"))


TARGETS = [
    *map(_of_samples, sorted(samples.PARSERS)),
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
        seeds=lambda: [len(raw).to_bytes(8, "little") + _squeezed(raw) for raw in (b"a" * 5000, bytes(range(256)) * 40)],
    ),
    Target(name="key-slot", parse=_key_slot, seeds=_slots, wrappings=(CLOSED,), refusals=(Corruption, slots.WrongSecret)),
    Target(name="pack", parse=_read_pack, seeds=lambda: [_PACK], wrappings=(_FOOTER,), form=Form.VALUE),
    Target(name="mend", parse=_mend, seeds=_damaged, wrappings=(_BESIDE,), modules=("respaldo.format.parity",)),
    Target(
        name="references",
        parse=_references,
        seeds=lambda: samples.CORPUS["tree"],
        form=Form.VALUE,
        modules=("respaldo.format.tree",),
    ),
    Target(
        name="columns",
        parse=_columns,
        seeds=lambda: samples.CORPUS["tree"],
        form=Form.VALUE,
        modules=("respaldo.format.leafcheck", "respaldo.views.columns"),
    ),
    Target(name="node-ids", parse=_node_ids, seeds=lambda: samples.CORPUS["node"]),
    Target(
        name="sidecar",
        parse=_read_sidecar,
        seeds=lambda: [_sidecar(20000, 2), _sidecar(5 * 4096, 3)],
        wrappings=(Wrapping(off=lambda data: data, on=_units),),
        modules=("respaldo.format.parity",),
    ),
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
]


def _squeezed(raw: bytes) -> bytes:
    found = Compressor().compress(raw)
    assert found is not None
    return found
