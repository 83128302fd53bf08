"""Hostile repositories that cost whoever opens them more than they weigh: memory, time, depth; and what they print."""

from __future__ import annotations

import os
import stat
import struct

import zstandard

from respaldo.catalog.snapshots import pending_name
from respaldo.codec.slots import PASSPHRASE
from respaldo.core.ids import Kind, SnapshotId
from respaldo.format import canonical, frame
from respaldo.format.content import HOLE
from respaldo.format.header import close_object
from respaldo.format.pack import BLOCK_ROW
from respaldo.format.tree import Branch
from tests.hostile.forge import DIRECTORY, FILE, LINK, Block, Forger, encoded_footer
from tests.hostile.ground import COMMANDS, listing
from tests.hostile.restoring import CHECKS, DAMAGED, LOST, RESTORED, UNREADABLE, good
from tests.hostile.scenario import GOOD, scenario

GIB = 1 << 30


def declaring(size, content=b""):
    """Returns a zstd frame that declares a size, whatever is in it: a single raw block of the content."""
    head = b"\x28\xb5\x2f\xfd" + bytes([0b11_1_00000]) + struct.pack("<Q", size)
    return head + (len(content) << 3 | 1).to_bytes(3, "little") + content


def zeros(size):
    """Returns an honest zstd frame of zeros."""
    return zstandard.ZstdCompressor(write_content_size=True).compress(bytes(size))


@scenario(
    "zstd frames that declare gigabytes",
    statuses={command: status for command, status in LOST.items() if command != "verify"} | {"repair": 4},
    there=GOOD | {"after": b"after"},
)
def blocks_that_declare_gigabytes(forger: Forger):
    """Blocks whose frames declare more than the footer says, or less, or nothing; two frames; a window of 2 GiB."""
    rows = []
    windowed = b"\x28\xb5\x2f\xfd" + bytes([0b10_0_00000, (31 - 10) << 3]) + struct.pack("<I", 100) + b"\x01\0\0"
    for number, (message, length) in enumerate(
        (
            (declaring(4 * GIB), 1000),
            (declaring(1 << 62), 1000),
            (zeros(16 << 20), 1000),
            (zeros(1000), 16 << 20),
            (zeros(500) + zeros(500), 1000),
            (windowed, 1000),
            (b"\x50\x2a\x4d\x18" + struct.pack("<I", 8) + bytes(8), 1000),
        )
    ):
        raw = b"%d" % number + bytes(length - 1)
        (chunk,) = forger.pack(Block(raw=raw, message=message))
        rows.append((b"bad%d" % number, FILE, (length, chunk)))
    good(forger, (b"after", FILE, b"after"), *rows)


@scenario(
    "zstd frames that declare gigabytes",
    there=GOOD | {f"big{n:02d}": b"%02d" % n + bytes((16 << 20) - 2) for n in range(12)},
    peak_mib=160,
)
def blocks_of_nothing_but_zeros(forger: Forger):
    """Sixteen megabytes in a thousand bytes, twelve times: true, and not to be held all at once."""
    rows = []
    for number in range(12):
        raw = b"%02d" % number + bytes((16 << 20) - 2)
        (chunk,) = forger.pack(Block(raw=raw, message=zstandard.ZstdCompressor().compress(raw)))
        rows.append((b"big%02d" % number, FILE, (len(raw), chunk)))
    good(forger, *rows)


def _records(forger, forms):
    """Puts records of every kind with given bytes: manifests and outcomes of snapshots, and what nothing depends on."""
    for number, put in enumerate(forms):
        name = SnapshotId(bytes([number]) * 16).hex()
        put("manifest", "pending/" + name)
        forger.outcome(SnapshotId(bytes([number]) * 16))
        for kind, folder in (("pin", "pins"), ("trash", "trash"), ("verified", "verified"), ("sums", "sums")):
            put(kind, f"{folder}/{name}")
        put("marker", f"sessions/{name}.0")


