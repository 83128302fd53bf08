"""Rules, held against git's own reading of the same patterns."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from respaldo.fs.match import CACHE_TAG, Rules, is_cache_tag, read_rules

TREE = ["a", "b.o", "a.b", "ab", "d/a", "d/b.o", "d/e/a", "d/e/f/a.b", "e/d/a", "e/f/b.o", "[a]", "a b", "!a", "#a"]
DIRECTORIES = ["d", "d/e", "d/e/f", "e", "e/d", "e/f", "d/ab", "e/a.b"]


def decide(patterns, path, is_dir=False):
    return Rules(patterns).excluded(os.fsencode(path), is_dir)


@pytest.mark.parametrize(
    ("patterns", "path", "is_dir", "excluded"),
    [
        (["*.o"], "deep/down/x.o", False, True),
        (["*.o"], "x.oo", False, False),
        (["/x"], "x", False, True),
        (["/x"], "y/x", False, False),
        (["y/x"], "z/y/x", False, False),
        (["x/"], "x", False, False),
        (["x/"], "x", True, True),
        (["x/"], "x/inside", False, True),
        (["*.o", "!keep.o"], "keep.o", False, False),
        (["!keep.o", "*.o"], "keep.o", False, True),
        (["x/", "!x/keep"], "x/keep", False, True),
        (["x/*", "!x/keep"], "x/keep", False, False),
        (["*.o", "!x"], "x/y.o", False, True),
        (["**/x"], "x", False, True),
        (["**/x"], "a/b/x", False, True),
        (["x/**"], "x", True, False),
        (["x/**"], "x/y/z", False, True),
        (["a/**/b"], "a/b", False, True),
        (["a/**/b"], "a/1/2/b", False, True),
        (["a/**/b"], "ab", False, False),
        (["a*b"], "a/b", False, False),
        (["a?b"], "a/b", False, False),
        (["a[/]b"], "a/b", False, False),
        (["a[!x]b"], "a/b", False, False),
        (["x[[:digit:]]"], "x7", False, True),
        (["x[[:nonsense:]]"], "x7", False, False),
        (["[x"], "[x", False, False),
        (["\\[x"], "[x", False, True),
        (["x\\"], "x\\", False, False),
        (["\\!x"], "!x", False, True),
        (["\\#x"], "#x", False, True),
        (["x  "], "x", False, True),
        (["x\\ "], "x ", False, True),
        (["/"], "x", False, False),
        ([""], "x", False, False),
        (["*"], "line\nbreak", False, True),
        (["*k"], "line\nbreak", False, True),
        (["x"], "x\n", False, False),
        (["ñ?"], "ñá", False, True),
    ],
)
def test_rules_read_as_in_git(patterns, path, is_dir, excluded):
    """Each rule of gitignore's manual, and each corner that its readers get wrong."""
    assert decide(patterns, path, is_dir) is excluded


def test_rules_match_names_that_are_not_utf8():
    """A name of arbitrary bytes is matched by wildcards, and by itself as the shell hands it over."""
    rules = Rules(["*.o", os.fsdecode(b"odd\xff")])
    assert rules.excluded(b"\xfe\xff.o", False)
    assert rules.excluded(b"deep/odd\xff", False)
    assert not rules.excluded(b"odd\xfe", False)
    assert rules.kept(b"\xff", [b"\xc3", b"\xa9.o", b"odd\xff"], [False] * 3) == [True, False, False]


def test_kept_is_none_where_everything_is():
    """The walker need not look at a list where nothing was left out."""
    assert Rules().kept(b"", [b"a"], [False]) is None
    assert Rules(["*.o"]).kept(b"", [b"a"], [False]) is None
    assert Rules(["*.o", "!*.o"]).kept(b"", [b"a.o"], [False]) is None
    assert Rules(["x/"]).kept(b"", [b"x"], [False]) is None
    assert Rules(["*.o"]).kept(b"", [], []) is None


def test_rules_are_values():
    """Two lists of the same patterns are the same rules."""
    assert Rules(["a"]) == Rules(["a"]) != Rules(["b"])
    assert hash(Rules(["a"])) == hash(Rules(["a"]))
    assert not Rules(["", "/"])


