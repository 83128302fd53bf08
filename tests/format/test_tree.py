"""Trees: what a leaf may say, refused where it says anything else."""

from __future__ import annotations

import contextlib
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.core.model import Content, Mark
from respaldo.format import canonical, content, leafcheck, tree
from respaldo.kernel.layout import INODE_FLAGS
from tests.format.samples import BRANCH, DIRECTORY, FILE, IDS, LEAF, LINK, leaves, meta


def refused(leaf):
    """Asserts that a leaf is refused."""
    with pytest.raises(Corruption):
        tree.parse_tree(leaf.encode(), "x")


def one(mode, **columns):
    """Returns a leaf of one entry."""
    size = columns.pop("size", 0)
    return tree.Leaf(names=columns.pop("names", b"a\0"), meta=meta(mode, size=size), **columns)


def test_entries_come_back_whole():
    """Every column ends up in the entry that it belongs to."""
    entries = {entry.name: entry for entry in LEAF.entries()}
    assert entries[b"a"].content == Content(ids=IDS[0])
    assert entries[b"a"].xattrs == ((b"security.selinux", b"x" * 20), (b"user.note", b"\0\xff"))
    assert entries[b"a"].mtime_ns == -1
    assert entries[b"big"].content == Content(level=2, ids=IDS[1])
    assert (entries[b"big"].uid, entries[b"big"].user) == (0, "root")
    assert entries[b"dir"].content == Content(ids=IDS[2])
    assert entries[b"empty"].content == Content()
    assert list(entries[b"hard"].content) == [IDS[3], IDS[4]]
    assert entries[b"hard"].link_group == b"L" * 16
    assert entries[b"hard"].attributes == 0x10
    assert entries[b"link"].target == b"target"
    assert entries[b"mount"].mark is Mark.MOUNT
    assert entries[b"mount"].content == Content()
    assert (entries[b"tty"].rdev, entries[b"tty"].size) == ((4 << 32) | 1, 0)
    assert entries[b"a"].group == "ana\udcff"
    assert entries[b"zz\xff"].content == Content(ids=IDS[5])


@pytest.mark.parametrize(
    "names",
    [
        b"\0",
        b".\0",
        b"..\0",
        b"a/b\0",
        b"/\0",
        b"../a\0",
        b"a",
        b"a\0b",
        b"a\0b\0",
        b"a" * 256 + b"\0",
        b"",
    ],
)
def test_impossible_names_are_refused(names):
    """No name leaves its directory, is empty, too long, or not ended; there is one for each row."""
    refused(one(FILE, names=names))


@pytest.mark.parametrize("names", [b"b\0a\0", b"a\0a\0", b"a\0\0", b"\xff\0a\0"])
def test_names_out_of_order_or_repeated_are_refused(names):
    """Two entries of one name would be restored over one another."""
    refused(tree.Leaf(names=names, meta=meta(FILE) * 2))


@pytest.mark.parametrize("mode", [0, 0o644, 0o170000 | 0o644, 0o030000, FILE | 1 << 16, FILE | 1 << 31])
def test_impossible_types_are_refused(mode):
    """A mode has one of seven types and 16 bits."""
    refused(one(mode))


def test_entry_of_unknown_type_is_one_that_could_not_be_read():
    """A file system may name an entry and not say what it is; the others of its directory are not lost with it."""
    leaf = one(0, marks={0: 1})
    assert [entry.mark for entry in tree.parse_tree(leaf.encode(), "x").entries()] == [Mark.UNREADABLE]
    refused(one(0o600, marks={0: 1}))
    refused(one(0, marks={0: 2}))


def test_impossible_size_is_refused():
    """A file's size is what an off_t holds."""
    refused(one(FILE, size=1 << 63, content=IDS[0]))


@pytest.mark.parametrize("content", [b"", IDS[0][:31], IDS[0] + b"x", IDS[0] * 2])
def test_content_that_does_not_fit_is_refused(content):
    """There are as many ids as the entries need."""
    refused(one(FILE, size=1, content=content))


@pytest.mark.parametrize(
    "row", [(0, 0), (0, 1), (1, 2), (9, 1), (-1, 1), (1 << 63, 1), (0, 1 << 64 - 1), (1, 0), (0, -1)]
)
def test_impossible_levels_are_refused(row):
    """At level 0 there are two ids or more, above there is one, and no level lies above 8."""
    refused(one(FILE, size=1, content=IDS[0] * 2, levels={0: row}))
    refused(one(FILE, size=1, content=IDS[0], levels={0: row}))


