"""A directory of 300,000 entries: what it costs to back up, to back up again with one more, and to restore."""

from __future__ import annotations

import os
import re
import resource
import time

import pytest

from tests.fidelity.compare import rsync_differences
from tests.fidelity.product import Product

ENTRIES = 300_000
MEMORY_MIB_MAX = 600

pytestmark = pytest.mark.slow


def cpu_seconds():
    """Returns what child processes that have ended took of the processors: other work there does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_huge_directory_comes_back(memory):
    """300,000 entries in one directory are backed up and restored in tens of seconds and a bounded memory."""
    product = Product(memory / "product")
    source, target = memory / "source", memory / "target"
    source.mkdir()
    fd = os.open(source, os.O_RDONLY)
    for number in range(ENTRIES):
        if number % 10 == 9:
            os.symlink(f"to {number}", f"link {number}", dir_fd=fd)
            continue
        file = os.open(f"file {number:07d}", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=fd)
        os.write(file, b"%d" % number)
        os.close(file)
    os.close(fd)
    time.sleep(2.1)  # else what has just been written is read again

    def measured(what, *words):
        began = cpu_seconds()
        process = product.spawn(*words, measured=True)
        out, err = process.communicate()
        assert process.returncode == 0, err
        mib = int(re.search(rb"RssAnon (\d+)", out)[1])
        print(f"{ENTRIES} entries, {what}: {cpu_seconds() - began:.1f} CPU s, {mib} MiB")
        assert mib < MEMORY_MIB_MAX

    measured("first snapshot", "snapshot", source)
    (source / "one more").write_bytes(b"one more")
    measured("snapshot after one more", "snapshot", source)
    latest = product.run("snapshots", "--json", "--last", "1").json["snapshots"][-1]
    assert latest["files_new"] + latest["files_changed"] == 1, "what did not change was read again"
    assert latest["files_unchanged"] == ENTRIES * 9 // 10
    measured("restore", "restore", f"latest:{source}", target)
    assert rsync_differences(source, target) == []
