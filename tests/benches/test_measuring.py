"""What `make bench` says is what happened."""

from __future__ import annotations

import shutil
import sys
from xml.dom import minidom

import pytest

from benches.chart import draw
from benches.course import COMPRESS, Results, Sample, compare, rotated
from benches.figures import figures
from benches.measure import Command, CommandFailed, Usage, pipeline, run

MIB = 1 << 20


def _sample(tool: str, wall_s: float, *, run: int = 0, step: str = "fresh", stored: int = 0) -> Sample:
    usage = Usage(wall_s=wall_s, cpu_s=wall_s, anonymous_bytes=run, resident_bytes=None)
    limit = tool == COMPRESS
    return Sample(data="set", step=step, tool=tool, run=run, usage=usage, stored_bytes=stored, is_limit=limit)


def test_run_counts_memory_and_cpu_of_a_grandchild():
    """What a child of a child takes is the command's."""
    child = (
        "import time; a = bytearray(b'x') * (120 << 20); t = time.process_time()\n"
        "while time.process_time() < t + 0.3: pass\ntime.sleep(0.3)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    usage = run(Command(words=[sys.executable, "-c", parent]))
    assert usage.anonymous_bytes is not None
    assert 120 * MIB < usage.anonymous_bytes < 240 * MIB
    assert usage.resident_bytes is not None
    assert usage.resident_bytes > usage.anonymous_bytes
    assert usage.cpu_s > 0.3


def test_run_says_what_failed():
    """The error has the status and what the command printed, also where only a part of a pipe failed."""
    with pytest.raises(CommandFailed, match=r"status 3\nbroken"):
        run(pipeline("(echo broken >&2; exit 3) | cat"))


def test_run_ends_what_takes_too_long():
    """A command that hangs is killed with its children."""
    with pytest.raises(CommandFailed, match="took more than"):
        run(pipeline("sleep 1000 | cat"), limit_s=0.2)


def test_ratio_is_taken_within_each_run():
    """A run that was slow throughout does not bend the ratio."""
    results = Results()
    for number, slow in enumerate((1.0, 10.0, 1.0)):
        results.samples += [_sample(COMPRESS, 2 * slow, run=number), _sample("tool", 3 * slow, run=number)]
    limit, tool = figures(results)
    assert limit.is_limit
    assert limit.ratio is None
    assert tool.ratio == 1.5
    assert tool.wall_s == 3
    assert tool.anonymous_bytes == 2


def test_ratio_takes_the_limit_that_was_measured_last():
    """Where tools go one after the other, each has a limit of its own."""
    results = Results()
    results.samples += [_sample(COMPRESS, 1), _sample("a", 2), _sample(COMPRESS, 10), _sample("b", 20)]
    assert {figure.tool: figure.ratio for figure in figures(results) if not figure.is_limit} == {"a": 2, "b": 2}


def test_added_is_the_difference_to_the_step_before():
    """The first backup adds all that there is."""
    results = Results()
    for step, stored in (("fresh", 100), ("again", 101), ("next", 111)):
        results.samples.append(_sample("tool", 1, step=step, stored=stored))
    assert [figure.added_bytes for figure in figures(results)] == [100, 1, 10]


def test_chart_is_sound_and_says_what_is_missing():
    """It is XML, escapes what it is given, and has a line for a tool that did not finish a step."""
    results = Results()
    results.samples += [_sample(COMPRESS, 1), _sample("respaldo", 2), _sample("<odd>", 4)]
    results.samples.append(_sample("respaldo", 2, step="one file"))
    text = draw(figures(results), "set", "a < b")
    assert minidom.parseString(text).documentElement.tagName == "svg"  # noqa: S318 - it is our own
    assert "2.0 ×" in text
    assert "&lt;odd&gt;: not measured" in text


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_compare_finds_what_differs(tmp_path):
    """Equal trees differ in nothing; another byte of the same length and time is found."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert compare(f"{tmp_path}/a/", f"{tmp_path}/b/")
    assert compare(f"{tmp_path}/a/", f"{tmp_path}/a/") == ""


def test_rotated_begins_with_another_one():
    """Every tool is the first in its turn."""
    assert [rotated("abc", number)[0] for number in range(4)] == ["a", "b", "c", "a"]
