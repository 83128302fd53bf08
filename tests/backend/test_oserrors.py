"""What an errno of the repository's file system becomes."""

from __future__ import annotations

import errno

import pytest

from respaldo.backend.oserrors import storage_error
from respaldo.core.errors import Corruption, StorageDenied, StorageFailed, StorageFull


@pytest.mark.parametrize(
    ("number", "kind", "retryable"),
    [
        (errno.ENOSPC, StorageFull, False),
        (errno.EDQUOT, StorageFull, False),
        (errno.EACCES, StorageDenied, False),
        (errno.EPERM, StorageDenied, False),
        (errno.EROFS, StorageDenied, False),
        (errno.EIO, StorageFailed, False),
        (errno.ENODEV, StorageFailed, False),
        (errno.ESTALE, StorageFailed, False),
        (errno.ENXIO, StorageFailed, False),
        (errno.ENOTCONN, StorageFailed, False),
        (errno.ECONNABORTED, StorageFailed, False),
        (errno.ENAMETOOLONG, StorageFailed, False),
        (errno.EMFILE, StorageFailed, False),
        (errno.EFBIG, StorageFailed, False),
        (errno.EBUSY, StorageFailed, True),
        (errno.ETIMEDOUT, StorageFailed, True),
    ],
)
def test_storage_error_of(number, kind, retryable):
    """Each errno is an error of the repository, by what a caller can do."""
    error = storage_error(OSError(number, "…"), "packs/ab")
    assert type(error) is kind
    assert error.name == "packs/ab"
    assert error.retryable is retryable
    assert "packs/ab" in str(error)


@pytest.mark.parametrize(
    "number",
    [
        *(errno.EIO, errno.ENODEV, errno.ESTALE, errno.ENXIO, errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET),
        *(errno.ESHUTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENOMEDIUM, errno.EREMOTEIO),
    ],
)
def test_a_disk_that_has_gone_is_hinted_at(number):
    """Whoever pulled the plug is told to look at the disk."""
    assert "mounted" in storage_error(OSError(number, "…"), "packs").hint


@pytest.mark.parametrize("number", [errno.ELOOP, errno.EISDIR, errno.ESPIPE, errno.ENOTDIR])
def test_what_is_misplaced_is_damage(number):
    """A link, directory or pipe in an object's place is no passing trouble."""
    assert isinstance(storage_error(OSError(number, "…"), "packs/ab"), Corruption)


def test_an_error_without_number_keeps_its_text():
    """Nothing that is known is lost."""
    assert "odd" in str(storage_error(OSError("odd"), "log"))
