"""Archives become snapshots, honest ones whole, and of the others it is said what is not."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import stat
import tarfile

import pytest
import zstandard

from respaldo.core.errors import SourceError
from respaldo.core.model import Mark
from respaldo.flows.importing import members as members_module
from tests.flows.importing.tars import DIRECTORY, LINK, SYMLINK, Archive, Shop

NOISE = random.Random(1).randbytes(50_000)


@pytest.fixture
def shop(tmp_path):
    """Has an empty repository."""
    return Shop(tmp_path)


@pytest.mark.parametrize(
    "pack",
    [
        lambda raw: raw,
        gzip.compress,
        lambda raw: gzip.compress(raw[:5000]) + gzip.compress(raw[5000:]),
        bz2.compress,
        lzma.compress,
        lambda raw: lzma.compress(raw[:5000]) + bytes(8) + lzma.compress(raw[5000:]),
        lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
        zstandard.compress,
        lambda raw: zstandard.compress(raw[:5000]) + zstandard.compress(raw[5000:]),
    ],
    ids=["tar", "gz", "gz twice", "bz2", "xz", "xz twice", "lzma", "zst", "zst twice"],
)
def test_packed_archives_are_told_by_how_they_begin(shop, pack):
    """All ways of packing give the same snapshot, streams one after another as well."""
    plain = Archive().add("d", kind=DIRECTORY).add("d/noise", NOISE).add("d/small", b"small").bytes()
    result = shop.take(pack(plain))
    assert shop.notes == []
    assert result.complete
    assert shop.content(result) == {b"/d/noise": NOISE, b"/d/small": b"small"}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_of_headers_say_the_same(shop, form):
    """Names, owners, modes, times and links come out of ustar, GNU and pax alike, long and odd names too."""
    long = "d/" + "/".join(["x" * 50] * (2 if form == tarfile.USTAR_FORMAT else 40))
    odd = "d/caf\udce9 \x1b[31m\n"
    archive = (
        Archive(form)
        .add("d", kind=DIRECTORY, mode=0o2750, uid=7, gid=8, uname="ana", gname="users")
        .add(long, b"long")
        .add(odd, b"odd", mode=0o4755)
        .add("d/link", kind=SYMLINK, linkname="../" + "t" * (90 if form == tarfile.USTAR_FORMAT else 900))
        .add("d/pipe", kind=tarfile.FIFOTYPE)
        .add("d/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)
        .add("d/disk", kind=tarfile.BLKTYPE, devmajor=8, devminor=16)
        .bytes()
    )
    result = shop.take(archive)
    assert shop.notes == []
    entries = shop.entries(result)
    top = entries[b"/d"]
    assert (top.mode, top.uid, top.gid, top.user, top.group) == (stat.S_IFDIR | 0o2750, 7, 8, "ana", "users")
    assert top.mtime_ns == 1_600_000_000_000_000_000
    assert entries[odd.encode("utf-8", "surrogateescape").join([b"/", b""])].mode == stat.S_IFREG | 0o4755
    assert shop.content(result)[b"/" + long.encode()] == b"long"
    assert entries[b"/d/link"].target.startswith(b"../ttt")
    assert stat.S_ISFIFO(entries[b"/d/pipe"].mode)
    assert (entries[b"/d/null"].rdev, entries[b"/d/disk"].rdev) == (1 << 32 | 3, 8 << 32 | 16)
    assert result.manifest.sources == (b"/d",)


def test_times_to_the_nanosecond_and_beyond(shop):
    """Pax times keep nanoseconds; what lies outside of what can be recorded is the nearest that can."""
    archive = Archive()
    for name, time in (("a", "1.123456789"), ("b", "-1.5"), ("c", "99999999999999"), ("d", "-99999999999999")):
        archive.add(name, pax={"mtime": time})
    entries = shop.entries(shop.take(archive.bytes()))
    times = [entries[b"/" + name].mtime_ns for name in (b"a", b"b", b"c", b"d")]
    assert times == [1_123_456_789, -1_500_000_000, (1 << 63) - 1, -(1 << 63)]


def test_members_in_any_order(shop):
    """Directories may come after what is in them, and names in no order: trees are sorted all the same."""
    archive = Archive().add("z/b", b"b").add("a", b"a").add("z/a", b"za").add("z", kind=DIRECTORY, mode=0o700).bytes()
    result = shop.take(archive)
    assert result.complete
    assert list(shop.content(result)) == [b"/a", b"/z/a", b"/z/b"]
    assert shop.entries(result)[b"/z"].mode == stat.S_IFDIR | 0o700


def test_last_of_one_name_wins(shop):
    """As when tar unpacks: content, type and attributes are those of the last; links keep what was there before."""
    archive = (
        Archive()
        .add("file", b"first")
        .add("other", kind=LINK, linkname="file")
        .add("file", b"second")
        .add("turns", kind=DIRECTORY)
        .add("turns/below", b"gone")
        .add("turns", b"into a file")
        .add("dir", kind=DIRECTORY, mode=0o700)
        .add("dir/stays", b"stays")
        .add("dir", kind=DIRECTORY, mode=0o755)
        .bytes()
    )
    result = shop.take(archive)
    assert shop.content(result) == {
        b"/file": b"second",
        b"/other": b"first",
        b"/turns": b"into a file",
        b"/dir/stays": b"stays",
    }
    entries = shop.entries(result)
    assert entries[b"/dir"].mode == stat.S_IFDIR | 0o755
    assert entries[b"/other"].link_group == b""
    assert result.complete


def test_hard_links_share_a_group(shop):
    """Names of one file have content and attributes in common, and a group that depends on names alone."""

    def archive(before: bool) -> bytes:
        made = Archive()
        if before:
            made.add("another", b"first of all")
        return made.add("a", b"twins", mode=0o640).add("b/c", kind=LINK, linkname="./a").bytes()

    one = shop.entries(shop.take(archive(before=False)))
    other = shop.entries(shop.take(archive(before=True)))
    assert one[b"/a"].link_group == one[b"/b/c"].link_group != b""
    assert one[b"/b/c"].mode == stat.S_IFREG | 0o640
    assert one[b"/a"].content == one[b"/b/c"].content
    assert other[b"/a"].link_group == one[b"/a"].link_group


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("/etc/passwd", b"/etc/passwd"),
        ("//x", b"/x"),
        ("./a/./b", b"/a/b"),
        ("../up", None),
        ("a/../../up", None),
        ("a/..", None),
        ("n" * 256, None),
        ("/".join(["d"] * 3000), None),
    ],
)
def test_names_never_lead_elsewhere(shop, name, recorded):
    """Absolute names are taken as relative; what leads upwards, or is no name, is left out, named, and status 3."""
    result = shop.take(Archive().add("good", b"good").add(name, b"x").bytes())
    content = shop.content(result)
    assert content.pop(b"/good") == b"good"
    assert content == ({} if recorded is None else {recorded: b"x"})
    assert result.complete == (recorded is not None)
    assert [path for _, path in shop.notes] == ([] if recorded else [name.encode()[:4096]])


def test_nothing_is_reached_through_a_symbolic_link(shop):
    """A member below a link's name does not follow it: a directory takes the link's place, and that is told."""
    archive = Archive().add("lnk", kind=SYMLINK, linkname="/etc").add("lnk/passwd", b"root").bytes()
    result = shop.take(archive)
    assert shop.content(result) == {b"/lnk/passwd": b"root"}
    assert shop.notes == [("it was replaced by a directory: other members lie below its name", b"lnk")]
    assert not result.complete


def test_links_to_outside_are_recorded_as_they_are(shop):
    """A symbolic link says where it leads, wherever that is: nothing is followed when it is recorded."""
    entries = shop.entries(shop.take(Archive().add("l", kind=SYMLINK, linkname="../../../etc/shadow").bytes()))
    assert entries[b"/l"].target == b"../../../etc/shadow"


@pytest.mark.parametrize("target", ["missing", "../up", "d", "", "/"])
def test_hard_links_to_what_is_no_file_are_left_out(shop, target):
    """A hard link to nothing, to outside or to a directory is named and left out."""
    result = shop.take(Archive().add("d", kind=DIRECTORY).add("l", kind=LINK, linkname=target).bytes())
    assert b"/l" not in shop.entries(result)
    assert [path for _, path in shop.notes] == [b"l"]
    assert not result.complete


def test_cut_off_archives_give_what_was_there(shop):
    """Of an archive that ends too early, whole members are there; the one it ends in is marked and told."""
    whole = Archive().add("a", b"a" * 600).add("b", NOISE).bytes()
    result = shop.take(whole[: 512 + 1024 + 512 + 20_000])
    entries = shop.entries(result)
    assert shop.content(result) == {b"/a": b"a" * 600}
    assert entries[b"/b"].mark is Mark.UNREADABLE
    assert entries[b"/b"].size == len(NOISE)
    assert not result.complete
    assert next(text for text, _ in shop.notes) == "its content is cut off, and was left out"


def test_archives_without_an_end_are_told(shop):
    """An archive that ends after a member, without the blocks that end it, may lack members."""
    whole = Archive().add("a", b"a").bytes()
    assert not shop.take(whole[:1024]).complete
    assert shop.notes[0][0] == "the archive has no end: it may lack members"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_cut_off_packed_archives_are_told(shop, pack):
    """A packed archive that is cut off is incomplete, whatever it is packed with."""
    packed = pack(Archive().add("a", b"a").add("b", random.Random(2).randbytes(3_000_000)).bytes())
    result = shop.take(packed[: len(packed) // 2])
    assert not result.complete
    assert shop.content(result) in ({}, {b"/a": b"a"})


def test_damaged_headers_are_passed_over(shop):
    """Reading goes on at the next header; how much was passed over is told."""
    data = bytearray(Archive().add("a", b"a").add("b", b"b").add("c", b"c").bytes())
    data[1024 + 100] ^= 0xFF
    result = shop.take(bytes(data))
    assert shop.content(result) == {b"/a": b"a", b"/c": b"c"}
    assert shop.notes == [("1024 bytes of the archive are damaged and were passed over", b"test.tar")]


def test_concatenated_archives_are_one(shop):
    """What follows the end of an archive and is one is taken over as well, as by tar --ignore-zeros."""
    both = Archive().add("a", b"old").add("b", b"b").bytes() + Archive().add("a", b"new").bytes()
    result = shop.take(both)
    assert result.complete
    assert shop.content(result) == {b"/a": b"new", b"/b": b"b"}


def test_what_follows_and_is_no_archive_is_told(shop):
    """Rubbish behind the end is told, and costs nothing else."""
    result = shop.take(Archive().add("a", b"a").bytes() + b"rubbish" * 100)
    assert shop.content(result) == {b"/a": b"a"}
    assert shop.notes == [("700 bytes at the end of the archive are no part of it, or damaged", b"test.tar")]


@pytest.mark.parametrize(
    "data", [b"", b"no archive", bytes(10240), gzip.compress(b"text" * 1000, mtime=0), b"\x1f\x8bdamaged"]
)
def test_what_is_no_archive_makes_no_snapshot(shop, data):
    """Nothing, rubbish, an empty archive: an error that says so, and no snapshot."""
    with pytest.raises(SourceError):
        shop.take(data)
    assert shop.snapshots() == 0


def test_bombs_take_no_memory(shop):
    """A gibibyte of zeros in a mebibyte is read through; a hole of exbibytes is a hole."""
    import tracemalloc

    size = 256 << 20
    head = tarfile.TarInfo("zeros")
    head.size = size
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(head.tobuf())
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
        file.write(bytes(1024))
    huge = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str((1 << 63) - 1)}
    tracemalloc.start()
    result = shop.take(packed.getvalue())
    sparse = shop.take(Archive().add("hole", b"0\n".ljust(512, b"\0"), pax=huge).bytes())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.manifest.figures.length_bytes == size
    assert shop.entries(sparse)[b"/hole"].size == (1 << 63) - 1
    assert peak < 40 << 20


@pytest.mark.parametrize(
    "pax",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "5"},
        {"GNU.sparse.map": "0,5,3,1", "GNU.sparse.size": "100"},
        {"GNU.sparse.map": "0,5,7", "GNU.sparse.size": "100"},
        {"GNU.sparse.map": "0,99999", "GNU.sparse.size": "100"},
        {"GNU.sparse.map": "0,6", "GNU.sparse.size": "-1"},
        {"size": "x"},
        {"mtime": "yesterday"},
        {"uid": str(1 << 32)},
        {"path": "a\0b"},
        {"LIBARCHIVE.xattr.user.x": "!"},
    ],
)
def test_impossible_headers_leave_their_member_out(shop, pax):
    """A header that contradicts itself costs its member alone, and is told."""
    result = shop.take(Archive().add("liar", b"6bytes", pax=pax).add("good", b"good").bytes())
    assert shop.content(result) == {b"/good": b"good"}
    assert len(shop.notes) == 1
    assert not result.complete


def test_headers_that_are_too_long_are_passed_over(shop, monkeypatch):
    """A pax header beyond all reason is not held in memory: its member is left out."""
    monkeypatch.setattr(members_module, "HEADER_BYTES_MAX", 4096)
    result = shop.take(Archive().add("liar", b"x", pax={"comment": "x" * 10_000}).add("good", b"g").bytes())
    assert shop.content(result) == {b"/good": b"g"}
    assert [path for _, path in shop.notes] == [b"liar"]


def test_holes_of_all_formats_are_holes(shop):
    """Sparse files of GNU's formats 0.0, 0.1 and 1.0 come out with their holes."""
    data, size = b"x" * 4096 + b"y" * 4096, 40_960
    wanted = b"x" * 4096 + bytes(16_384) + b"y" * 4096 + bytes(16_384)
    numbers = "0,4096,20480,4096"
    head = b"2\n0\n4096\n20480\n4096\n".ljust(512, b"\0")
    archive = (
        Archive()
        .add("b", data, pax={"GNU.sparse.map": numbers, "GNU.sparse.size": str(size), "GNU.sparse.name": "sparse1"})
        .add(
            "c",
            head + data,
            pax={
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "sparse2",
                "GNU.sparse.realsize": str(size),
            },
        )
        .bytes()
    )
    result = shop.take(archive)
    assert shop.notes == []
    assert shop.content(result) == {b"/sparse1": wanted, b"/sparse2": wanted}
    assert shop.entries(result)[b"/sparse1"].content == shop.entries(result)[b"/sparse2"].content
    assert shop.entries(result)[b"/sparse1"].content.level == 1


