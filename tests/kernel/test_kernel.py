"""The package around the two kernels: which one is at work, that their numbers agree, and that neither leaks."""

from __future__ import annotations

import inspect
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from respaldo import kernel
from respaldo.kernel import layout, reference
from tests.kernel.scenes import fill_with_every_type

SOURCE = Path(kernel.__file__).with_name("native.c").read_text("utf-8")
VERBS = ("cut", "scan", "gather", "scatter")


def python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, check=False, capture_output=True, text=True
    )


# Imports the kernel as if the C module were as `%s` makes it.
WITHOUT = """
import sys, types
%s
from respaldo import kernel
print(kernel.NATIVE, kernel.cut.__module__, kernel.WHY_NOT_NATIVE, sep="|")
"""
MISSING = WITHOUT % "sys.modules['respaldo.kernel._native'] = None"
STALE = WITHOUT % "m = types.ModuleType('respaldo.kernel._native'); m.REVISION = 0; sys.modules[m.__name__] = m"


def test_kernel_at_work_is_told():
    """NATIVE says which kernel the verbs come from, and WHY_NOT_NATIVE is empty just when it is the C one."""
    for verb in VERBS:
        assert (getattr(kernel, verb) is getattr(reference, verb)) == (not kernel.NATIVE)
    assert bool(kernel.WHY_NOT_NATIVE) == (not kernel.NATIVE)


def test_package_exports_its_verbs():
    """What is exported is what is documented."""
    assert set(kernel.__all__) == {*VERBS, "NATIVE", "WHY_NOT_NATIVE", "layout"}
    assert set(reference.__all__) == set(VERBS)


@pytest.mark.parametrize(("program", "reason"), [(MISSING, "could not be loaded"), (STALE, "has revision 0")])
def test_without_the_c_module_the_reference_is_at_work(program, reason):
    """A C module that is missing, or of another revision, is replaced by the reference, with a reason."""
    found = python(program, RESPALDO_REQUIRE_KERNEL="")
    native, module, why = found.stdout.strip().split("|")
    assert (native, module) == ("False", "respaldo.kernel.reference.chunks")
    assert reason in why


@pytest.mark.parametrize(("program", "reason"), [(MISSING, "could not be loaded"), (STALE, "build it again")])
def test_required_c_module_that_is_missing_fails_the_import(program, reason):
    """With RESPALDO_REQUIRE_KERNEL=1 the import says what is wrong with the C module."""
    found = python(program, RESPALDO_REQUIRE_KERNEL="1")
    assert found.returncode == 1
    assert "ImportError: RESPALDO_REQUIRE_KERNEL=1, but" in found.stderr
    assert reason in found.stderr


def test_c_kernel_needs_no_reference(native):
    """With the C kernel at work the reference is not even loaded."""
    found = python("import sys, respaldo.kernel; print('respaldo.kernel.reference' in sys.modules)")
    assert found.stdout.strip() == "False"
    assert native.NATIVE


def test_verbs_have_the_documented_parameters(native):
    """Both kernels name their parameters alike, in the same order."""
    for verb in VERBS:
        expected = list(inspect.signature(getattr(reference, verb)).parameters)
        assert list(inspect.signature(getattr(native, verb)).parameters) == expected


def constants(pattern):
    """Returns the numbers that native.c gives to the names that match."""
    return {name: int(value, 0) for name, value in re.findall(rf"\b({pattern}) = (\d+)", SOURCE)}


