"""Restores against somebody: trees that no honest client wrote, and a target that changes under the run."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from respaldo.api import Places, open_repository
from respaldo.catalog.runs import put_tree
from respaldo.catalog.session import Session
from respaldo.codec.slots import Secret
from respaldo.core.ids import Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Silent
from respaldo.format.figures import Figures
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import META, Leaf
from tests.fidelity.compare import differences, leftovers, picture
from tests.fidelity.trees import TIME_NS, data

FILE, DIRECTORY, LINK, FIFO = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644
POLICIES = ("always", "if-changed", "if-newer", "never")


class Forger:
    """Writes snapshots with the product's own lower layers, of rows that no walk would give."""

    def __init__(self, product) -> None:
        self._product = product

    def __enter__(self):
        places = Places(cache_dir=self._product.place / "cache", state_dir=self._product.place / "forged")
        self._opened = open_repository(
            str(self._product.repository), Secret(key=bytes(range(32))), places=places, writes=True
        )
        self._repo = self._opened.__enter__()._repo
        self._session = Session(self._repo, Silent()).__enter__()
        self._session.begin()
        return self

    def __exit__(self, *error):
        self._session.__exit__(*error)
        self._opened.__exit__(*error)

    def chunk(self, raw):
        return self._session.sink.put(Kind.DATA, raw)

    def tree(self, *rows, order=False, **more):
        """Stores a directory of rows: name, mode, and content, target or link group."""
        rows = sorted(rows, key=lambda row: row[0]) if order else rows
        content, targets, links = b"", b"", {}
        metas = b""
        for number, (_, mode, what, *group) in enumerate(rows):
            size = 0
            if stat.S_ISREG(mode):
                size = len(what)
                content += self.chunk(what) if what else b""
            elif stat.S_ISDIR(mode):
                content += what
            elif stat.S_ISLNK(mode):
                size = len(what)
                targets += what + b"\0"
            if group:
                links[number] = group[0]
            metas += META.pack(mode, os.geteuid(), os.getegid(), 0, size, TIME_NS, 0)
        leaf = Leaf(
            names=b"".join(name + b"\0" for name, *_ in rows),
            meta=metas,
            content=content,
            targets=targets,
            links=links,
            **more,
        )
        return put_tree(self._session.sink, leaf, self._repo.ring.name_order)

    def commit(self, tree, source=b"/source"):
        """Commits a snapshot of one source; the tree is that source's."""
        root = self.tree((source.strip(b"/"), DIRECTORY, tree), marks={})
        now = self._repo.clock.now_ns()
        manifest = Manifest(
            session=self._session.id,
            root=root,
            sources=(source,),
            time_ns=now,
            started_ns=now,
            ended_ns=now,
            host="host",
            user="user",
            uid=0,
            figures=Figures(files=1, directories=1),
        )
        self._session.save()
        return self._session.commit(manifest, set())


@pytest.fixture
def outside(room):
    """Has what must not be touched, beside and above a target."""
    place = room / "above" / "outside"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"precious")
    (place / "folder").mkdir()
    (place / "folder" / "file").write_bytes(b"precious, too")
    return place


def untouched(outside):
    before = picture(outside.parent)

    def check():
        after = {name: seen for name, seen in picture(outside.parent).items() if name.split(b"/")[0] != b"target"}
        wanted = {name: seen for name, seen in before.items() if name.split(b"/")[0] != b"target"}
        # A target is made in the directory above.
        assert differences(wanted, after, leaving_out=("mtime_ns",)) == []
        assert after[b"outside"] == wanted[b"outside"]

    return check


NAMES = [b"..", b".", b"", b"../outside/file", b"/etc/passwd", b"a/b", b"n" * 256]