@scenario("zstd frames that declare gigabytes", statuses=UNREADABLE | {"repair": 4}, peak_mib=550)
def records_that_declare_gigabytes(forger: Forger):
    """Records of every kind whose frames declare terabytes, or hold 64 MiB of zeros in a few kilobytes; segments, too.

    No format can do with less than its longest object: a segment has up to 256 MiB, of which two copies are made.
    """
    good(forger)
    squeezed = zeros(64 << 20)
    heads = [
        frame.HEAD.pack(frame.ZSTD, 25, 1 << 62) + declaring(1 << 62, b"x" * 9),
        frame.HEAD.pack(frame.ZSTD, 25, 1000) + declaring(1 << 40, b"x" * 9),
        frame.HEAD.pack(frame.STORED, (1 << 32) - 1, (1 << 32) - 1),
    ]
    _records(forger, [lambda kind, name, head=head: forger.framed(kind, name, head) for head in heads])
    long = frame.HEAD.pack(frame.ZSTD, len(squeezed), 64 << 20) + squeezed
    snapshot = SnapshotId(b"\xff" * 16)
    forger.framed("manifest", pending_name(snapshot), long)
    forger.outcome(snapshot)
    forger.framed("verified", "verified/" + "ff" * 16, long)
    forger.segment(bytes(128 << 20))
    forger.catalogue(bytes(64 << 20))


LENGTHS = {
    "array": b"\xdd\xff\xff\xff\xff",
    "map": b"\xdf\xff\xff\xff\xff",
    "bytes": b"\xc6\xff\xff\xff\xff",
    "text": b"\xdb\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "nested": b"\x91" * 100_000 + b"\x01",
    "wide": b"\xdd\x00\x40\x00\x00" + b"\x90" * (4 << 20),
    "maps": b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20),
}


@scenario("msgpack lengths", statuses=UNREADABLE | {"repair": 4}, peak_mib=200)
def records_of_impossible_lengths(forger: Forger):
    """Records of every kind that say that four thousand million things follow, or a hundred thousand levels."""
    good(forger)
    _records(forger, [lambda kind, name, raw=raw: forger.record(kind, name, raw) for raw in LENGTHS.values()])
    for raw in LENGTHS.values():
        forger.segment(raw)
        forger.catalogue(raw)


@scenario(
    "msgpack lengths",
    statuses=DAMAGED | {"prune": 4, "prune --dry-run": 4},
    peak_mib=200,
    there=GOOD | dict.fromkeys(LENGTHS, "directory") | {"node": "directory"},
)
def trees_of_impossible_lengths(forger: Forger):
    """Trees that say so, and a list node of anything."""
    rows = [(name.encode(), DIRECTORY, forger.chunk(raw, Kind.TREE)) for name, raw in LENGTHS.items()]
    node = forger.leaf((b"file", FILE, (1 << 40, forger.chunk(b"\xff" * 40 * 1024, Kind.LIST))), levels={0: (8, 1)})
    good(forger, *rows, (b"node", DIRECTORY, forger.chunk(node.encode(), Kind.TREE)))


@scenario("msgpack lengths", statuses=dict.fromkeys(COMMANDS, 4), says={"restore": "config/"})
def configuration_of_impossible_lengths(forger: Forger):
    """The newest configuration says so: nothing opens, and it is named."""
    good(forger)
    forger.record("config", "config/" + "f" * 16, LENGTHS["array"])


@scenario(
    "msgpack lengths",
    statuses=CHECKS | {"prune --dry-run": 4, "stats": 4, "prune": 4, "snapshot": 4, "rewrite": 4, "repair": 4},
    there=GOOD,
)
def condemnation_of_impossible_lengths(forger: Forger):
    """A condemnation may condemn anything: who writes stops, who reads goes on."""
    good(forger)
    forger.record("condemnation", "condemned/" + "ab" * 16, LENGTHS["bytes"])


@scenario("Argon2 parameters", statuses=CHECKS | {"key list": 4}, there=GOOD)
def slots_that_ask_for_terabytes(forger: Forger):
    """Slots that ask for passes and memory beyond all bounds, below them, or for what is no number."""
    good(forger)
    for number, cost in enumerate(
        ([1 << 32, 1 << 16], [3, 1 << 40], [3, (1 << 20) + 1], [11, 1 << 16], [0, 1 << 16], [3, 8], [-1, -1], [3], [])
    ):
        raw = canonical.pack([1, PASSPHRASE, cost, bytes(16), bytes(104), b""])
        forger.put(f"keys/{number:016x}", close_object(raw))