def test_c_source_and_layout_name_the_same_numbers():
    """Flags, options, sizes and offsets have one value in C and in Python."""
    named = {name: value for name, value in vars(layout).items() if isinstance(value, int)}
    flags = constants("ENTRY_[A-Z]+|SCAN_[A-Z_]+|GATHER_[A-Z_]+|SCATTER_[A-Z_]+")
    sizes = {name: flags.pop(name) for name in ("GATHER_SIZE", "SCATTER_SIZE")}
    assert (flags.pop("SCAN_OPTIONS"), flags.pop("SCATTER_OPTIONS")) == (7, 15)
    prefixes = ("ENTRY_", "SCAN_", "GATHER_", "SCATTER_")
    assert flags == {name: value for name, value in named.items() if name.startswith(prefixes)}
    assert sizes == {"GATHER_SIZE": layout.GATHERED.size, "SCATTER_SIZE": layout.SCATTERED.size}
    assert constants("META_SIZE|IDENT_SIZE") == {"META_SIZE": layout.META.size, "IDENT_SIZE": layout.IDENT.size}
    stages = re.search(r"enum stage \{ ([A-Z_, ]+) \}", SOURCE).group(1).split(", ")
    assert stages == [name for name in named if name.startswith("STAGE_")]
    assert [named[name] for name in stages] == list(range(9))
    assert int(re.search(r"INODE_FLAGS UINT32_C\((\w+)\)", SOURCE).group(1), 0) == layout.INODE_FLAGS
    assert int(re.search(r"PREFIX_MAX (\d+)", SOURCE).group(1)) == layout.PREFIX_MAX_BYTES
    assert int(re.search(r"HOLE (\d+)u", SOURCE).group(1)) == layout.HOLE_BYTES
    assert int(re.search(r"KERNEL_REVISION (\d+)", SOURCE).group(1)) == layout.REVISION


def test_rows_have_the_documented_widths():
    """Rows are 40, 24, 24 and 12 bytes wide, without padding."""
    rows = (layout.META, layout.IDENT, layout.GATHERED, layout.SCATTERED)
    assert [row.size for row in rows] == [40, 24, 24, 12]
    assert all(row.format.startswith("<") for row in rows)


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def use_everything(native, folder, scanned, content, table):
    """Calls each verb once with success and once with every kind of error."""
    names, meta, ident = scanned
    native.scan(folder.fd, 0, 0)
    out = bytearray(64)
    native.gather(folder.fd, names, meta, ident, out)
    native.cut(content, table, bytes(16), 64, 64, 64, 0, 0, True)
    count = names.count(b"\0")
    counts, pieces = struct.pack("<I", 1) * count, [b"x" * 1000] * count
    native.scatter(folder.fd, names, meta, counts, pieces, b".x", 0)
    for verb, arguments, error in (
        (native.scan, (10_000, 0, 0), OSError),
        (native.scan, (folder.fd, 0, 99), ValueError),
        (native.gather, (folder.fd, names, meta, ident, b"bytes"), BufferError),
        (native.gather, (folder.fd, names, meta, ident, bytearray()), ValueError),
        (native.gather, (folder.fd, names, meta, None, out), TypeError),
        (native.cut, (content, table, b"", 64, 64, 64, 0, 0, True), ValueError),
        (native.cut, (content, table, bytes(16), 64, "", 64, 0, 0, True), TypeError),
        (native.scatter, (folder.fd, names, meta, counts, [*pieces[1:], None], b".x", 0), TypeError),
        (native.scatter, (folder.fd, names, meta, counts, pieces[1:], b".x", 0), ValueError),
        (native.scatter, (folder.fd, names, meta, counts, pieces, b"", 0), ValueError),
    ):
        with pytest.raises(error):
            verb(*arguments)


@pytest.fixture
def scanned(folder, native):
    """Fills a directory and gives rows that claim 1 byte for each entry, so that most of them are wrong."""
    fill_with_every_type(folder.path)
    (folder.path / "block").unlink(missing_ok=True)
    names, meta, ident = native.scan(folder.fd, 0, 0)
    return names, b"".join(layout.META.pack(*row[:4], 1, *row[5:]) for row in layout.META.iter_unpack(meta)), ident


def test_references_are_given_back(native, folder, scanned):
    """Every argument has as many references after a call as before it, and no buffer stays locked."""
    content, table = bytearray(5000), bytearray(2048)
    watched = [*scanned, content, table]
    use_everything(native, folder, scanned, content, table)
    before = [sys.getrefcount(item) for item in watched]
    for _ in range(3):
        use_everything(native, folder, scanned, content, table)
    assert [sys.getrefcount(item) for item in watched] == before
    content.append(0)
    table.append(0)


def test_memory_and_descriptors_are_given_back(native, folder, scanned):
    """Some hundred rounds of success and failure take no memory and no descriptor that they do not return."""
    content, table = bytes(50_000), bytes(2048)
    for _ in range(50):
        use_everything(native, folder, scanned, content, table)
    descriptors, before = os.listdir("/proc/self/fd"), resident_bytes()
    for _ in range(400):
        use_everything(native, folder, scanned, content, table)
    assert os.listdir("/proc/self/fd") == descriptors
    assert resident_bytes() - before < 2 << 20