@pytest.mark.parametrize(
    "leaf",
    [
        one(DIRECTORY, content=IDS[0], levels={0: (1, 1)}),
        one(LINK, content=IDS[0], targets=b"t\0", levels={0: (1, 1)}),
        one(FILE, content=IDS[0], levels={0: (1, 1)}),
        one(FILE, size=1, content=IDS[0], levels={0: (1, 1)}, marks={0: 1}),
        one(FILE, size=1, content=IDS[0], levels={1: (1, 1)}),
    ],
)
def test_levels_on_what_is_no_file_with_content_are_refused(leaf):
    """Only files that have content say where it is."""
    refused(leaf)


@pytest.mark.parametrize("mark", [0, 7, 255, -1, 1 << 63])
def test_unknown_marks_are_refused(mark):
    """A reader must not guess what is missing from an entry."""
    refused(one(DIRECTORY, content=IDS[0], marks={0: mark}))


@pytest.mark.parametrize(
    ("mode", "mark", "fine"),
    [
        (stat.S_IFIFO, Mark.UNREADABLE, True),
        (stat.S_IFIFO, Mark.MOUNT, False),
        (LINK, Mark.UNREADABLE, True),
        (LINK, Mark.CHANGED, False),
        (FILE, Mark.MOUNT, True),
        (FILE, Mark.EXCLUDED, False),
        (FILE, Mark.PARTIAL, False),
        (FILE, Mark.CHANGED, True),
        (FILE, Mark.LOST, True),
        (DIRECTORY, Mark.MOUNT, True),
        (DIRECTORY, Mark.EXCLUDED, True),
        (DIRECTORY, Mark.PARTIAL, True),
        (DIRECTORY, Mark.CHANGED, False),
        (DIRECTORY, Mark.LOST, True),
    ],
)
def test_marks_say_something_of_what_they_can_be_said_of(mode, mark, fine):
    """No file is above a source, no directory goes on changing, no fifo is a mount point."""
    content = IDS[0] * leafcheck.default_count(mode, 0, mark)
    leaf = one(mode, content=content, targets=b"t\0" if mode == LINK else b"", marks={0: mark})
    if fine:
        assert next(iter(tree.parse_tree(leaf.encode(), "x").entries())).mark is mark
    else:
        refused(leaf)


@pytest.mark.parametrize("targets", [b"", b"t", b"t\0t\0", b"\0\0", b"t\0t"])
def test_targets_that_do_not_fit_are_refused(targets):
    """Each link has one target."""
    refused(one(LINK, targets=targets))


def test_target_of_what_is_no_link_is_refused():
    """A target without a link has no place."""
    refused(one(FILE, targets=b"t\0"))


@pytest.mark.parametrize(
    "column",
    [
        {"links": {1: b"L" * 16}},
        {"links": {0: b"L" * 15}},
        {"links": {0: b""}},
        {"links": {1 << 63: b"L" * 16}},
        {"xattrs": {0: ()}},
        {"xattrs": {0: ((b"", b""),)}},
        {"xattrs": {0: ((b"a\0", b""),)}},
        {"xattrs": {0: ((b"b", b""), (b"a", b""))}},
        {"xattrs": {0: ((b"a", b""), (b"a", b""))}},
        {"xattrs": {1: ((b"a", b""),)}},
        {"marks": {1: 1}},
        {"marks": {-1: 1}},
        {"users": {1 << 32: "x"}},
        {"groups": {-1: "x"}},
    ],
)
def test_impossible_rows_of_maps_are_refused(column):
    """A map speaks of entries that exist, in the right form."""
    refused(one(FILE, **column))


def test_hard_linked_directory_is_refused():
    """No file system has one; a restore would link over a directory."""
    refused(one(DIRECTORY, content=IDS[0], links={0: b"L" * 16}))


@pytest.mark.parametrize("at", range(5, 11))
def test_maps_of_the_wrong_shape_are_refused(at):
    """Every map is rows of its own width and types, ascending."""
    rows = canonical.unpack(LEAF.encode(), "x")
    for bad in (b"", {}, [[]], [0], [[0]], [["0", "0"]], [[0, 0, 0, 0]], rows[at] * 2, [[0, [[]]]]):
        value = [*rows[:at], bad, *rows[at + 1 :]]
        if value != rows and not (at == 5 and bad == []):
            with pytest.raises(Corruption):
                tree.parse_tree(canonical.pack(value), "x")


