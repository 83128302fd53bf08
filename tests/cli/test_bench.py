from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import time
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

pytestmark = pytest.mark.usefixtures("repository")
SMALL = ("--quick", "--size", "1MiB", "--sample", "1MiB")
NAMES = ["single files", "restore", "verify", "snapshot", "snapshot, unchanged"]


@pytest.fixture
def saved(cli, repository, tree):
    """Has a tree of some 3.4 MB backed up: more than a measurement may restore."""
    for number in range(30):
        (tree / "docs" / f"{number}").write_bytes(os.urandom(100_000))
    return cli("snapshot", tree, "--json").json["snapshot"]


@pytest.fixture
def scratch(place):
    """Has a directory made for what is restored."""
    (place / "scratch").mkdir()
    return place / "scratch"


@pytest.fixture
def bench(cli, scratch):
    """Measures a little."""
    return lambda *words, **more: cli("bench", "--directory", scratch, *SMALL, *words, **more)


def state(repository) -> dict[str, tuple[int, str]]:
    """Says what all files of a repository are, and when they were changed."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "")
        for path in [repository, *repository.rglob("*")]
    }


def leftovers(place) -> list[str]:
    return [str(path) for path in place.rglob("*") if path.name.startswith(".respaldo-bench-")]


@pytest.mark.usefixtures("saved")
def test_bench_measures_everything(bench, place):
    """Disk, stages and runs have a speed each, shares add up to one, files have a wait; nothing is left behind."""
    done = bench("--json").json
    assert [item["name"] for item in done["disk"]][:2] == ["read", "write"]
    assert [item["name"] for item in done["restoring"]] == ["read", "open", "hash", "write"]  # it does not compress
    assert [item["name"] for item in done["storing"]] == ["cut", "hash", "compress", "seal", "write"]
    assert [item["name"] for item in done["runs"]] == NAMES
    for group in ("disk", "restoring", "storing", "runs"):
        for item in done[group]:
            assert item["bytes"] > 0
            assert item["bytes_per_s"] == pytest.approx(item["bytes"] / item["duration_s"], rel=0.01)
    for group in ("restoring", "storing"):
        assert sum(item["share"] for item in done[group]) == pytest.approx(1, abs=0.01)
        assert all(item["of_disk"] > 0 for item in done[group])
    assert done["own_data"] is True
    assert done["first_byte"]["files"] == 8
    assert 0 < done["first_byte"]["median_s"] <= done["first_byte"]["worst_s"]
    assert (done["damaged"], done["skipped"]) == (0, None)
    assert leftovers(place) == []


@pytest.mark.usefixtures("saved")
def test_bench_restores_no_more_than_asked_for(bench):
    """Of a snapshot that is larger, about as much is restored as was asked for, and never more."""
    runs = {item["name"]: item for item in bench("--json").json["runs"]}
    assert 800_000 < runs["restore"]["bytes"] <= 1 << 20
    assert 0 < runs["single files"]["bytes"] <= 1 << 20
    assert runs["snapshot"]["bytes"] == 1 << 20


@pytest.mark.usefixtures("saved")
def test_bench_changes_nothing(bench, repository, tree):
    """The repository is the same afterwards, byte for byte and time for time."""
    before = state(repository)
    bench()
    bench(f"latest:{tree}/docs")
    assert state(repository) == before


@pytest.mark.usefixtures("saved")
def test_bench_of_a_part(bench, tree):
    """A directory or a file is measured where one is named; a path that is not there is an error."""
    runs = {item["name"]: item for item in bench(f"latest:{tree}/docs/a.txt", "--json").json["runs"]}
    assert (runs["restore"]["bytes"], runs["restore"]["files"]) == (600, 1)
    bench(f"latest:{tree}/none", expected=1)


def test_bench_of_an_empty_repository(bench, place):
    """Without content the sample is made up, and says so; storing is measured all the same."""
    done = bench("--json").json
    assert done["own_data"] is False
    assert [item["name"] for item in done["runs"]] == NAMES[3:]
    assert done["restoring"] == []
    assert "no snapshot yet" in done["skipped"]
    assert "made up" in bench().out
    assert leftovers(place) == []


@pytest.mark.usefixtures("saved")
def test_bench_without_runs(bench):
    """--no-runs leaves disk and stages."""
    done = bench("--no-runs", "--json").json
    assert done["runs"] == []
    assert done["first_byte"] is None
    assert done["storing"]


@pytest.mark.usefixtures("saved")
def test_bench_writes_beside_the_repository(bench, place, monkeypatch):
    """The scratch repository lies beside the repository while it is measured, not in it."""
    from respaldo.api.bench import runs

    seen = []
    storing = runs.Runs.storing
    monkeypatch.setattr(runs.Runs, "storing", lambda self: seen.append(self._other) or storing(self))
    bench()
    assert [os.path.dirname(path) for path in seen] == [str(place)]


@pytest.mark.usefixtures("saved")
def test_bench_without_room_does_nothing(bench, place, monkeypatch):
    """Too little room is an error before anything is written, with what to do."""
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=60 << 20))
    ran = bench(expected=1)
    assert "60 MiB are free" in ran.err
    assert "--size" in ran.err
    assert leftovers(place) == []


@pytest.mark.usefixtures("saved")
def test_bench_does_not_write_into_the_repository(cli, repository, place):
    """A scratch directory in the repository is refused, also where a link leads there."""
    before = state(repository)
    (place / "link").symlink_to(repository / "packs")
    for directory in (repository, repository / "packs", place / "link"):
        assert "lies in the repository" in cli("bench", "--directory", directory, *SMALL, expected=2).err
    assert state(repository) == before


@pytest.mark.usefixtures("saved")
def test_bench_cut_off_leaves_nothing(spawn, scratch, place, cli):
    """Ctrl-C ends it with status 130, and takes away what was restored."""
    process = spawn("bench", "--directory", scratch, "--size", "200MiB", "--sample", "200MiB")
    while not leftovers(scratch):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert leftovers(place) == []
    cli("verify")


@pytest.mark.usefixtures("saved")
def test_bench_removes_what_a_killed_run_left(bench, spawn, scratch, place):
    """What a killed run left goes with the next one; what a living one holds stays."""
    process = spawn("bench", "--directory", scratch, "--size", "200MiB", "--sample", "200MiB")
    while not any(os.scandir(path) for path in leftovers(scratch)):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert leftovers(place)
    held = scratch / ".respaldo-bench-held"
    held.mkdir()
    fd = os.open(held, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    bench()
    assert leftovers(place) == [str(held)]
    os.close(fd)
    bench()
    assert leftovers(place) == []


def test_bench_spares_what_is_no_scratch(bench, scratch):
    """A link and a file of such a name are not followed and not removed."""
    (scratch / "mine").mkdir()
    (scratch / "mine" / "file").write_text("mine")
    (scratch / ".respaldo-bench-link").symlink_to("mine")
    (scratch / ".respaldo-bench-file").write_text("mine")
    bench()
    assert (scratch / "mine" / "file").read_text() == "mine"
    assert {path.name for path in scratch.iterdir()} == {"mine", ".respaldo-bench-link", ".respaldo-bench-file"}


@pytest.mark.usefixtures("saved")
def test_bench_beside_an_earlier_one(bench, place):
    """Speeds stand beside those of an earlier measurement, with what was not the same then."""
    earlier = bench("--json").json
    for item in earlier["storing"]:
        item["bytes_per_s"] = 1.0
    earlier["first_byte"]["median_s"] = 1e6
    (place / "earlier.json").write_text(json.dumps(earlier))
    now = bench("--json", "--compare", place / "earlier.json").json
    rows = {row["name"]: row for row in now["compared"]}
    assert set(rows) >= {"disk: read", "restoring: open", "storing: cut", "runs: restore", "opening", "first byte"}
    speed = next(item["bytes_per_s"] for item in now["storing"] if item["name"] == "cut")
    assert (rows["storing: cut"]["then"], rows["storing: cut"]["now"]) == (1.0, speed)
    assert rows["storing: cut"]["faster"] == pytest.approx(speed)
    assert rows["first byte"]["faster"] > 1000
    assert now["unlike"] == []
    assert "restoring: open" in bench("--compare", place / "earlier.json").out
    earlier["cpus"] = 1000
    (place / "earlier.json").write_text(json.dumps(earlier))
    assert bench("--json", "--compare", place / "earlier.json").json["unlike"] == ["cpus"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "{}",
        '{"runs": 5, "disk": [7, null]}',
        '{"runs": [{"name": "restore", "bytes_per_s": NaN}]}',
        '{"runs": [{"name": "restore", "bytes_per_s": "fast"}]}',
        "[" * 100_000,
        '{"runs": [{"name": "restore", "bytes_per_s": 1}]}' + " " * (1 << 20),
    ],
)
def test_bench_refuses_what_is_no_measurement(bench, place, text):
    """A file that is no measurement is an error before anything is measured."""
    (place / "earlier.json").write_text(text)
    ran = bench("--compare", place / "earlier.json", expected=2)
    assert "is no measurement" in ran.err


@pytest.mark.usefixtures("saved")
def test_bench_draws_a_chart(bench, place):
    """The chart is SVG with every stage and run in it; a file that exists is not overwritten."""
    ran = bench("--chart", place / "chart.svg")
    assert "█" in ran.out
    texts = [item.text for item in ET.parse(place / "chart.svg").iter() if item.text]  # noqa: S314 - ours
    assert {*NAMES, "disk: write"} <= set(texts)
    assert any(text.startswith("compress ") for text in texts)
    before = (place / "chart.svg").read_bytes()
    assert "exists" in bench("--chart", place / "chart.svg", expected=2).err
    assert (place / "chart.svg").read_bytes() == before
    assert "no file can be made" in bench("--chart", place / "none" / "chart.svg", expected=2).err


@pytest.mark.usefixtures("saved")
def test_bench_of_damage_says_so(bench, repository, place):
    """Damage does not end a measurement; it is counted, and the status is 4."""
    for pack in (repository / "packs").rglob("*"):
        if pack.is_file() and pack.stat().st_size > 1 << 20:
            with pack.open("r+b") as file:
                for at in range(0, 2_000_000, 50_000):
                    file.seek(at)
                    file.write(b"damage")
    ran = bench("--json", expected=4)
    assert ran.json["damaged"] > 0
    assert "damaged" in ran.err
    assert leftovers(place) == []


def test_bench_needs_a_size(bench):
    """A size that is none, or too small, is wrong usage."""
    bench("--size", "5", expected=2)
    bench("--sample", "much", expected=2)