@scenario("footers whose offsets overflow", statuses=CHECKS | {"stats": 4}, there=GOOD)
def footers_whose_offsets_overflow(forger: Forger):
    """Packs whose trailers point anywhere, and whose footers claim lengths and counts that no pack has."""
    good(forger)
    block = Block(raw=b"evil" * 100)
    for offset in ((1 << 64) - 1, (1 << 64) - 72, 1 << 63, 1 << 32, 0, 1):
        forger.pack(block, offset=offset)
    row = BLOCK_ROW
    most = (1 << 32) - 1
    for rows in (
        row.pack(1, most, most, most, bytes(32)),
        row.pack(1, most, 16 << 20, 1, bytes(32)) * 1000,
        row.pack(1, 73, 400, most, bytes(32)),
        row.pack(1, 400, 400, 0, bytes(32)),
        row.pack(9, 472, 400, 1, bytes(32)),
        row.pack(1, 472, 400, 1, bytes(32)) * 3,
    ):
        forger.pack(block, footer=lambda true, rows=rows: encoded_footer(true, rows=rows))
    for lengths in (struct.pack("<I", most), struct.pack("<2I", most, 401), b"\0" * 4, b""):
        forger.pack(block, footer=lambda true, lengths=lengths: encoded_footer(true, lengths=lengths))
    forger.pack(block, footer=lambda true: encoded_footer(true, ids=os.urandom(32) * 3))
    forger.pack(block, message=lambda built: built[:4] + struct.pack("<I", most) + built[8:])
    forger.pack(block, message=lambda built: built[:8] + struct.pack("<Q", 1 << 62) + built[16:])


ENDLESS = frozenset(
    (
        *("ls", "ls --json", "find", "diff", "stats", "copy", "dump a tree", "export tar", "export zip", "checksums"),
        *("restore", "restore --preview", "restore --delete", "restore --in-place", "rewrite"),
    )
)


def _look_at_one(ground):
    assert listing(ground.room / "part") == {"file": b"file"}


@scenario(
    "trees that contain themselves",
    endless=ENDLESS,
    peak_mib=160,
    more={"restore one of them": ("restore", f"latest:/source/wide/{'/'.join('ab' * 20)}", "{room}/part")},
    look=_look_at_one,
)
def million_million_files(forger: Forger):
    """Forty directories, each twice in the one above: as many files as nobody has room for."""
    tree = forger.tree((b"file", FILE, b"file"))
    for _ in range(40):
        tree = forger.tree((b"a", DIRECTORY, tree), (b"b", DIRECTORY, tree))
    good(forger, (b"wide", DIRECTORY, tree))


