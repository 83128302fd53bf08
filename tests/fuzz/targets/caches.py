"""Targets: what this client keeps for itself, which may have rotted, and what it is told by its own agent.

A cache is as private as the files are, and whoever may write to it may as well change the program: what is promised is
that rot is noticed, or harmless, and never a traceback. Checksums are therefore bent like all else, and put right again
only where an attack is to get behind them.
"""

from __future__ import annotations

import struct
import tempfile
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

import lmdb

from respaldo.catalog import decided, register
from respaldo.catalog.condense import Condenser
from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, PackName
from respaldo.flows.backup.memo import Memo, Totals
from respaldo.flows.check.verified import Verified
from respaldo.format.header import close_object
from respaldo.format.segment import Segment
from respaldo.format.tree import META, leaf_as_encoded, parse_tree
from respaldo.ops.agent import wire
from respaldo.store.index import Index
from respaldo.store.local import DAMAGED, Environment
from respaldo.store.merged import Standing
from respaldo.store.ownpacks import OwnPacks
from respaldo.store.recollection import Known, Memory, parse_memory
from respaldo.store.spoilt import Spoilt
from respaldo.store.tiers import Extent
from respaldo.views import row
from tests.format import samples
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target
from tests.fuzz.targets.stored import CLOSED

T = TypeVar("T")
_ROOM = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
_PLACE = Path(_ROOM.name)


def _put(environment: Environment, database: str, key: bytes, value: bytes) -> None:
    environment.write(lambda txn: txn.put(key, value, db=environment.dbs[database]))


def _got(environment: Environment, database: str, key: bytes) -> bytes:
    with environment.read() as txn:
        return bytes(txn.get(key, b"", db=environment.dbs[database]))


class _Once(Generic[T]):
    """Makes something when it is first asked for."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []

    def __call__(self) -> T:
        if not self._made:
            self._made.append(self._make())
        return self._made[0]


# --- the memo --------------------------------------------------------------------------------------------------------

_KEY = Memo.key(b"/home/ana")
_STATE = b"how far a file was stored"


def _make_memo() -> Memo:
    memo = Memo(_PLACE / "memo")
    memo.put(
        _KEY,
        rules=b"r" * 16,
        tree=b"t" * 32,
        mark=0,
        totals=Totals(3, 1, 1 << 40),
        subdirs=struct.pack("<2I", 1, 2),
        children=b"c" * 64,
        names=samples.LEAF.names,
        meta=samples.LEAF.meta,
        ident=bytes(24 * len(samples.LEAF)),
        leaf=samples.LEAF.encode(),
    )
    memo.flush()
    memo.put_file(_KEY, _STATE)
    return memo


_MEMO = _Once(_make_memo)


def _memo(data: bytes) -> None:
    """Reads the memo with one of its values, which the first byte names, in another state."""
    memo, rows = _MEMO(), _ROWS()
    memo._end_read()
    which = (data or b"\0")[0]
    places = (("rows", _KEY), ("stamps", _KEY), ("files", _KEY), ("runs", (7).to_bytes(8, "little")), ("runs", b"next"))
    for at, (database, key) in enumerate(places):
        _put(memo._environment, database, key, data[1:] if at == which % len(places) else rows[at][1:])
    glanced = memo.get(_KEY, whole=False)
    if glanced is not None:
        assert (glanced.tree, bytes(glanced.children)) == (b"t" * 32, b"c" * 64)
    found = memo.get(_KEY)
    if found is not None:
        assert glanced == found
        assert leaf_as_encoded(bytes(found.leaf)) == samples.LEAF
    assert memo.get_file(_KEY) in {b"", _STATE}, "a place to go on from is believed that was not put"
    snapshot = memo.snapshot_of(7)
    assert snapshot is None or len(snapshot) == 16
    memo._environment.write(memo._next_run)
    memo._environment.write(partial(memo._sweep, 1))


def _memo_rows() -> list[bytes]:
    environment = _MEMO()._environment
    rows = [_got(environment, database, _KEY) for database in ("rows", "stamps", "files")]
    rows += [b"s" * 16 + (5).to_bytes(8, "little"), (9).to_bytes(8, "little")]
    return [bytes([at]) + row for at, row in enumerate(rows)]


_ROWS = _Once(_memo_rows)


# --- the index -------------------------------------------------------------------------------------------------------

_PACK = PackName(b"p" * 32)
_IDS = [samples.FOOTER.chunk_id(number) for number in range(4)]


class _Indexed:
    """Has an index with one pack in it, for one target: what one breaks must not be what another stumbles over."""

    def __init__(self, name: str) -> None:
        self.index = Index(_PLACE / name)
        self.index.ordinals.recent_rows_min = 0  # so that there is a base
        self.index.add_packs([(_PACK, 65536, samples.FOOTER, samples.FOOTER.encode())])
        self.index.use({_PACK: 65536}, ())
        self.number = self.index.packs()[0].number
        self.key = self.number.to_bytes(4, "big")
        self.footer, self.bucket = self.got("footers", self.key), self.got("base", _IDS[0][:2])

    def put(self, database: str, key: bytes, value: bytes) -> None:
        """Puts a value where the index looks for it."""
        self.index._end_read()
        _put(self.index._environment, database, key, value)

    def got(self, database: str, key: bytes) -> bytes:
        """Returns what stands there."""
        return _got(self.index._environment, database, key)


_FOOTERS, _BASES, _RECORDS = (_Once(partial(_Indexed, name)) for name in ("footers", "bases", "records"))


def _footer(data: bytes) -> None:
    """Reads a footer of the index."""
    there = _FOOTERS()
    there.put("footers", there.key, data)
    encoded = there.index.footer(there.number)
    assert encoded in {b"", samples.FOOTER.encode()}, "a footer is believed that was not entered"
    there.index.find(ChunkId(_IDS[0]), usable_only=True)


def _bucket(data: bytes) -> None:
    """Looks chunks up in a bucket of the base, one by one and many at once."""
    there = _BASES()
    there.put("base", _IDS[0][:2], data)
    for chunk_id in (_IDS[0], _IDS[0][:2] + data[:2] + bytes(28)):
        found = there.index.find(ChunkId(chunk_id), usable_only=False)
        assert found is None or found[1] in range(4)
    there.index.copies(ChunkId(_IDS[0]))
    there.index.find_many(b"".join(_IDS), lambda _, rows: _rows(rows))
    list(there.index.duplicates())


def _rows(rows: list[int]) -> None:
    assert set(rows) <= set(range(4))


def _records(data: bytes) -> None:
    """Reads what is cached of the repository's records: a byte says how long the name of one is, which comes next."""
    index = _RECORDS().index
    length = data[0] % 100 if data else 0
    name, value = data[1 : 1 + length].decode("ascii", "replace").encode("ascii", "replace"), data[1 + length :]
    known = ("pending/" + "ab" * 16, "segments/" + "cd" * 32, "spoilt/" + _PACK.hex(), f"x/{name.decode()}")
    index.put_records(dict.fromkeys(known, value), ())
    list(decided.cached(index))
    Standing(index, "segments").extents()
    spoilt = Spoilt(index)
    spoilt.apply()
    spoilt.wanting()
    index.put_records({}, known)


