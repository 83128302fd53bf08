"""Hostile repositories whose trees want more of a restore than to be written: out of the target, or wrong in it."""

from __future__ import annotations

import os
import stat

from respaldo.core.ids import Kind
from respaldo.format.content import HOLE
from respaldo.format.tree import META, Branch
from tests.hostile.forge import DIRECTORY, FIFO, FILE, LINK, TIME_NS, Forger
from tests.hostile.ground import COMMANDS, listing
from tests.hostile.scenario import GOOD, scenario

GROUP, OTHER_GROUP = b"g" * 16, b"h" * 16
CHECKS = {"verify": 4, "verify --read-data": 4, "repair --dry-run": 4}
"""Exit statuses where something is damaged that nothing depends on."""
CONTENT = ("verify", "verify --read-data", "repair --dry-run", "dump a tree", "export tar", "export zip", "checksums")
RESTORED = ("restore", "restore --delete", "restore --in-place")
TREES = ("ls", "ls --json", "find", "diff", "stats", "restore --preview")
LOST = dict.fromkeys((*CONTENT, *RESTORED, "copy"), 4)
"""Exit statuses where content of the newest snapshot is damaged. A repair marks it, which is what there is to do."""
DAMAGED = LOST | dict.fromkeys((*TREES, "rewrite"), 4)
"""The same where one of its trees is. A collector looks at what trees refer to, and all of that is there."""


def good(forger, *rows, **more):
    """Commits what is kept, and beside it the rows, as they are, in the order of their names."""
    folder = forger.tree((b"kept", FILE, b"kept, too"))
    rows = [(b"folder", DIRECTORY, folder), (b"kept", FILE, b"kept"), *rows]
    leaf = forger.leaf(*sorted(rows, key=lambda row: row[0]), **more)
    return forger.commit(forger.chunk(leaf.encode(), Kind.TREE))


def forged(forger, *rows, **more):
    """Stores a directory whose names no writer would store, and gives it as it is: put_tree looks at nothing."""
    return forger.chunk(forger.leaf(*rows, **more).encode(), Kind.TREE)


def _way_out(forger, *order):
    inner = forger.tree((b"file", FILE, b"evil"), (b"new", FILE, b"evil"))
    rows = {"link": (LINK, b"../../outside"), "directory": (DIRECTORY, inner)}
    good(forger, (b"evil", DIRECTORY, forged(forger, *((name, *rows[kind]) for name, kind in order))))


@scenario("borg CVE-2026-62268", "rustic_core #571", statuses=DAMAGED, there=GOOD | {"evil": "directory"})
def link_then_directory_of_one_name(forger: Forger):
    """A link that leads out of the target, then a directory of the same name with files in it."""
    _way_out(forger, (b"a", "link"), (b"a", "directory"))


@scenario("borg CVE-2026-62268", "rustic_core #571", statuses=DAMAGED, there=GOOD | {"evil": "directory"})
def directory_then_link_of_one_name(forger: Forger):
    """The other way round."""
    _way_out(forger, (b"a", "directory"), (b"a", "link"))


@scenario("borg CVE-2026-62268", "rustic_core #571", statuses=DAMAGED, there=GOOD | {"evil": "directory"})
def link_then_directory_out_of_order(forger: Forger):
    """The two, with a name between them, so that neighbours alone would show nothing."""
    _way_out(forger, (b"b", "link"), (b"c", "directory"), (b"b", "directory"))


@scenario(
    "rustic_core #571",
    statuses=DAMAGED | {"find": 0, "repair": 4},
    there=GOOD | {"evil": "directory", "evil/a": b"one", "evil/same": b"one"},
    mounted={
        "evil/same": ["link", "../../outside"],
        "evil/same beside another": ["file", "one"],
        "evil/z": ["file", "two"],
    },
)
def one_name_in_two_runs(forger: Forger):
    """A long directory whose runs have a name in common."""
    one = forger.tree((b"a", FILE, b"one"), (b"same", FILE, b"one"))
    two = forger.tree((b"same", LINK, b"../../outside"), (b"z", FILE, b"two"))
    good(forger, (b"evil", DIRECTORY, forger.chunk(Branch(((one, 2), (two, 2))).encode(), Kind.TREE)))


