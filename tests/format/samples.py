"""Valid encodings of every structure, and the parser of each: what tests bend, fuzzers mutate and vectors freeze."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Callable
from dataclasses import replace

from hypothesis import strategies as st

from respaldo.codec import slots
from respaldo.codec.compress import Compressor, Decompressor
from respaldo.core.errors import Corruption, NotARepository, UnsupportedFormat
from respaldo.core.ids import CatalogueName, ChunkId, PackName, SegmentName, SnapshotId
from respaldo.format import (
    accesses,
    canonical,
    catalogue,
    config,
    content,
    credential,
    enrolment,
    epoch,
    figures,
    frame,
    header,
    leafcheck,
    notice,
    pack,
    protection,
    runrecord,
    segment,
    snapshot,
    tree,
    verification,
)
from respaldo.kernel.layout import INODE_FLAGS

SESSION = bytes(range(16))
IDS = tuple(ChunkId(bytes([n]) * 32) for n in range(1, 60))
REFUSALS = (Corruption, NotARepository, UnsupportedFormat)


def meta(mode: int, *, size: int = 0, mtime_ns: int = 0, uid: int = 1000, gid: int = 1000, flags: int = 0) -> bytes:
    """Returns one row of a leaf's meta column."""
    return tree.META.pack(mode, uid, gid, flags, size, mtime_ns, 0)


FILE = stat.S_IFREG | 0o644
DIRECTORY = stat.S_IFDIR | 0o755
LINK = stat.S_IFLNK | 0o777

LEAF = tree.Leaf(
    names=b"a\0big\0dir\0empty\0fifo\0hard\0link\0mount\0tty\0zz\xff\0",
    meta=b"".join(
        (
            meta(FILE, size=5, mtime_ns=-1),
            meta(FILE, size=1 << 40, uid=0),
            meta(DIRECTORY),
            meta(FILE),
            meta(stat.S_IFIFO | 0o600),
            meta(FILE, size=70000, flags=0x10),
            meta(LINK, size=6),
            meta(DIRECTORY),
            meta(stat.S_IFCHR | 0o620, size=(4 << 32) | 1, gid=5),
            meta(FILE, size=9),
        )
    ),
    content=b"".join(IDS[:6]),
    targets=b"target\0",
    levels={1: (2, 1), 5: (0, 2)},
    links={5: b"L" * 16},
    xattrs={0: ((b"security.selinux", b"x" * 20), (b"user.note", b"\0\xff"))},
    marks={7: 2},
    users={0: "root", 1000: "ana"},
    groups={5: "tty", 1000: "ana\udcff"},
)
BRANCH = tree.Branch(((IDS[0], 1500), (IDS[1], 12)))

