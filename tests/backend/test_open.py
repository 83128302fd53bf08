"""Locations, as users write them."""

from __future__ import annotations

import pytest

from respaldo.backend.local import LocalBackend
from respaldo.backend.open import local_path, open_backend
from respaldo.core.errors import NotARepository, UsageError


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/srv/repo", "/srv/repo"),
        ("repo", "repo"),
        ("./host:repo", "./host:repo"),
        ("/srv/a:b", "/srv/a:b"),
        ("file:/srv/repo", "/srv/repo"),
        ("file:repo", "repo"),
        ("file:host:repo", "host:repo"),
        ("file:sftp:x", "sftp:x"),
        ("C", "C"),
    ],
)
def test_local_path_of(location, path):
    """A path is a path, and "file:" says so explicitly."""
    assert local_path(location) == path


@pytest.mark.parametrize("location", ["sftp:host:/repo", "s3:bucket", "sftp:"])
def test_planned_schemes_are_not_there_yet(location):
    """A scheme that is known but not there says that, and what to do instead."""
    with pytest.raises(UsageError, match="not there yet") as caught:
        open_backend(location)
    assert "mount" in caught.value.hint


@pytest.mark.parametrize("location", ["rest:http://x/", "host:repo", "user@host:repo", "SFTP:x", ":x", "b2:x"])
def test_unknown_schemes_are_never_paths(location, tmp_path, monkeypatch):
    """A typing error makes no directory; the hint says how to name one that is called so."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="unknown scheme") as caught:
        open_backend(location, create=True)
    assert f"file:{location}" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["", "file:", "a\0b"])
def test_no_location(location):
    """An empty variable is not the current directory."""
    with pytest.raises(UsageError):
        open_backend(location)


def test_open_backend_opens_and_makes(tmp_path):
    """A directory is made only when asked for."""
    path = tmp_path / "a" / "repo"
    with pytest.raises(NotARepository):
        open_backend(str(path))
    assert not path.parent.exists()
    with open_backend(f"file:{path}", create=True) as backend:
        assert isinstance(backend, LocalBackend)
        backend.put("header", [b"x"])
    with open_backend(str(path)) as backend:
        assert backend.get("header") == b"x"
        assert backend.location == str(path)