def test_attributes_and_acls_of_gnu_tar_and_bsdtar(shop):
    """Attributes are read from both spellings; ACLs become what the kernel has; flags and birth times are kept."""
    acl = "user::rw-,user:1234:r--,group::r--,mask::r--,other::---"
    archive = (
        Archive()
        .add("gnu", pax={"SCHILY.xattr.user.a%3Db": "one", "SCHILY.acl.access": acl})
        .add(
            "bsd",
            pax={"LIBARCHIVE.xattr.user.a%3Db": "b25l", "LIBARCHIVE.creationtime": "12.5", "SCHILY.fflags": "nodump"},
        )
        .add("minimal", pax={"SCHILY.acl.access": "user::rw-,group::r--,other::---"})
        .add("unknown", pax={"SCHILY.acl.access": "user::rw-,user:no-such-user:r--,group::r--,mask::r--,other::---"})
        .bytes()
    )
    result = shop.take(archive)
    entries = shop.entries(result)
    gnu = dict(entries[b"/gnu"].xattrs)
    assert gnu[b"user.a=b"] == b"one"
    assert gnu[b"system.posix_acl_access"].hex() == (
        "0200000001000600ffffffff02000400d204000004000400ffffffff10000400ffffffff20000000ffffffff"
    )
    assert dict(entries[b"/bsd"].xattrs) == {b"user.a=b": b"one"}
    assert (entries[b"/bsd"].btime_ns, entries[b"/bsd"].attributes) == (12_500_000_000, 0x40)
    assert entries[b"/minimal"].xattrs == ()
    assert [path for _, path in shop.notes] == [b"unknown"]


