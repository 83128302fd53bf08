"""An ordinary user for tests that run as root: most of what can go wrong goes wrong for ordinary users."""

from __future__ import annotations

import os

import pytest

NOBODY = 65534


@pytest.fixture
def ordinary(tmp_path):
    """Becomes an ordinary user in a directory of its own for the time of a test."""
    home = tmp_path / "home"
    home.mkdir()
    if os.geteuid() != 0:
        yield home
        return
    os.chown(home, NOBODY, NOBODY)
    groups = os.getgroups()
    way = []
    for above in tmp_path.parents:
        if above.stat().st_uid == 0 and not above.stat().st_mode & 1:
            way.append((above, above.stat().st_mode))
            above.chmod(above.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield home
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        for above, mode in way:
            above.chmod(mode)