@pytest.mark.parametrize("kind", ["file", "directory", "link", "linked"])
@pytest.mark.parametrize("name", NAMES, ids=["up", "here", "none", "up and away", "absolute", "two", "too long"])
def test_names_that_leave_their_directory_are_damage(product, outside, name, kind):
    """A name that would leave its directory is damage that is named; nothing outside is touched."""
    target = outside.parent / "target"
    check = untouched(outside)
    with Forger(product) as forger:
        inner = forger.tree((b"evil", FILE, b"evil"))
        rows = {
            "file": [(name, FILE, b"evil")],
            "directory": [(name, DIRECTORY, inner)],
            "link": [(name, LINK, b"/etc")],
            "linked": [(name, FILE, b"evil", b"g" * 16), (b"zz", FILE, b"evil", b"g" * 16)],
        }[kind]
        try:
            tree = forger.tree(*rows, order=False)
            forger.commit(forger.tree((b"folder", DIRECTORY, tree), (b"good", FILE, b"good")))
        except Exception as error:  # noqa: BLE001 - a writer that refuses is as good
            assert "name" in str(error) or "corrupt" in type(error).__name__.lower(), error  # noqa: PT017
            return
    for more in ((), ("--overwrite", "always", "--delete"), ("--verify",)):
        result = product.restore("latest:/source", target, *more, expected=4)
        assert result["failures"]
        assert (target / "good").read_bytes() == b"good"
        check()


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([("a", "link"), ("a", "directory")], id="link-then-directory"),
        pytest.param([("a", "directory"), ("a", "link")], id="directory-then-link"),
        pytest.param([("b", "link"), ("a", "directory")], id="out-of-order"),
    ],
)
def test_names_that_come_twice_are_damage(product, outside, rows):
    """A link and a directory of one name never make a way out of the target."""
    target = outside.parent / "target"
    check = untouched(outside)
    with Forger(product) as forger:
        inner = forger.tree((b"file", FILE, b"evil"), (b"new", FILE, b"evil"))
        what = {"link": (LINK, b"../outside"), "directory": (DIRECTORY, inner)}
        try:
            forger.commit(forger.tree(*((name.encode(), *what[kind]) for name, kind in rows)))
        except Exception:  # noqa: BLE001 - a writer that refuses is as good
            return
    product.run("restore", "latest:/source", target, "--json", expected=4)
    check()
    assert not (outside / "new").exists()


def test_links_of_links_do_not_lead_out(product, outside):
    """A hard link to a symbolic link is that link, never what it leads to; a file in its group is a copy."""
    target = outside.parent / "target"
    check = untouched(outside)
    with Forger(product) as forger:
        group = b"g" * 16
        inner = forger.tree((b"linked", LINK, b"../../outside/file", group), (b"other", FILE, b"evil", b"h" * 16))
        forger.commit(
            forger.tree(
                (b"a", LINK, b"../outside/file", b"h" * 16),
                (b"b", FILE, b"evil", b"h" * 16),
                (b"c", LINK, b"../../outside/file", group),
                (b"d", DIRECTORY, inner),
                (b"e", FIFO, b"", b"h" * 16),
            )
        )
    result = product.restore("latest:/source", target)
    assert result["failures"] == []
    for name in ("b", "d/other"):
        assert (target / name).read_bytes() == b"evil"
        assert not (target / name).is_symlink()
    assert stat.S_ISFIFO(os.lstat(target / "e").st_mode)
    assert os.readlink(target / "a") == "../outside/file"
    assert os.lstat(target / "c").st_ino == os.lstat(target / "d" / "linked").st_ino
    check()


def test_trees_that_contain_themselves_end(product, room):
    """The same directory may stand in many places; of millions that there would be, what is asked for is restored."""
    with Forger(product) as forger:
        tree = forger.tree((b"file", FILE, b"file"))
        for _ in range(40):
            tree = forger.tree((b"a", DIRECTORY, tree), (b"b", DIRECTORY, tree))
        forger.commit(tree)
    deep = "/".join("ab" * 20)
    product.restore(f"latest:/source/{deep}", room / "target")
    assert (room / "target" / "file").read_bytes() == b"file"


def test_content_that_does_not_fit_its_file_is_damage(product, room):
    """Of a file whose chunks are more or less than its size nothing gets its name; one that claims to be huge fails."""
    with Forger(product) as forger:
        good, short = forger.chunk(b"good"), forger.chunk(b"short")
        rows = [(b"huge", 1 << 62, short), (b"long", 3, good), (b"none", 5, short), (b"short", 4096, short)]
        leaf = Leaf(
            names=b"".join(name + b"\0" for name, *_ in rows),
            meta=b"".join(META.pack(FILE, 0, 0, 0, size, TIME_NS, 0) for _, size, _ in rows),
            content=b"".join(ids for *_, ids in rows),
        )
        tree = put_tree(forger._session.sink, leaf, forger._repo.ring.name_order)
        forger.commit(tree)
    result = product.restore("latest:/source", room / "target", "--no-space-check", expected=4)
    assert result["failed"] == 3
    assert os.listdir(room / "target") == ["none"]
    assert leftovers(room / "target") == []
    ran = product.run("restore", "latest:/source", room / "other", expected=None)
    assert ran.status in {1, 4}
    assert Mark.NONE == 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("more", [(), ("--delete",), ("--in-place", "--verify")], ids=["plain", "delete", "in-place"])