pieces = st.sampled_from(
    [
        "a",
        "b",
        "d",
        "e",
        "f",
        ".",
        "*",
        "**",
        "?",
        "/",
        "/",
        "!",
        "[a]",
        "[!a]",
        "[a-c]",
        "[",
        "]",
        "\\",
        " ",
        "#",
        ".o",
    ]
)
patterns_of_pieces = st.lists(st.lists(pieces, min_size=1, max_size=6).map("".join), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def git_tree(tmp_path_factory):
    if not shutil.which("git"):
        pytest.skip("needs git")
    root = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", root], check=True)
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True, exist_ok=True)
    for path in TREE:
        (root / path).touch()
    return root


@settings(max_examples=150)
@given(patterns=patterns_of_pieces)
def test_rules_agree_with_git(git_tree, patterns):
    """Whatever the patterns, git leaves out the same files and directories."""
    # Two stars beside a letter are one, says the manual; git's shortcuts make exceptions.
    assume(not any(re.search(r"[^/!]\*\*|\*\*[^/]|\*\*\*", pattern) for pattern in patterns))
    (git_tree / ".gitignore").write_text("\n".join(patterns) + "\n")
    paths = TREE + DIRECTORIES
    result = subprocess.run(
        ["git", "-C", git_tree, "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(paths).encode(),
        capture_output=True,
        check=False,
    )
    assert result.returncode in {0, 1}, result.stderr
    ignored = set(result.stdout.decode().split("\0")) - {""}
    rules = Rules(read_rules("\n".join(patterns).encode()))
    assert {path for path in paths if rules.excluded(path.encode(), path in DIRECTORIES)} == ignored


@given(patterns=patterns_of_pieces)
def test_kept_agrees_with_excluded(patterns):
    """Asking for a directory at once gives what asking for each path gives, below directories that are kept."""
    rules = Rules(patterns)
    for directory in ["", *DIRECTORIES]:
        if directory and rules.excluded(directory.encode(), True):
            continue
        below = [p for p in TREE + DIRECTORIES if os.path.dirname(p) == directory]
        names = [os.path.basename(p).encode() for p in below]
        kept = rules.kept(directory.encode(), names, [p in DIRECTORIES for p in below])
        each = [not rules.excluded(p.encode(), p in DIRECTORIES) for p in below]
        assert (kept or [True] * len(names)) == each


def test_kept_is_fast():
    """80,000 names in directories of fifteen pass forty patterns in well under a second."""
    rules = Rules([*(f"*.{letter}" for letter in "abcdefghijklmnopqrst"), "/proc", "build/", "__pycache__", *"uvwxyz"])
    names = [b"some_name_%d.txt" % number for number in range(15)]
    kinds = [False] * 15
    start = time.process_time()
    for number in range(80_000 // 15):
        assert rules.kept(b"dir/%d" % number, names, kinds) is None
    assert time.process_time() - start < 1


def test_rules_do_not_explode():
    """A pattern of many stars fails in reasonable time."""
    start = time.process_time()
    assert not decide(["*" * 60 + "x"], "a" * 255)
    assert not decide(["**/" * 12 + "x"], "a/" * 120 + "b")
    assert not decide(["*a" * 12 + "*b"], "a" * 255)
    assert not decide(["**/a*/" * 8 + "b/c"], "a/" * 120 + "b")
    assert decide(["*a" * 12 + "*b"], "a" * 254 + "b")
    assert decide(["**/a*/" * 8 + "b"], "a/" * 120 + "b")
    assert time.process_time() - start < 5


def test_first_place_of_what_stands_between_stars_is_enough():
    """What looks like a match too early is none too late."""
    assert decide(["*ab*abc"], "xabababc")
    assert decide(["*a?c*c"], "abcabdc")
    assert decide(["**/a/**/b/c"], "x/a/b/a/b/b/c")
    assert decide(["**/a*/b/**/c"], "a1/a2/b/c")
    assert not decide(["*ab*ab"], "xab")
    assert not decide(["*a/*b*b"], "a/b")


def test_read_rules_leaves_out_comments_and_blanks():
    """A file of patterns may have comments, blank lines, Windows line ends and a byte-order mark."""
    assert read_rules(b"\xef\xbb\xbf*.o\r\n# no\n\n   \n\\#yes\n!x") == ["*.o", "\\#yes", "!x"]
    assert read_rules(b"odd\xff\n") == ["odd\udcff"]


def test_is_cache_tag_needs_the_signature():
    """A file that is only called CACHEDIR.TAG marks nothing."""
    assert is_cache_tag(CACHE_TAG + b"\n# comment")
    assert not is_cache_tag(CACHE_TAG[:-1])