FOOTER = pack.Footer(
    session=SESSION,
    body_hash=b"h" * 32,
    blocks=(
        pack.BlockRow(1, 172, 300, 2, b"c" * 32),
        pack.BlockRow(2, 122, 50, 1, b"d" * 32),
        pack.BlockRow(3, 112, 40, 1, b"e" * 32),
    ),
    ids=b"".join(IDS[:4]),
    lengths=array("I", [100, 200, 50, 40]),
)
SEGMENT = segment.Segment(
    session=SESSION,
    packs=(
        segment.Listed(pack=PackName(b"p" * 32), length_bytes=65536, footer=FOOTER.encode()),
        segment.Listed(pack=PackName(b"q" * 32), length_bytes=131072, footer=FOOTER.encode()),
    ),
    supersedes=(SegmentName(b"s" * 32),),
)
NODE = b"".join(
    content.ROW.pack(*row) for row in ((IDS[0], 65536), (content.HOLE, 1 << 40), (IDS[1], 1), (IDS[2], 4096))
)
MANIFEST = snapshot.Manifest(
    session=SESSION,
    root=IDS[0],
    sources=(b"/", b"/home/ana", b"/caf\xe9"),
    time_ns=1_780_000_000_000_000_000,
    started_ns=-1,
    ended_ns=1_780_000_001_000_000_000,
    host="granja",
    user="ana",
    uid=1000,
    kind="daily",
    label="before the move",
    reason="test",
    tags=("a", "b"),
    parent=b"P" * 16,
    program="respaldo 0.1.0",
    rules=("--exclude", "*.tmp"),
    failed=((b"/home/ana/x", "permission denied"),),
    figures=figures.Figures(files=3, length_bytes=1 << 40, duration_ns=5),
)
REPAIRED = replace(
    MANIFEST,
    kind="incremental",
    label="v1.4.12-20261125_101500",
    repairs=b"S" * 16,
    root_lost=True,
    lost=IDS[1] + IDS[2],
    changes=figures.Changes(added=3, changed=1 << 40, removed=0),
)
COUNTED = replace(MANIFEST, changes=figures.Changes())
ROLL = catalogue.Roll(
    rows=(
        catalogue.Row(snapshot=SnapshotId(b"1" * 16), pending_hash=b"o" * 32, manifest=MANIFEST.encode()),
        catalogue.Row(snapshot=SnapshotId(b"2" * 16), pending_hash=b"n" * 32, manifest=b""),
    ),
    supersedes=(CatalogueName(b"s" * 32),),
)
OUTCOME = snapshot.Outcome(verdict=snapshot.Verdict.COMMIT, pending_hash=b"o" * 32)
CONDEMNATION = snapshot.Condemnation(
    collector=SESSION, time_ns=1_780_000_000_000_000_000, packs=(PackName(b"p" * 32), PackName(b"q" * 32))
)
MARKER = snapshot.Marker(session=SESSION, time_ns=1_780_000_000_000_000_000)
CONFIG = config.Config(chunker=(1 << 14, 1 << 16, 1 << 18, 1 << 54, 1 << 58))
LIKE_ANOTHER = replace(CONFIG, parity=50, content_keys=bytes(range(192)))
PIN = protection.Pin(time_ns=1_780_000_000_000_000_000, reason="before the move")
TRASHED = protection.Trashed(time_ns=1_780_000_000_000_000_000, until_ns=1_780_604_800_000_000_000)
VERIFIED = verification.Verified(
    rows=(
        verification.WasWhole(
            snapshot=SnapshotId(b"a" * 16), root=IDS[0], time_ns=1_780_000_000_000_000_000, how=verification.How.VERIFY
        ),
        verification.WasWhole(
            snapshot=SnapshotId(b"b" * 16), root=IDS[1], time_ns=1_780_000_000_000_000_001, how=verification.How.EXPORT
        ),
    )
)
SUMS = verification.sums_of({b"k" * 48: b"d" * 32, b"l" * 48: b"e" * 32})
HEADER = header.Header(repository=b"R" * 16, created_ns=1_780_000_000_000_000_000)
ENROLMENT = enrolment.Enrolment(
    client=b"C" * 16,
    name="web-1",
    rights=(enrolment.LIST,),
    sign_public=b"s" * 32,
    box_public=b"b" * 32,
    header_hash=b"h" * 32,
    master=bytes(range(32)),
    time_ns=1_780_000_000_000_000_000,
)
REMOVAL = enrolment.Removal(client=b"C" * 16, time_ns=1_780_000_000_000_000_000, runs=frozenset({b"2" * 16, b"1" * 16}))
RENEWAL = enrolment.Renewal(
    client=b"C" * 16,
    epoch=1,
    time_ns=1_780_000_000_000_000_000,
    sign_public=b"s" * 32,
    box_public=b"b" * 32,
    master=bytes(range(32)),
    runs=frozenset({b"2" * 16, b"1" * 16}),
    heads=((b"c" * 16, 7),),
)
RENEWED_AS = enrolment.RecordName(client=RENEWAL.client, renewal=RENEWAL.epoch)
ENROLLED_AS = enrolment.RecordName(client=ENROLMENT.client)
REMOVAL_SIGN = enrolment.RemovalSign(client=b"C" * 16, time_ns=1_780_000_000_000_000_000, signature=b"S" * 64)
REMOVED_AS = enrolment.RecordName(client=REMOVAL.client, removed=True)
RUN = runrecord.Run(
    author=runrecord.Author.CLIENT,
    client=b"C" * 16,
    session=SESSION,
    time_ns=1_780_000_000_000_000_000,
    box=b"x" * 136,
    grants=((enrolment.LIST, b"y" * 392), (enrolment.RESTORE, b"z" * 136)),
    signature=b"S" * 64,
)
NOTICE = notice.Notice(
    client=b"C" * 16,
    time_ns=1_780_000_000_000_000_000,
    condemned=((b"1" * 16, (PackName(b"p" * 32), PackName(b"q" * 32))), (b"2" * 16, ())),
    moved=SEGMENT.packs[:1],
    retired=frozenset({SESSION}),
    signature=b"S" * 64,
)
CREDENTIAL = credential.Credential(
    name="web-1",
    rights=(enrolment.LIST, enrolment.RESTORE),
    header_hash=b"h" * 32,
    sign_seed=bytes(range(32)),
    box_seed=bytes(range(1, 33)),
    owner_box=b"B" * 32,
    owner_sign=b"S" * 32,
    content_keys=bytes(range(192)),
    config=CONFIG,
)
RENEWED_CREDENTIAL = replace(CREDENTIAL, sign_seed=bytes(range(2, 34)), client=b"C" * 16, epoch=1)
SLOT = slots.Slot(
    name="keys/00112233445566aa",
    method=slots.PASSPHRASE,
    kdf=slots.STANDARD,
    salt=b"S" * 16,
    wrapped=b"W" * slots.WRAPPED_BYTES,
    about=b"A" * 584,
)
KEY_SLOT = replace(SLOT, method=slots.FILE_KEY, kdf=None, about=b"")
BOXED_SLOT = replace(SLOT, wrapped=b"B" * slots.BOXED_BYTES, boxed=True)

