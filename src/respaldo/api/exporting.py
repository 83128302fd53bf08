"""Exports: a snapshot as one file elsewhere, named by a template, with its SHA-256 beside it.

The file has its name only when it is whole and on the disk. No file that exists is written over unless that is asked
for.
"""

from __future__ import annotations

import contextlib
import os
import re
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import BinaryIO

from respaldo.api.naming import Found
from respaldo.catalog.kinds import kind_of
from respaldo.core.errors import TargetError, UsageError
from respaldo.views.checksums import sum_line

FORMATS = ("tar", "tar.gz", "tar.zst", "zip")
TEMPLATE = "{prefix}_{kind}_{time:%Y%m%d_%H%M}_{checksum:.8}"
_NAME_BYTES_MAX = 255
_TEMPORARY = b".respaldo-export-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """Is an archive that was written. ``path`` is empty where it went to a stream."""

    path: bytes
    sha256: str
    length_bytes: int
    members: int
    left_out: int
    damaged: int = 0

    @property
    def exit_status(self) -> int:
        """0 all is there, 3 something is left out, 4 for damage."""
        return 4 if self.damaged else 3 if self.left_out else 0


_WIDE = re.compile(r"\d{4}|\{")
"""In the form of a field: a width that takes all memory, or one that stands in a snapshot, whoever made it."""
_WIDE_TIME = re.compile(r"%[-_0^#+]*\d{4}|\{")


def check_template(template: str) -> None:
    """Raises `UsageError` for a template that has no name in it."""
    fields: dict[str, object] = dict.fromkeys(("prefix", "host", "user", "kind", "label", "id", "checksum"), "x")
    _fill(template, fields | {"time": datetime(2000, 1, 1, tzinfo=UTC)})


def name_of(template: str, found: Found, checksum: str, *, prefix: str, zone: tzinfo) -> bytes:
    """Returns the name that a template makes of a snapshot; slashes and NULs in what it is filled with become ``_``."""
    manifest = found.snapshot.manifest
    fields: dict[str, object] = {
        "prefix": prefix or manifest.host,
        "host": manifest.host,
        "user": manifest.user,
        "kind": kind_of(manifest.kind, manifest.parent),
        "label": manifest.label,
        "id": found.snapshot.hex,
        "checksum": checksum,
        "time": datetime.fromtimestamp(manifest.time_ns // 10**9, UTC).astimezone(zone),
    }
    plain = {key: _plain(value) if isinstance(value, str) else value for key, value in fields.items()}
    return _fill(template, plain).encode("utf-8", "surrogateescape")


def _plain(value: str) -> str:
    return "".join("_" if letter == "/" or not letter.isprintable() else letter for letter in value)


def _fill(template: str, fields: Mapping[str, object]) -> str:
    try:
        for _, field, form, _ in string.Formatter().parse(template):
            if field is not None and field not in fields:
                raise KeyError(field)
            if form and (_WIDE_TIME if field == "time" else _WIDE).search(form):
                raise ValueError(f"{form} makes a name too long")
        name = template.format_map(fields)
    except KeyError as error:
        raise UsageError(
            f"--name-template has no field {error}", hint=f"its fields are: {', '.join(sorted(fields))}"
        ) from None
    except (ValueError, IndexError, TypeError) as error:
        raise UsageError(f"--name-template cannot be understood: {error}") from None
    if (
        not name.strip(".")
        or "/" in name
        or "\0" in name
        or len(name.encode("utf-8", "replace")) > _NAME_BYTES_MAX - 20
    ):
        raise UsageError(f"--name-template makes no name of a file: {name!r}")
    return name


@contextlib.contextmanager
def new_file(folder: bytes) -> Iterator[tuple[BinaryIO, Callable[[bytes, bool], None]]]:
    """Gives a file without a name yet, and what puts it on the disk under one; removed if that does not happen.

    Raises `TargetError`, also where the name is taken and must not be replaced.
    """
    path = os.path.join(folder, _TEMPORARY + b"%d" % os.getpid())
    try:
        file = open(path, "xb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise TargetError(folder, error.strerror or str(error)) from None

    def publish(target: bytes, replace: bool) -> None:  # noqa: FBT001 - private to its caller
        try:
            file.flush()
            os.fsync(file.fileno())
            if replace:
                os.rename(path, target)
            else:
                _link(path, target)
        except FileExistsError:
            raise TargetError(target, "it exists already", hint="name another, or use --force") from None
        except OSError as error:
            raise TargetError(target, error.strerror or str(error)) from None

    try:
        yield file, publish
    except OSError as error:
        raise TargetError(folder, error.strerror or str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            file.close()
        with contextlib.suppress(OSError):
            os.unlink(path)


def _link(path: bytes, target: bytes) -> None:
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.rename(path, target)


def write_checksum(path: bytes, sha256: str) -> None:
    """Writes the SHA-256 of a file beside it, as ``sha256sum -c`` reads it; raises `TargetError`."""
    line = sum_line(sha256, os.path.basename(path))
    try:
        with open(path + b".sha256", "wb") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TargetError(path + b".sha256", error.strerror or str(error)) from None