@scenario(
    "borg CVE-2026-62268",
    statuses={"export zip": 3},
    there=GOOD
    | {
        "a": ("link", b"../outside/file"),
        "b": b"evil",
        "c": ("link", b"../../outside/file"),
        "d": "directory",
        "d/linked": ("link", b"../../outside/file"),
        "d/other": b"evil",
        "e": "special",
    },
)
def hard_links_to_links(forger: Forger):
    """Names of one file that are a link to the outside here, and a file to be written there."""
    inner = forger.tree((b"linked", LINK, b"../../outside/file", GROUP), (b"other", FILE, b"evil", OTHER_GROUP))
    good(
        forger,
        (b"a", LINK, b"../outside/file", OTHER_GROUP),
        (b"b", FILE, b"evil", OTHER_GROUP),
        (b"c", LINK, b"../../outside/file", GROUP),
        (b"d", DIRECTORY, inner),
        (b"e", FIFO, b"", OTHER_GROUP),
    )


@scenario("restic #1445", statuses=DAMAGED, there=GOOD | {f"{a}{n}": "directory" for a in "abcd" for n in range(9)})
def names_that_climb(forger: Forger):
    """Names with separators in them, names that mean another directory, names that are none."""
    outside = os.fsencode(forger.place.parent / "room" / "outside" / "file")
    names = [b"..", b".", b"", b"../outside/file", b"../../outside/file", outside, b"a/b", b"/", b"n" * 256]
    rows = []
    for number, name in enumerate(names):
        inner = forger.tree((b"file", FILE, b"evil"))
        rows += [
            (b"a%d" % number, DIRECTORY, forged(forger, (name, FILE, b"evil"))),
            (b"b%d" % number, DIRECTORY, forged(forger, (name, DIRECTORY, inner))),
            (b"c%d" % number, DIRECTORY, forged(forger, (name, LINK, b"/etc"))),
            (b"d%d" % number, DIRECTORY, forged(forger, (name, FILE, b"evil", GROUP), (b"zz", FILE, b"evil", GROUP))),
        ]
    good(forger, *rows)


NAMELESS = ("log", "key list", "snapshot", "repair", "mount")
UNREADABLE = {command: 4 for command in COMMANDS if command not in NAMELESS}
"""Exit statuses where the record of a snapshot is damaged, which may be the latest; repair sets it aside."""


@scenario("restic #1445", statuses=UNREADABLE)
def sources_that_climb(forger: Forger):
    """Manifests whose sources lead elsewhere, or are none."""
    good(forger)
    for sources in ((b"/source/../outside",), (b"relative",), (b"/a\0b",), (b"//",), (b"",)):
        manifest = forger.manifest(forger.root(forger.tree((b"evil", FILE, b"evil"))), sources=sources)
        forger.save()
        forger.committed(manifest.encode())


def _plant(ground):
    """Lays links into the targets where the snapshot has directories and files."""
    for target in ("target", "filled", "written"):
        top = ground.room / target
        top.mkdir(exist_ok=True)
        for name in ("kept", "folder/kept", "folder"):
            path = top / name
            if path.is_dir():
                path.rmdir()
            elif path.exists():
                path.unlink()
        (top / "folder").symlink_to(ground.room / "outside" / "folder")
        (top / "kept").symlink_to(ground.room / "outside" / "kept")


@scenario("duplicacy PR 691", there=GOOD, spoil=_plant)
def links_in_the_target(forger: Forger):
    """An honest repository; in the target somebody has laid links to the outside under names of the snapshot."""
    good(forger)


def _look_at_capabilities(ground):
    path = ground.room / "target" / "tool"
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o4755
    if os.geteuid() == 0:
        assert (found.st_uid, found.st_gid) == (1234, 1234)
        assert os.getxattr(path, "security.capability") == CAPABILITY
    assert found.st_mtime_ns == TIME_NS


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
UNPRIVILEGED = {} if os.geteuid() == 0 else dict.fromkeys(("restore", "restore --delete", "restore --in-place"), 3)


@scenario("borg #921", "borg #7234", statuses=UNPRIVILEGED, there=GOOD | {"tool": b"run"}, look=_look_at_capabilities)
def capabilities_and_another_owner(forger: Forger):
    """A file with capabilities, setuid and another owner: to set one after the other may take the first away."""
    usual = forger.leaf((b"folder", DIRECTORY, bytes(32)), (b"kept", FILE, b"kept")).meta
    meta = usual + META.pack(stat.S_IFREG | 0o4755, 1234, 1234, 0, 3, TIME_NS, 0)
    xattrs = {2: ((b"security.capability", CAPABILITY), (b"user.note", b"x"))}
    good(forger, (b"tool", FILE, b"run"), meta=meta, xattrs=xattrs)