EPOCH = epoch.EpochRecord(
    time_ns=1_700_000_000_000_000_000,
    content_keys=bytes(range(192)),
    masters=((1, b"m" * 32),),
    former=(
        epoch.Former(epoch=0, check=b"c" * 32, admin=b"a" * 32),
        epoch.Former(epoch=1, check=b"d" * 32, admin=b"b" * 32, heads=((b"C" * 16, 300),)),
    ),
    without=("keys/00112233445566ab",),
)
EPOCH_OBJECT = epoch.EpochObject(sealed=b"s" * 100, slots=(("keys/00112233445566ac", BOXED_SLOT.encode()),))

_TEXT = b"compressible " * 40
FRAMES = (
    frame.build(*frame.squeeze(_TEXT, Compressor()), 200),
    frame.build(*frame.squeeze(b"short", Compressor()), 64),
    frame.build(*frame.squeeze(b"", Compressor()), 16),
)


LINE = accesses.Line(number=12, previous=b"p" * 32, box=b"b" * 100)
ACCESS = accesses.Access(
    number=12,
    previous=b"p" * 32,
    time_ns=1_780_000_000_000_000_000,
    verb="restore",
    host="laptop",
    uid=1000,
    user="ana",
    login="ana",
    pid=4711,
    key="3f358ae3",
    snapshots=(b"s" * 16,),
    count=1,
    paths=(b"/home/ana",),
    target=b"/tmp/back",
)


def _line(data: bytes) -> accesses.Line:
    line = accesses.parse_line(data)
    if line is None:
        raise Corruption("line", "none")
    return line


def unbuild(data: bytes) -> bytes:
    """Parses a frame of up to 1 MiB."""
    return frame.unbuild(data, Decompressor(), "x", raw_length_max=1 << 20)