@pytest.mark.parametrize(
    "runs",
    [b"", b"x", IDS[0], IDS[0] + bytes(8), BRANCH.encode()[:39], IDS[0] + b"\x01" + bytes(8), (IDS[0] + bytes(8)) * 2],
)
def test_impossible_branches_are_refused(runs):
    """A branch has runs, and no run is empty."""
    with pytest.raises(Corruption):
        tree.parse_tree(canonical.pack([2, runs]), "x")


def test_branch_comes_back():
    """Its runs, in their order."""
    assert tree.parse_tree(BRANCH.encode(), "x") == BRANCH


def test_tree_beyond_the_limit_is_refused():
    """A tree has at most 16 MiB."""
    with pytest.raises(Corruption):
        tree.parse_tree(bytes(tree.TREE_RAW_BYTES_MAX + 1), "x")


def test_unchanged_directory_has_unchanged_bytes():
    """The order in which a writer meets things does not show."""
    shuffled = replace(LEAF, levels=dict(reversed(LEAF.levels.items())), users=dict(reversed(LEAF.users.items())))
    assert shuffled.encode() == LEAF.encode()


def test_run_of_files_with_as_many_chunks_as_stand_in_a_tree_fits():
    """The longest run of the biggest files that need no list is a tree that readers take."""
    count = 8192
    leaf = tree.Leaf(
        names=b"".join(b"%0255d\0" % number for number in range(count)),
        meta=meta(FILE, size=1) * count,
        content=IDS[0] * content.DIRECT_CHUNKS_MAX * count,
        levels=dict.fromkeys(range(count), (0, content.DIRECT_CHUNKS_MAX)),
        links=dict.fromkeys(range(count), b"L" * 16),
    )
    assert len(tree.parse_tree(leaf.encode(), "x")) == count


def named(mode, *, size=0, flags=0):
    """Asserts that a leaf with such an entry is refused by the entry's name."""
    leaf = tree.Leaf(names=b"ahead\0odd one\0", meta=meta(FILE) + meta(mode, size=size, flags=flags))
    with pytest.raises(Corruption, match="odd one"):
        tree.parse_tree(leaf.encode(), "x")


@pytest.mark.parametrize("bit", [bit for bit in range(32) if not INODE_FLAGS >> bit & 1])
def test_inode_flags_that_are_never_kept_are_refused(bit):
    """A writer leaves them out; whoever makes them up has other things in mind, too."""
    named(FILE, flags=1 << bit | 0x10)


@pytest.mark.parametrize("kind", [stat.S_IFBLK, stat.S_IFCHR])
def test_device_numbers_are_those_of_linux(kind):
    """Twelve bits for the major number and twenty for the minor; what goes beyond makes no device anywhere."""
    most = ((1 << 12) - 1) << 32 | (1 << 20) - 1
    tree.parse_tree(one(kind, size=most).encode(), "x")
    for size in (1 << 20, 1 << 31, 1 << 44, 1 << 63):
        named(kind, size=size)


@pytest.mark.parametrize("mode", [0, 0o644, 0o050000, 0o170000, 1 << 16 | FILE, 1 << 31 | FILE])
def test_impossible_modes_are_refused_by_name(mode):
    """A directory of thousands of entries is not looked through by hand."""
    named(mode)


@given(leaves())
def test_references_are_those_of_the_entries(leaf):
    """What a leaf refers to, by columns, is what its entries refer to."""
    found = tree.parse_references(leaf.encode(), "tree")
    entries = list(leaf.entries())
    for part, lost in ((found, False), (found.lost or tree.References(b"", b"", []), True)):
        chosen = [entry for entry in entries if (entry.mark is Mark.LOST) is lost]
        assert part.trees == b"".join(entry.content.ids for entry in chosen if entry.is_dir)
        files = [entry.content for entry in chosen if not entry.is_dir and entry.content.ids]
        assert part.data == b"".join(content.ids for content in files if not content.level)
        assert part.lists == [(content.level, content.ids) for content in files if content.level]


def test_references_of_a_branch_are_its_runs():
    """The runs of a long directory are trees that it refers to."""
    ids = [bytes([number]) * 32 for number in range(1, 4)]
    assert tree.parse_references(tree.Branch(tuple((each, 1) for each in ids)).encode(), "tree").trees == b"".join(ids)


@given(st.binary(max_size=200))
def test_references_of_anything_else_are_damage(data):
    """Bytes that are no tree raise `Corruption` and nothing else."""
    with contextlib.suppress(Corruption):
        tree.parse_references(data, "tree")