def _look_down(ground):
    fd = os.open(ground.room / "target" / "deep", os.O_RDONLY)
    for _ in range(3000):
        below = os.open("d", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        fd = below
    assert os.listdir(fd) == ["file"]
    os.close(fd)


@scenario("trees that contain themselves", look=_look_down)
def three_thousand_levels(forger: Forger):
    """A directory in a directory in a directory, until no path is long enough for it."""
    tree = forger.tree((b"file", FILE, b"file"))
    for _ in range(3000):
        tree = forger.tree((b"d", DIRECTORY, tree))
    good(forger, (b"deep", DIRECTORY, tree))


@scenario(
    "trees that contain themselves", statuses=DAMAGED | {"find": 0, "repair": 4}, there=GOOD | {"branch": "directory"}
)
def branches_of_branches(forger: Forger):
    """A long directory whose runs are long directories, twenty thousand of them."""
    leaf = forger.tree((b"file", FILE, b"file"))
    branch = forger.chunk(Branch(((leaf, 1),)).encode(), Kind.TREE)
    many = forger.chunk(Branch(((branch, 1),) * 20_000).encode(), Kind.TREE)
    good(forger, (b"branch", DIRECTORY, many))


@scenario(
    "trees that contain themselves",
    endless=frozenset({"dump a tree", "export tar", "export zip", "checksums", "copy"}),
    statuses=dict.fromkeys(RESTORED, 1),
    says={"restore": "at least 1048576.0 TiB are needed"},
    there={},
    peak_mib=160,
)
def exabyte_of_lists(forger: Forger):
    """A file of an exabyte: lists of a thousand times the same list, five levels deep, over a megabyte."""
    word = b"word" * (1 << 18)
    node, length = forger.chunk(word), len(word)
    for _ in range(4):
        node, length = forger.node(*[(node, length)] * 1024), length * 1024
    good(forger, (b"exabyte", FILE, (length, node)), levels={0: (4, 1)})


@scenario(
    "trees that contain themselves",
    endless=frozenset({"dump a tree", "export tar", "export zip", "checksums", "copy"}),
    statuses=dict.fromkeys(RESTORED, 1),
    there={},
    peak_mib=160,
)
def petabytes_of_lists_with_holes(forger: Forger):
    """Two petabytes with a hole in each list of the lowest level: nobody can say where all of them are."""
    word = b"word" * (1 << 18)
    chunk, length = forger.chunk(word), len(word)
    node, length = forger.node((chunk, length), (HOLE, 4096), (chunk, length)), 2 * length + 4096
    for _ in range(3):
        node, length = forger.node(*[(node, length)] * 1024), length * 1024
    good(forger, (b"data", FILE, (length, node)), levels={0: (4, 1)})


EVIL = b"\x1b]0;title\x07\x1b[2J\x1b[31m\r\n\x08\x7f\xc2\x9b2J\xe2\x80\xae\xe2\x80\x8f\xff\xfe"
TEXT = EVIL.decode("utf-8", "surrogateescape")


@scenario(
    "msgpack lengths",
    statuses=dict.fromkeys(COMMANDS, 4),
    says={"restore": "entry 0 of client .* cannot be read"},
    more={"restore all the same": ("restore", "latest:/source", "{room}/part", "--accept-rollback")},
)
def log_of_impossible_lengths(forger: Forger):
    """Entries of the log say so: every command says that history is not to be had, until that is accepted."""
    good(forger)
    for number, raw in enumerate(LENGTHS.values()):
        forger.record("log", f"log/{bytes([number]).hex() * 16}.{0:016x}", raw)


@scenario(
    "escape sequences in names printed to a terminal",
    statuses=LOST | {"stats": 4, "prune": 4, "prune --dry-run": 4},
    mounted={"folder/kept": None},
)
def escape_sequences_everywhere(forger: Forger):
    """Control characters, in whatever a person is shown: names, targets, owners, attributes, and all of a manifest."""
    rows = [(b"a" + EVIL, FILE, b"text"), (b"b" + EVIL, DIRECTORY, forger.tree((EVIL, FILE, b"text")))]
    rows += [(b"c" + EVIL, LINK, EVIL), (b"d" + EVIL, stat.S_IFREG | 0o644, (4, b"n" * 32))]
    names = {os.geteuid(): TEXT}
    xattrs = {0: ((b"user." + EVIL, EVIL),)}
    rows.append((b"kept", FILE, b"kept"))
    tree = forger.chunk(forger.leaf(*rows, xattrs=xattrs, users=names, groups=names).encode(), Kind.TREE)
    root = forger.tree((b"source", DIRECTORY, tree), users=names)
    manifest = forger.manifest(
        root,
        sources=(b"/source", b"/" + EVIL.replace(b"/", b"")),
        host=TEXT,
        user=TEXT,
        kind=TEXT,
        label=TEXT,
        reason=TEXT,
        tags=(TEXT, "tag"),
        program=TEXT,
        rules=(TEXT,),
        failed=((b"/" + EVIL, TEXT),),
    )
    forger.save()
    forger.committed(manifest.encode())
    forger.slot("keys/" + "ab" * 8, label=TEXT, use=TEXT[:9])
    forger.repo.log.append(TEXT[:20], (b"\x1b" * 16,), TEXT)