def _trailer(data: bytes) -> int:
    return pack.parse_trailer(data, 65536, "x")


PARSERS: dict[str, Callable[[bytes], object]] = {
    "header": lambda data: header.parse_header(data, "here"),
    "closing": lambda data: header.unclose_object(data, "x"),
    "slot": lambda data: slots.parse_slot("keys/x", data),
    "epoch": lambda data: epoch.parse_record(data, "x"),
    "epoch object": lambda data: epoch.parse_object(data, "x"),
    "canonical": lambda data: canonical.unpack(data, "x"),
    "frame": unbuild,
    "footer": lambda data: pack.parse_footer(data, "x"),
    "trailer": _trailer,
    "segment": lambda data: segment.parse_segment(data, "x"),
    "tree": lambda data: tree.parse_tree(data, "x"),
    "node": lambda data: content.parse_node(data, "x"),
    "manifest": lambda data: snapshot.parse_manifest(data, "x"),
    "catalogue": lambda data: catalogue.parse_roll(data, "x"),
    "outcome": lambda data: snapshot.parse_outcome(data, "x"),
    "condemnation": lambda data: snapshot.parse_condemnation(data, "x"),
    "marker": lambda data: snapshot.parse_marker(data, "x"),
    "config": lambda data: config.parse_config(data, "x"),
    "enrolment": lambda data: enrolment.parse_client_record(data, ENROLLED_AS.object_name()),
    "renewal": lambda data: enrolment.parse_client_record(data, RENEWED_AS.object_name()),
    "removal": lambda data: enrolment.parse_client_record(data, REMOVED_AS.object_name()),
    "removal sign": lambda data: enrolment.parse_removal_sign(data, "x"),
    "run": lambda data: runrecord.parse_run(data, runrecord.run_name(SESSION)),
    "notice": lambda data: notice.parse_notice(data, "x"),
    "pin": lambda data: protection.parse_pin(data, "x"),
    "trash": lambda data: protection.parse_trashed(data, "x"),
    "verified": lambda data: verification.parse_verified(data, "x"),
    "sums": lambda data: verification.parse_sums(data, "x"),
    "access": lambda data: accesses.parse_access(data, LINE, "x"),
    "line": _line,
}
"""Each takes bytes from anybody and raises nothing but `REFUSALS`."""

CORPUS: dict[str, tuple[bytes, ...]] = {
    "header": (HEADER.encode(),),
    "closing": (header.close_object(b"anything"),),
    "slot": (SLOT.encode(), KEY_SLOT.encode(), BOXED_SLOT.encode()),
    "canonical": (
        canonical.pack([1, -1, 255, -(1 << 63), (1 << 64) - 1, "text", b"bytes", [], {"a": [{}], "b": "\udc80"}]),
        canonical.pack({"k": "x" * 300, "l": b"y" * 70000}),
        LEAF.encode(),
    ),
    "frame": FRAMES,
    "footer": (FOOTER.encode(),),
    "trailer": (pack.pack_trailer(1000),),
    "segment": (SEGMENT.encode(),),
    "tree": (LEAF.encode(), BRANCH.encode(), tree.Leaf(names=b"", meta=b"").encode()),
    "node": (NODE,),
    "manifest": (MANIFEST.encode(), REPAIRED.encode(), COUNTED.encode()),
    "catalogue": (ROLL.encode(), catalogue.Roll(rows=()).encode()),
    "outcome": (OUTCOME.encode(),),
    "condemnation": (CONDEMNATION.encode(),),
    "marker": (MARKER.encode(),),
    "config": (CONFIG.encode(), LIKE_ANOTHER.encode()),
    "enrolment": (ENROLMENT.encode(), replace(ENROLMENT, rights=()).encode()),
    "renewal": (RENEWAL.encode(), replace(RENEWAL, runs=frozenset(), heads=()).encode()),
    "removal": (REMOVAL.encode(),),
    "removal sign": (REMOVAL_SIGN.encode(),),
    "run": (RUN.encode(), replace(RUN, author=runrecord.Author.OWNER, grants=()).encode()),
    "notice": (NOTICE.encode(),),
    "pin": (PIN.encode(),),
    "trash": (TRASHED.encode(),),
    "verified": (VERIFIED.encode(), verification.Verified(rows=()).encode()),
    "sums": (SUMS.encode(), verification.sums_of({}).encode()),
    "access": (ACCESS.encode(), replace(ACCESS, verb="end", of=11, outcome="done", length_bytes=7).encode()),
    "line": (LINE.encode(),),
    "epoch": (EPOCH.encode(), replace(EPOCH, masters=(), former=(), without=()).encode()),
    "epoch object": (EPOCH_OBJECT.encode(), replace(EPOCH_OBJECT, slots=()).encode()),
}


