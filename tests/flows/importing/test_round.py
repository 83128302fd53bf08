"""What is exported and imported again is the same tree, as far as tar can say it."""

from __future__ import annotations

import decimal
import io
import os
import stat
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Content, Entry
from respaldo.core.seams import Silent
from respaldo.flows.importing.about import parse_about
from respaldo.views.archive import about, fill
from respaldo.views.content import Contents
from respaldo.views.tar import Tar
from tests.flows.importing.tars import DIRECTORY, LINK, SYMLINK, Archive, Shop

_BYTES = st.binary(min_size=1, max_size=40).filter(lambda name: name not in {b".", b".."} and not {0, 47} & set(name))
_LONG = st.integers(60, 255).map(lambda length: b"\xff" * length)
_NAMES = st.one_of(st.sampled_from([b"a", b"b", b"c"]), _BYTES, _LONG)
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map(b"/".join)
_TIMES = st.one_of(st.integers(-(10**9), 2 * 10**9).map(decimal.Decimal), st.decimals(-1000, 1000, places=9)).map(
    lambda time: f"{time:f}"
)
_MEMBERS = st.lists(
    st.fixed_dictionaries(
        {
            "path": _PATHS,
            "kind": st.sampled_from(["file", "file", "file", "directory", "link", "pipe", "device", "sparse"]),
            "content": st.binary(max_size=3000),
            "mode": st.integers(0, 0o7777),
            "owner": st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, 3 << 21)),
            "names": st.tuples(st.sampled_from(["", "ana", "n" * 40]), st.sampled_from(["", "staff", "ñandú"])),
            "time": _TIMES,
            "target": st.one_of(_PATHS, st.binary(min_size=1, max_size=300).filter(lambda text: 0 not in text)),
            "xattr": st.dictionaries(
                st.sampled_from(["user.a", "user.%=b", "trusted.c"]), st.text(max_size=9), max_size=2
            ),
            "holes": st.lists(st.tuples(st.integers(1, 40), st.integers(1, 3)), min_size=1, max_size=4),
        }
    ),
    min_size=1,
    max_size=12,
)


def text(name: bytes) -> str:
    return os.fsdecode(name)


def archive_of(members: list[dict]) -> bytes:
    """Makes a pax archive of what was drawn."""
    archive = Archive()
    for member in members:
        pax = {"mtime": member["time"]}
        pax |= {
            "SCHILY.xattr." + key.replace("%", "%25").replace("=", "%3D"): value
            for key, value in member["xattr"].items()
        }
        fields = {
            "mode": member["mode"],
            "uid": member["owner"][0],
            "gid": member["owner"][1],
            "uname": member["names"][0],
            "gname": member["names"][1],
            "pax": pax,
        }
        name, kind, content = text(member["path"]), member["kind"], b""
        if kind == "file":
            content = member["content"]
        elif kind == "directory":
            fields["kind"] = DIRECTORY
        elif kind == "link":
            fields |= {"kind": SYMLINK, "linkname": text(member["target"])}
        elif kind == "pipe":
            fields["kind"] = b"6"
        elif kind == "device":
            fields |= {"kind": b"3", "devmajor": 7, "devminor": 9}
        else:
            extents, at = [], 0
            for hole, blocks in member["holes"]:
                at += hole * 512
                extents += [at, blocks * 512]
                content += (member["content"] or b"x").ljust(blocks * 512, b"y")[: blocks * 512]
                at += blocks * 512
            pax |= {"GNU.sparse.map": ",".join(map(str, extents)), "GNU.sparse.size": str(at + 512)}
        archive.add(name, content, **fields)
    return archive.bytes()


def exported(shop: Shop, manifest) -> bytes:
    """Exports a whole snapshot."""
    out = io.BytesIO()
    with shop.open() as repo:
        trees = TreeReader(repo.source)
        top = Entry(name=b"", mode=stat.S_IFDIR | 0o755, content=Content(ids=manifest.root))
        contents = Contents(repo.source, trees)
        archive = Tar(out.write, contents)
        archive.comment(about(manifest, b"/"))
        fill(archive, trees, contents, top, Silent())
    return out.getvalue()


@given(members=_MEMBERS)
@settings(max_examples=30)
def test_export_and_import_give_the_same_root(members):
    """A tree that came out of tar, exported and imported once more, has the same root, sources, time and words."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Shop(Path(folder))
        first = shop.take(archive_of(members), host="Móvil", label="one", tags=("t", "u"), time_ns=10**18)
        if not first.manifest.figures.files + first.manifest.figures.directories:
            return
        second = shop.take(exported(shop, first.manifest))
        assert shop.notes == []
        assert second.manifest.root == first.manifest.root
        assert second.present
        assert second.manifest.label == "one"


def test_hard_links_survive_the_round(tmp_path):
    """Groups are made of names, so that they are the same after an export."""
    shop = Shop(tmp_path)
    first = shop.take(Archive().add("d/b", b"twins").add("a", kind=LINK, linkname="d/b").add("c", b"c").bytes())
    assert shop.take(exported(shop, first.manifest)).manifest.root == first.manifest.root


def test_comments_of_others_say_nothing():
    """A comment that is none of ours, or lies, is passed over, as a whole or in part."""
    nothing = parse_about(b"")
    assert parse_about(b"0123456789abcdef") == nothing
    assert parse_about(b"[" * 100_000) == nothing
    assert parse_about(b'{"respaldo": 2, "host": "x"}') == nothing
    liar = parse_about(
        b'{"respaldo": 1, "host": 7, "path": "/a/../b", "sources": ["/ok", "../x", 5], "time_ns": true, '
        b'"tags": "no", "label": "fine", "kind": "\\ud800"}'
    )
    assert (liar.host, liar.path, liar.sources, liar.time_ns) == ("", b"", (b"/ok",), 0)
    assert (liar.tags, liar.label, liar.kind) == ((), "fine", "")
