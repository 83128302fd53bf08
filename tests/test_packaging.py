"""What is shipped: one wheel for every CPython from 3.11 on, and a package that works without a compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import respaldo

CHECKOUT = Path(__file__).parent.parent
SHIPPED = ("pyproject.toml", "setup.py", "MANIFEST.in", "LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")

has_setup = pytest.mark.skipif(not (CHECKOUT / "setup.py").exists(), reason="no setup.py: no native kernel to ship")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copies what is built from, without anything built: builds leave traces that later ones would ship."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in SHIPPED:
        if (CHECKOUT / name).exists():
            shutil.copy(CHECKOUT / name, copy)
    left_out = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    shutil.copytree(CHECKOUT / "src", copy / "src", ignore=left_out)
    return copy


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESPALDO_", "PYTHON"))}
    return kept | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"} | changes


def build_wheel(checkout: Path, **changes: str) -> Path:
    dist = checkout / "dist"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", dist, checkout],
        env=environment(**changes),
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = dist.glob("*.whl")
    return wheel


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def import_kernel(wheel: Path, target: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Imports the kernel from an unpacked wheel, and nothing of the checkout."""
    shutil.unpack_archive(wheel, target, "zip")
    return subprocess.run(
        [sys.executable, "-P", "-c", "import respaldo.kernel as k; print(k.__file__)"],
        env=environment(PYTHONPATH=str(target), **changes),
        cwd=target,
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@has_setup
@pytest.mark.skipif(shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None, reason="no C compiler")
def test_wheel_with_native_kernel_is_for_every_python_from_3_11_on(checkout, tmp_path):
    """One wheel per platform, tagged with the stable ABI, holds the native kernel and the marker of types."""
    wheel = build_wheel(checkout)
    names = names_in(wheel)

    assert "-cp311-abi3-" in wheel.name
    assert "respaldo/py.typed" in names
    native = [name for name in names if name.endswith(".so")]
    assert len(native) == 1
    assert native[0].startswith("respaldo/kernel/")
    assert native[0].endswith(".abi3.so")

    found = import_kernel(wheel, tmp_path / "target", RESPALDO_REQUIRE_KERNEL="1")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(str(tmp_path / "target"))


@pytest.mark.slow
@has_setup
def test_installation_without_a_compiler_falls_back_to_the_reference(checkout, tmp_path):
    """A machine without a compiler gets the Python reference, and an error only when it asked for the kernel."""
    wheel = build_wheel(checkout, CC="/bin/false")

    assert not [name for name in names_in(wheel) if name.endswith(".so")]

    found = import_kernel(wheel, tmp_path / "target")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(str(tmp_path / "target"))

    refused = import_kernel(wheel, tmp_path / "refused", RESPALDO_REQUIRE_KERNEL="1")
    assert refused.returncode != 0
    assert "ImportError" in refused.stderr


@pytest.mark.slow
def test_source_distribution_holds_what_a_build_needs(checkout):
    """The source distribution carries the kernel's C, the licence and the marker of types."""
    subprocess.run(
        [sys.executable, "-c", "from setuptools.build_meta import build_sdist; build_sdist('dist')"],
        cwd=checkout,
        env=environment(),
        check=True,
        capture_output=True,
    )
    (sdist,) = (checkout / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}

    sources = {path.relative_to(checkout).as_posix() for path in (checkout / "src").rglob("*.[ch]")}
    assert held >= sources | {"LICENSE", "pyproject.toml", "src/respaldo/py.typed"}


def test_version_is_said_in_one_voice():
    """The package and its metadata name the same version."""
    metadata = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))
    assert metadata["project"]["version"] == respaldo.__version__