def reencode(name: str, value: object) -> bytes:
    """Encodes what a parser returned: the very bytes it was parsed from, for every structure that has one form."""
    if name == "trailer":
        return pack.pack_trailer(value)
    if name == "node":
        return b"".join(content.ROW.pack(*row) for row in value)
    if name == "canonical":
        return canonical.pack(value)
    return value.encode()


def drained(value: object) -> None:
    """Does with a parsed value what readers do with it, since a parser's promise is that this cannot fail."""
    if isinstance(value, tree.Leaf):
        entries = list(value.entries())
        if len(entries) != len(value):
            raise AssertionError("entries do not come one a row")
        for entry in entries:
            if entry.name in {b"", b".", b".."} or b"/" in entry.name or b"\0" in entry.name + entry.target:
                raise AssertionError(entry)
            list(entry.content)
    elif isinstance(value, pack.Footer):
        for row in range(min(len(value.lengths), 50)):
            place = value.place(row)
            block = value.blocks[place.block]
            if place.offset + place.length > block.raw_length:
                raise AssertionError(place)
            value.chunk_id(row)


# --- what Hypothesis draws ---

texts = st.text(st.characters(codec="utf-8"), max_size=20) | st.binary(max_size=8).map(
    lambda raw: raw.decode("utf-8", "surrogateescape")
)
i64s = st.integers(-(1 << 63), (1 << 63) - 1)
u32s = st.integers(0, (1 << 32) - 1)
names = st.binary(min_size=1, max_size=255).filter(
    lambda name: name not in {b".", b".."} and b"/" not in name and b"\0" not in name
)
values = st.recursive(
    st.integers(-(1 << 63), (1 << 64) - 1) | texts | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(texts, inner, max_size=20),
    max_leaves=30,
)


