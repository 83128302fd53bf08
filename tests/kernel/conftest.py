"""What the tests of the kernel share: both kernels, a directory, and system calls that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from respaldo import kernel
from respaldo.kernel import reference
from tests.kernel.scenes import Folder

NATIVE = pytest.param(
    "native", marks=pytest.mark.skipif(not kernel.NATIVE, reason=f"no native kernel: {kernel.WHY_NOT_NATIVE}")
)


def load(which: str) -> ModuleType:
    return kernel if which == "native" else reference


@pytest.fixture(params=[NATIVE, "reference"])
def verbs(request: pytest.FixtureRequest) -> ModuleType:
    """Gives each kernel in turn."""
    return load(request.param)


@pytest.fixture
def native() -> ModuleType:
    """Gives the C kernel, to be compared with the reference."""
    if not kernel.NATIVE:
        pytest.skip(f"no native kernel: {kernel.WHY_NOT_NATIVE}")
    return kernel


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Gives an empty directory."""
    made = Folder(tmp_path / "folder")
    yield made
    os.close(made.fd)


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the library that makes system calls fail (see faults.c), to be loaded with LD_PRELOAD."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: system calls cannot be made to fail")
    built = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, source], check=True)
    return built
