"""What every test runs under: Hypothesis profiles, an environment of its own, and an account of what was skipped."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.syncing import FsyncElsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

# Examples are counted, not timed: the machine that checks may be busy.
hypothesis.settings.register_profile("dev", max_examples=50, deadline=None)
# Repeatable, so that a red run is the change's doing; "long" is what looks for news.
hypothesis.settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile(
    "long",
    max_examples=2000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Asked for from outside on purpose: whether a missing C kernel is an error.
KEPT = frozenset({"RESPALDO_REQUIRE_KERNEL"})

homes = pytest.StashKey[str]()
environment = pytest.StashKey[pytest.MonkeyPatch]()


def pytest_configure(config: pytest.Config) -> None:
    """Gives the session, and every process it starts, a home of its own: nobody's cache or settings leak in or out."""
    home = tempfile.mkdtemp(prefix="respaldo-home-")
    patch = pytest.MonkeyPatch()
    config.stash[homes] = home
    config.stash[environment] = patch
    for name in list(os.environ):
        if name.startswith("RESPALDO_") and name not in KEPT:
            patch.delenv(name)
    patch.setenv("HOME", home)
    for name, folder in (
        ("XDG_CACHE_HOME", ".cache"),
        ("XDG_CONFIG_HOME", ".config"),
        ("XDG_DATA_HOME", ".local/share"),
        ("XDG_STATE_HOME", ".local/state"),
        ("XDG_RUNTIME_DIR", ".run"),
    ):
        place = Path(home, folder)
        place.mkdir(parents=True, mode=0o700)
        patch.setenv(name, str(place))
    patch.setattr(os, "fsync", FsyncElsewhere(home))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Puts the environment back."""
    config.stash[environment].undo()
    shutil.rmtree(config.stash[homes], ignore_errors=True)


def has_native_kernel() -> bool:
    """Whether the C kernel is built, by looking for its file: an import here would hide errors of the kernel's own."""
    folder = Path(__file__).parent.parent / "src" / "respaldo" / "kernel"
    return any(
        file.name.endswith(suffix) for file in folder.iterdir() for suffix in importlib.machinery.EXTENSION_SUFFIXES
    )


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Says what decides which tests can run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(session.config, "workerinput"):
        return
    who = "root" if os.geteuid() == 0 else f"an ordinary user (uid {os.geteuid()})"
    kernel = "native kernel" if has_native_kernel() else "no native kernel: its Python reference"
    profile = session.config.getoption("--hypothesis-profile", None) or ("ci" if os.environ.get("CI") else "dev")
    reporter.write_line(f"respaldo: as {who}; {kernel}; Hypothesis profile {profile}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what only root can do for everyone else."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Lists what was skipped and why: a check that did not happen is never silent."""
    by_reason: defaultdict[str, list[str]] = defaultdict(list)
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        by_reason[reason.removeprefix("Skipped: ")].append(report.nodeid)
    if not by_reason:
        return
    terminalreporter.section(f"skipped: {sum(map(len, by_reason.values()))}")
    for reason, tests in sorted(by_reason.items()):
        terminalreporter.write_line(f"{reason}:")
        for test in sorted(tests):
            terminalreporter.write_line(f"    {test}")


@pytest.fixture(autouse=True)
def _outside_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Restores the working directory, which a test of relative paths changes."""
    before = Path.cwd()
    yield
    if Path.cwd() != before:
        os.chdir(before)
