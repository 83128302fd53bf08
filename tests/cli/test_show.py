from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.cli import show
from respaldo.cli.values import parse_size


@given(st.binary())
def test_shown_is_printable(name):
    """Whatever bytes a name has, nothing that a terminal obeys is left."""
    assert show.shown(name).isprintable()


@pytest.mark.parametrize("name", ["plain", "año", "日本", "a b"])
def test_shown_leaves_names_alone(name):
    """Names that people can read are shown as they are."""
    assert show.shown(name.encode()) == name


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_size_is_binary(number, text):
    """Sizes are in binary units."""
    assert show.size(number) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("5B", 5),
        ("5K", 5 << 10),
        ("5KiB", 5 << 10),
        ("5kb", 5000),
        ("1.5M", 3 << 19),
        ("5MiB", 5 << 20),
        ("5MB", 5_000_000),
        ("2 GiB", 2 << 30),
        ("2T", 2 << 40),
        ("", None),
        ("M", None),
        ("5iB", None),
        ("-5", None),
        ("5X", None),
        ("1e9", None),
    ],
)
def test_parse_size(text, number):
    """5M and 5MiB are binary, 5MB is decimal, anything else is none."""
    assert parse_size(text) == number


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25 s"),
        (42, "42 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
        (9.998, "10 s"),
        (59.7, "1 min 00 s"),
        (899.9, "15 min 00 s"),
        (3599.8, "1 h 00 min"),
    ],
)
def test_duration(seconds, text):
    """Durations are as exact as they are worth."""
    assert show.duration(int(seconds * 1e9)) == text


def test_impossible_times_are_shown():
    """A time beyond the calendar is no reason to fail."""
    assert show.local_time(1 << 62).startswith("2116")
    assert show.iso_time(10**30).startswith("1970")
    assert show.iso_time(-1).startswith("1969-12-31T23:59:59.999999")


def test_table_is_aligned():
    """Columns are as wide as their widest cell, and no line ends in blanks."""
    lines = show.table(("A", "N"), [("long", "1"), ("x", "22")], right=(1,)).split("\n")
    assert lines == ["A      N", "long   1", "x     22"]


def test_lines_before_one_that_fails_are_written(capsys):
    """Lines go out some dozens at once; what was found before the search failed is shown all the same."""

    def lines():
        yield from map(str, range(100))
        raise ValueError

    with pytest.raises(ValueError):
        show.out_each(lines())
    assert capsys.readouterr().out == "".join(f"{number}\n" for number in range(100))


def test_first_line_is_handed_over_at_once(tmp_path, monkeypatch):
    """Whoever reads a pipe sees the first line while the others are still looked for."""
    path = tmp_path / "out"
    with path.open("w", encoding="ascii") as out:
        monkeypatch.setattr("sys.stdout", out)
        seen = []

        def lines():
            yield "one"
            seen.append(path.read_text("ascii"))
            yield "two"

        show.out_each(lines())
    assert seen == ["one\n"]
    assert path.read_text("ascii") == "one\ntwo\n"