def test_links_in_a_target_are_not_followed(product, room, outside, level, policy, more):
    """A link that somebody planted at any level of a target, to a directory or a file, leads nowhere."""
    source, target = room / "source", outside.parent / "target"
    (source / "folder" / "folder" / "folder").mkdir(parents=True)
    (source / "folder" / "folder" / "folder" / "file").write_bytes(data(2 << 20))
    (source / "folder" / "folder" / "file").write_bytes(b"restored")
    product.snapshot(source)
    parts = ["folder", "folder", "folder", "file"]
    at = target.joinpath(*parts[: level + 1])
    at.parent.mkdir(parents=True)
    os.symlink(outside / "file" if level == 3 else outside, at)
    os.symlink(outside, at.parent / "added")
    check = untouched(outside)
    ran = product.run("restore", f"latest:{source}", target, "--overwrite", policy, *more, "--json", expected=None)
    assert ran.status in {0, 3}, ran.err
    check()
    if policy in {"always", "if-changed"}:
        assert (target.joinpath(*parts)).read_bytes() == data(2 << 20)
        assert not at.is_symlink()
    if policy == "never":
        assert at.is_symlink()
    assert (at.parent / "added").is_symlink() == (not more or more[0] != "--delete")


def test_target_that_is_swapped_under_the_run_leads_nowhere(product, room, outside):
    """Directories of a target that become links while they are written to take nothing outside of it."""
    source, target = room / "source", outside.parent / "target"
    for folder in ("a", "a/b", "a/b/c"):
        (source / folder).mkdir(parents=True, exist_ok=True)
        for number in range(30):
            (source / folder / f"{number:02d}").write_bytes(data(2000, number))
        (source / folder / "long").write_bytes(data(2 << 20))
        os.link(source / folder / "00", source / folder / "linked")
        os.mkfifo(source / folder / "fifo")
    product.snapshot(source)
    for folder in ("b", "b/c", "c"):
        (outside / folder).mkdir(exist_ok=True)
    check = untouched(outside)
    over = threading.Event()
    swapped = 0

    def swap():
        nonlocal swapped
        while not over.is_set():
            for folder in ("a/b/c", "a/b", "a"):
                path, away = target / folder, target / f"{folder}.away"
                try:
                    path.rename(away)
                    os.symlink(outside, path)
                    swapped += 1
                    over.wait(0.001)
                    path.unlink()
                    away.rename(path)
                except OSError:
                    pass
                over.wait(0.0005)

    thread = threading.Thread(target=swap)
    thread.start()
    statuses = set()
    try:
        for number in range(12):
            more = [(), ("--delete",), ("--in-place", "--overwrite", "always"), ("--verify",)][number % 4]
            ran = product.run("restore", f"latest:{source}", target, *more, "--json", expected=None)
            assert "should not have happened" not in ran.err, ran.err
            statuses.add(ran.status)
    finally:
        over.set()
        thread.join()
    check()
    assert swapped
    assert statuses <= {0, 1, 3}


def test_source_that_changes_all_the_time(product, room):
    """Of a tree that is written to while it is backed up, each file comes back as it was at some moment."""
    source = room / "source"
    source.mkdir()
    over = threading.Event()

    def content(version):
        return b"%08d\n" % version * 3000

    def write():
        version = 0
        while not over.is_set():
            version += 1
            name = source / f"{version % 40:02d}"
            fresh = source / f"new {version % 7}"
            fresh.write_bytes(content(version))
            fresh.rename(name)
            folder = source / f"folder {version % 5}"
            if folder.exists():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
            else:
                folder.mkdir()
                (folder / "file").write_bytes(content(version))
            over.wait(0.0005)

    (source / "grows").write_bytes(b"")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        statuses = {product.run("snapshot", source, expected=None).status for _ in range(8)}
    finally:
        over.set()
        thread.join()
    assert statuses <= {0, 3}
    for number, row in enumerate(product.run("snapshots", "--json").json["snapshots"]):
        target = room / f"target {number}"
        name = row["id"] if "id" in row else row["snapshot"]
        result = product.restore(f"{name[:16]}:{source}", target, expected=None)
        for failed in result["failures"]:
            assert "could not be read" in failed["reason"], failed
        for path in Path(target).glob("[0-9]*"):
            raw = path.read_bytes()
            assert raw == content(int(raw[:8])), path