def _look_at_parents(ground):
    for top, bits in (("part/private", 0o700), ("part/private/deeper", 0o750)):
        found = (ground.room / top).stat()
        assert stat.S_IMODE(found.st_mode) == bits
        assert found.st_mtime_ns == TIME_NS
    assert (ground.room / "part/private/deeper/file").read_bytes() == b"wanted"
    assert not (ground.room / "part/kept").exists()


@scenario(
    "borg #1751",
    "kopia #5564",
    there=GOOD
    | {"private": "directory", "private/deeper": "directory", "private/deeper/file": b"wanted", "private/no": b"no"},
    more={"restore a part": ("restore", "latest:/source", "{room}/part", "--include", "/private/deeper/file")},
    look=_look_at_parents,
)
def parents_of_a_part(forger: Forger):
    """Directories that are only there because something in them is wanted."""
    deeper = forger.tree((b"file", FILE, b"wanted"))
    private = forger.tree((b"deeper", stat.S_IFDIR | 0o750, deeper), (b"no", FILE, b"no"))
    good(forger, (b"private", stat.S_IFDIR | 0o700, private))


@scenario(
    "vorta #2013",
    "duplicacy #205",
    statuses=LOST | {"stats": 4, "prune": 4, "prune --dry-run": 4},
    says={"restore": r"bad/1: .*(?s:.)*bad/3: "},
    there=GOOD | {"bad": "directory", "bad/2": b"there", "bad/4": b"there"},
)
def chunks_that_are_nowhere(forger: Forger):
    """Files whose content no pack holds, between others."""
    rows = [(b"1", FILE, (5, b"1" * 32)), (b"2", FILE, b"there"), (b"3", FILE, (9, b"3" * 32)), (b"4", FILE, b"there")]
    good(forger, (b"bad", DIRECTORY, forger.tree(*rows)))


def _look_at_holes(ground):
    found = (ground.room / "target" / "sparse").stat()
    assert found.st_size == (1 << 40) + 4
    assert found.st_blocks <= 64


@scenario(
    "borg #4886",
    endless=frozenset({"checksums", "export zip"}),
    look=_look_at_holes,
)
def hole_of_a_terabyte(forger: Forger):
    """A file that is a hole with a word at its end."""
    ids = forger.node((HOLE, 1 << 40), (forger.chunk(b"end."), 4))
    good(forger, (b"sparse", FILE, ((1 << 40) + 4, ids)), levels={2: (1, 1)})


@scenario(
    "borg #4886",
    statuses=LOST | {"repair": 4},
    there=GOOD | {"bad": "directory", "bad/z": b"there"},
    mounted={"bad/adjacent": ["file", "word" + "\0" * 8192 + "word"]},
)
def content_that_does_not_fit(forger: Forger):
    """Sizes that contents do not have, holes beside holes, lists that add up to something else."""
    word = forger.chunk(b"word")
    apart = forger.node((word, 4), (HOLE, 4096)), forger.node((HOLE, 4096), (word, 4))
    rows = [
        (b"adjacent", FILE, (8200, forger.node((apart[0], 4100), (apart[1], 4100))), 2),
        (b"long", FILE, (3, word), 0),
        (b"other", FILE, (8, forger.node((word, 8))), 1),
        (b"short", FILE, (4096, word), 0),
        (b"sum", FILE, (9, forger.node((forger.node((word, 4)), 9))), 2),
        (b"z", FILE, b"there", 0),
    ]
    leaf = forger.leaf(*(row[:3] for row in rows), levels={n: (row[3], 1) for n, row in enumerate(rows) if row[3]})
    good(forger, (b"bad", DIRECTORY, forger.chunk(leaf.encode(), Kind.TREE)))


def _look_at_the_rest(ground):
    assert listing(ground.room / "part") == GOOD


@scenario(
    "borg #4886",
    statuses=LOST | dict.fromkeys(RESTORED, 1) | {"restore all the same": 4},
    says={"restore": "at least 4194304.0 TiB are needed"},
    more={"restore all the same": ("restore", "latest:/source", "{room}/part", "--no-space-check")},
    look=_look_at_the_rest,
)
def file_of_exabytes(forger: Forger):
    """A file that says that it is longer than any disk, and is one word."""
    good(forger, (b"huge", FILE, (1 << 62, forger.chunk(b"word"))))