# --- other notes -----------------------------------------------------------------------------------------------------

_TIMES = _Once(lambda: Verified(_PLACE / "verified"))
_NOTED = Segment(session=samples.SESSION, packs=samples.SEGMENT.packs)


def _times(data: bytes) -> None:
    """Reads when packs were verified."""
    there = _TIMES()
    _put(there._environment, "packs", _PACK, data)
    assert all(-(1 << 63) <= time_ns < 1 << 64 for time_ns in there.times().values())


def _own_packs(data: bytes) -> None:
    """Reads which packs a client has written that cannot read them."""
    folder = _PLACE / "own"
    folder.mkdir(exist_ok=True)
    (folder / "one.packs").write_bytes(data)
    noted = OwnPacks(folder, bytes)
    assert tuple(noted) in {(), _NOTED.packs} or data != close_object(_NOTED.encode())


# --- what rows hold --------------------------------------------------------------------------------------------------


_REGISTER = _Once(lambda: register.Register(_PLACE / "register"))
_HANDLE = b"h" * register.KEY_BYTES
_BASE_HANDLE = b"b" * register.KEY_BYTES
_LEAF_RAW = samples.LEAF.encode()
_RECORDED = register.Recorded(
    b"s" * register.KEY_BYTES, _BASE_HANDLE, b"\3\0\0\0", b"m" * META.size, b"\1\0\0\0", b"t" * CHUNK_ID_BYTES
)
_BASE = register.Base(b"n" * register.KEY_BYTES, array("I", [2, register.NO_CELL]), _LEAF_RAW)


def _registered(data: bytes) -> None:
    """Reads a tree of the register, a base, a list of names and a shape."""
    names = _REGISTER()
    names._end_read()
    for database, handle, read in (
        ("trees", _HANDLE, names.tree),
        ("bases", _BASE_HANDLE, names.base),
        ("names", _HANDLE, names.names),
        ("shapes", _HANDLE, names.shape),
    ):
        _put(names._environment, database, handle, data)
        try:
            found = read(handle)
        except lmdb.CorruptedError:
            continue
        finally:
            names._end_read()
        assert found in (_RECORDED, _BASE), "what was not entered is believed"