@st.composite
def leaves(draw: st.DrawFn) -> tree.Leaf:
    """Draws a leaf that a writer could have made."""
    there = sorted(draw(st.sets(names, max_size=12)))
    rows, content_ids, targets = [], [], []
    levels, links, xattrs, marks = {}, {}, {}, {}
    for row, _ in enumerate(there):
        kind = draw(st.sampled_from(sorted(leafcheck._TYPES)))
        size = 0
        if kind == stat.S_IFREG:
            size = draw(st.integers(0, (1 << 63) - 1) | st.just(0))
        elif kind in {stat.S_IFBLK, stat.S_IFCHR}:
            size = draw(st.integers(0, (1 << 12) - 1)) << 32 | draw(st.integers(0, (1 << 20) - 1))
        mark = draw(st.sampled_from([0, 0, 0, *(m for m, kinds in leafcheck._MARKS.items() if kind in kinds)]))
        if mark:
            marks[row] = int(mark)
        count = leafcheck.default_count(kind, size, mark)
        if kind == stat.S_IFREG and count and draw(st.booleans()):
            levels[row] = draw(st.tuples(st.just(0), st.integers(2, 4)) | st.tuples(st.integers(1, 8), st.just(1)))
            count = levels[row][1]
        content_ids += [draw(st.binary(min_size=32, max_size=32)) for _ in range(count)]
        if kind == stat.S_IFLNK:
            targets.append(draw(st.binary(min_size=1, max_size=30).filter(lambda target: b"\0" not in target)))
        if kind != stat.S_IFDIR and draw(st.booleans()):
            links[row] = draw(st.binary(min_size=16, max_size=16))
        if draw(st.booleans()):
            pairs = draw(st.dictionaries(names, st.binary(max_size=9), min_size=1, max_size=3))
            xattrs[row] = tuple(sorted(pairs.items()))
        mode = kind | draw(st.integers(0, 0o7777))
        flags = draw(u32s) & INODE_FLAGS
        rows.append(tree.META.pack(mode, draw(u32s), draw(u32s), flags, size, draw(i64s), draw(i64s)))
    return tree.Leaf(
        names=b"".join(name + b"\0" for name in there),
        meta=b"".join(rows),
        content=b"".join(content_ids),
        targets=b"".join(target + b"\0" for target in targets),
        levels=levels,
        links=links,
        xattrs=xattrs,
        marks=marks,
        users=draw(st.dictionaries(u32s, texts, max_size=3)),
        groups=draw(st.dictionaries(u32s, texts, max_size=3)),
    )


@st.composite
def footers(draw: st.DrawFn) -> pack.Footer:
    """Draws a footer that a writer could have made."""
    blocks, lengths = [], []
    for _ in range(draw(st.integers(0, 6))):
        held = draw(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=5))
        raw = sum(held)
        sealed = draw(st.integers(pack.SEAL_BYTES + 1, raw + pack.SEAL_BYTES))
        commitment = draw(st.binary(min_size=32, max_size=32))
        blocks.append(pack.BlockRow(draw(st.integers(1, 3)), sealed, raw, len(held), commitment))
        lengths += held
    return pack.Footer(
        session=draw(st.binary(min_size=16, max_size=16)),
        body_hash=draw(st.binary(min_size=32, max_size=32)),
        blocks=tuple(blocks),
        ids=b"".join(draw(st.binary(min_size=32, max_size=32)) for _ in lengths),
        lengths=array("I", lengths),
    )


@st.composite
def manifests(draw: st.DrawFn) -> snapshot.Manifest:
    """Draws a manifest that a writer could have made."""
    path = st.just(b"/") | st.lists(names, min_size=1, max_size=3).map(lambda parts: b"/" + b"/".join(parts))
    return snapshot.Manifest(
        session=draw(st.binary(min_size=16, max_size=16)),
        root=ChunkId(draw(st.binary(min_size=32, max_size=32))),
        sources=tuple(draw(st.lists(path, max_size=3))),
        time_ns=draw(i64s),
        started_ns=draw(i64s),
        ended_ns=draw(i64s),
        host=draw(texts),
        user=draw(texts),
        uid=draw(u32s),
        kind=draw(texts),
        label=draw(texts),
        reason=draw(texts),
        tags=tuple(draw(st.lists(texts, max_size=3))),
        parent=draw(st.just(b"") | st.binary(min_size=16, max_size=16)),
        program=draw(texts),
        rules=tuple(draw(st.lists(texts, max_size=3))),
        failed=tuple(draw(st.lists(st.tuples(st.binary(max_size=9), texts), max_size=3))),
        figures=figures.Figures(files=draw(u32s), length_bytes=draw(st.integers(0, (1 << 64) - 1))),
        repairs=draw(st.just(b"") | st.binary(min_size=16, max_size=16)),
        root_lost=draw(st.booleans()),
        lost=draw(st.just(b"") | st.binary(min_size=32, max_size=32)),
        changes=draw(st.none() | st.builds(figures.Changes, added=u32s, changed=u32s, removed=u32s)),
    )
