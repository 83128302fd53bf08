"""Targets: files that a user names, and files in which this client remembers what it saw."""

from __future__ import annotations

import tempfile
from pathlib import Path

from respaldo.api.places import Pins, Places, Uses
from respaldo.cli import passphrase, speeds
from respaldo.codec import recovery
from respaldo.core.errors import UsageError
from tests.fuzz.mutate import Form
from tests.fuzz.target import Target
from tests.fuzz.targets.texts import KEY, SHARES, decoded


class _Files:
    """Has one file that is written anew for each input."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="respaldo-fuzz-")
        self.path = Path(self._folder.name)
        places = Places(cache_dir=self.path / "cache", state_dir=self.path / "state")
        self.pins = Pins(places, str(self.path / "nowhere"))
        self.uses = Uses(places, bytes(16))
        for path in (self.pins.path, self.uses._path):
            path.parent.mkdir(parents=True)

    def with_file(self, data: bytes) -> str:
        path = self.path / "file"
        path.write_bytes(data)
        return str(path)


_FILES: list[_Files] = []


def _files() -> _Files:
    if not _FILES:
        _FILES.append(_Files())
    return _FILES[0]


def _measurement(data: bytes) -> None:
    found = speeds.read_earlier(_files().with_file(data))
    rows = speeds.compare(found, found)
    text = speeds.compared_text(rows, speeds.unlike(found, {}))
    assert all(line.isprintable() for line in text.splitlines()), text


def _key_file(data: bytes) -> None:
    path = _files().with_file(data)
    for read in (passphrase.read_key, passphrase.read_passphrase):
        try:
            read(path)
        except UsageError as error:
            said = str(error)
        else:
            continue
        assert len(data) < 8 or decoded(data) not in said, "a secret is shown"


def _state(data: bytes) -> None:
    """Reads what this client remembers of headers and of uses."""
    files = _files()
    files.pins.path.write_bytes(data)
    assert all(len(item) == 32 for item in files.pins.known())
    files.uses._path.write_bytes(data)
    files.uses.known()


_MEASURED = """{"respaldo": "0.1.0", "cpus": 2, "disk": [{"name": "read", "bytes": 5, "duration_s": 0.1,
"bytes_per_s": 50.5}], "restoring": [], "storing": [], "runs": [{"name": "verify", "bytes_per_s": 1e3}],
"opening_s": 0.1, "first_byte": {"files": 3, "median_s": 0.001, "worst_s": 1}, "damaged": 0, "skipped": null}"""

TARGETS = [
    Target(
        name="measurement",
        parse=_measurement,
        seeds=lambda: (_MEASURED.encode(),),
        refusals=(UsageError,),
        form=Form.TEXT,
        modules=("respaldo.cli.speeds",),
    ),
    Target(
        name="key-file",
        parse=_key_file,
        seeds=lambda: (KEY, KEY.hex().encode() + b"\n", recovery.show_key(KEY).encode(), "\n".join(SHARES).encode()),
        form=Form.TEXT,
        modules=("respaldo.codec.recovery",),
    ),
    Target(
        name="state",
        parse=_state,
        seeds=lambda: (b"/srv/backup\n" + b"ab" * 32 + b"\n", b"keys/0011223344556677 1780000000000000000\n"),
        form=Form.TEXT,
        modules=("respaldo.api.places",),
    ),
]