def _condensed(data: bytes) -> None:
    """Condenses a tree that is held against another one: what is not parsed for it must be sound all the same."""
    condenser = Condenser(_REGISTER())
    condenser.condense(b"L" * CHUNK_ID_BYTES, _LEAF_RAW)
    condenser.condense(b"O" * CHUNK_ID_BYTES, data)
    parse_tree(data, "x")


_MEMORY = Memory(
    known={b"c" * 16: Known(3, b"h" * 32, b"k" * 32)},
    live={b"1" * 16, b"2" * 16},
    gone={b"3" * 16},
    told={b"c" * 16: 2},
    tail=[b"entry"],
    owed={b"1" * 16: b"p" * 32},
    intent=b"x",
)
_DECIDED = decided.Decided(True, False, 5, 4, b"p" * 32, samples.MANIFEST.encode())
_LEASE = wire.Lease(
    directory="/run/user/0/respaldo",
    name="ab12",
    slot="keys/0011223344556677",
    repository="ab" * 16,
    location="/srv/backup",
    for_s=900,
    idle_s=300,
    leader=77,
    leader_started=12345,
)
_HELD = b'{"repository": "ab", "location": "/x", "slot": "keys/00", "left_s": 899.5, "idle_left_s": 0, "pid": 7}'


def _decide(data: bytes) -> None:
    found = decided.decode(memoryview(data))
    assert found is None or found.encode()[4:] != b""


def _row(data: bytes) -> None:
    found = row.Row(data[:32], data[32:])
    assert found.brief[0] == found.entry(b"name").mode
    row.version_of(found)


TARGETS = [
    Target(
        name="memory",
        parse=lambda data: parse_memory(data, "x"),
        seeds=lambda: (_MEMORY.encode(), Memory().encode()),
        form=Form.VALUE,
        modules=("respaldo.store.recollection",),
    ),
    Target(name="memo", parse=_memo, seeds=_ROWS, refusals=DAMAGED),
    Target(name="index-footer", parse=_footer, seeds=lambda: (_FOOTERS().footer,)),
    Target(name="index-base", parse=_bucket, seeds=lambda: (_BASES().bucket,), refusals=DAMAGED),
    Target(
        name="index-records",
        parse=_records,
        seeds=lambda: (b"\0" + _DECIDED.encode(), b"\x05spoil\x92\x01\x02", b"\0" + bytes(Extent(3, 4))),
        refusals=(Corruption, *DAMAGED),
    ),
    Target(
        name="register",
        parse=_registered,
        seeds=lambda: (
            register.packed_tree(_HANDLE, _RECORDED),
            register.packed_base(_BASE_HANDLE, _BASE),
            register.packed_names(register.Names(b"a\0", b"-")),
            register.packed_names(register.Names(b"a\0b\0", b"-D")),
        ),
    ),
    Target(
        name="condensed",
        parse=_condensed,
        seeds=lambda: (_LEAF_RAW, samples.BRANCH.encode()),
        modules=("respaldo.catalog.condense",),
    ),
    Target(
        name="register-row",
        parse=_row,
        seeds=lambda: [b"".join(row.row_of(entry)[:2]) for entry in samples.LEAF.entries()],
        refusals=(ValueError, struct.error),
        modules=("respaldo.views.row",),
    ),
    Target(
        name="pack-times",
        parse=_times,
        seeds=lambda: ((1_780_000_000_000_000_000).to_bytes(8, "little"),),
        refusals=DAMAGED,
    ),
    Target(
        name="own-packs",
        parse=_own_packs,
        seeds=lambda: (close_object(_NOTED.encode()),),
        refusals=(),
        form=Form.VALUE,
        wrappings=(CLOSED,),
    ),
    Target(name="decided", parse=_decide, seeds=lambda: (_DECIDED.encode(),)),
    Target(
        name="lease",
        parse=wire.parse_lease,
        seeds=lambda: (_LEASE.encode(),),
        refusals=(ValueError, TypeError),
        form=Form.TEXT,
        modules=("respaldo.ops.agent.wire",),
    ),
    Target(
        name="held",
        parse=wire.parse_held,
        seeds=lambda: (_HELD,),
        refusals=(),
        form=Form.TEXT,
        modules=("respaldo.ops.agent.wire",),
    ),
]