def test_time_is_the_newest_inside_that_is_not_later_than_the_archive(shop):
    """A file from the future does not make a snapshot of the future."""
    archive = Archive().add("old", mtime=1000).add("new", mtime=2000).add("future", mtime=9_000_000_000).bytes()
    assert shop.take(archive, before_ns=3000 * 10**9).manifest.time_ns == 2000 * 10**9
    assert shop.take(archive, time_ns=5).manifest.time_ns == 5


def test_series_share_content_and_have_parents(shop):
    """The second archive of a series stores what changed, names its parent, and counts what is new and changed."""
    first = Archive().add("d", kind=DIRECTORY).add("d/a", NOISE).add("d/b", b"b").bytes()
    second = Archive().add("d", kind=DIRECTORY).add("d/a", NOISE).add("d/b", b"B").add("d/c", b"c").bytes()
    one = shop.take(first, time_ns=10**9)
    two = shop.take(second, time_ns=2 * 10**9)
    assert two.manifest.parent == one.snapshot
    assert (one.manifest.label, one.manifest.kind) == ("v0.0.1-19700101_000001", "snapshot")
    assert (two.manifest.label, two.manifest.kind) == ("v0.0.2-19700101_000002", "incremental")
    figures = two.manifest.figures
    assert (figures.files_new, figures.files_changed, figures.files_unchanged) == (1, 1, 1)
    assert figures.chunk_bytes_new < 1000


