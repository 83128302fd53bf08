from __future__ import annotations

import pytest

from respaldo import api


@pytest.mark.parametrize(
    ("name", "snapshot", "path"),
    [
        ("latest", "latest", None),
        ("latest:/", "latest", b"/"),
        ("latest:/a/b", "latest", b"/a/b"),
        ("latest://a//./b/", "latest", b"/a/b"),
        ("a:b", "a:b", None),
        ("a:b:/c:/d", "a:b", b"/c:/d"),
        ("x:/\udcff", "x", b"/\xff"),
    ],
)
def test_split_at_the_first_colon_slash(name, snapshot, path):
    """A label may hold a colon, and a path may hold what parts the two."""
    assert api.split_name(name) == (snapshot, path)


def test_exported_names_are_there():
    """What `__all__` promises exists, in order, and nothing else is public."""
    assert api.__all__ == sorted(api.__all__, key=lambda name: (not name.isupper(), name.islower(), name))
    assert all(hasattr(api, name) for name in api.__all__)


def test_secret_is_one_thing():
    """A secret is a passphrase or a key, and a key has 32 bytes."""
    for given in ({}, {"passphrase": b"x", "key": bytes(32)}, {"key": bytes(31)}):
        with pytest.raises(ValueError, match=r"secret|key"):
            api.Secret(**given)