def test_same_archive_again_makes_no_second_snapshot(shop):
    """What is there already, of the same host, sources and time, is said to be."""
    archive = Archive().add("a", b"a").bytes()
    one, two = shop.take(archive), shop.take(archive)
    assert (two.snapshot, two.present) == (one.snapshot, True)
    assert shop.snapshots() == 1
    assert not shop.take(archive, host="elsewhere").present


def test_names_lie_below_the_base(shop):
    """With a base, names are relative to it, and directories above are marked as no more than the way there."""
    archive = Archive().add(".", kind=DIRECTORY, mode=0o700).add("./a", b"a").bytes()
    result = shop.take(archive, base=b"/home/ana")
    entries = shop.entries(result)
    assert result.manifest.sources == (b"/home/ana",)
    assert entries[b"/home"].mark is Mark.PARTIAL
    assert (entries[b"/home/ana"].mark, entries[b"/home/ana"].mode) == (Mark.NONE, stat.S_IFDIR | 0o700)
    assert shop.content(result) == {b"/home/ana/a": b"a"}


def test_many_things_side_by_side_are_one_source(shop):
    """An archive of a hundred files has one source, so that the next of its series has the same."""
    archive = Archive()
    for number in range(100):
        archive.add(f"file{number}", b"x")
    assert shop.take(archive.bytes(), base=b"/srv").manifest.sources == (b"/srv",)


def test_dry_run_stores_nothing(shop):
    """A dry run counts what an import would, and leaves the repository as it was."""
    archive = Archive().add("a", NOISE).bytes()
    before = dict(shop.backend.list("packs"))
    planned = shop.take(archive, dry_run=True)
    assert (planned.snapshot, dict(shop.backend.list("packs"))) == (None, before)
    done = shop.take(archive)
    assert planned.manifest.figures.chunk_bytes_new == done.manifest.figures.chunk_bytes_new
    assert planned.manifest.root == done.manifest.root
