"""A credential is what was written, or is refused; a typing error is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from respaldo.core.errors import Corruption
from respaldo.format.credential import CREDENTIAL_BYTES_MAX, parse_credential
from respaldo.format.enrolment import is_client_name
from tests.format import samples

TEXT = samples.CREDENTIAL.encode()


def test_credential_comes_back():
    """Also without its comment, and with blank lines around it."""
    assert parse_credential(TEXT, "x") == samples.CREDENTIAL
    assert parse_credential(b"\n  " + TEXT.split(b"\n")[1] + b" \r\n\n", "x") == samples.CREDENTIAL


def test_credential_of_a_client_that_was_renewed():
    """Beside it those from before may stand, in any order; not of another area, and none twice."""
    renewed = samples.RENEWED_CREDENTIAL
    assert parse_credential(renewed.encode(), "x") == renewed
    for text in (TEXT + renewed.encode(), renewed.encode() + TEXT):
        assert parse_credential(text, "x") == replace(renewed, former=(samples.CREDENTIAL,))
    for bent in (renewed.encode() * 2, TEXT + replace(renewed, header_hash=b"i" * 32).encode()):
        with pytest.raises(Corruption):
            parse_credential(bent, "x")


def test_credential_shows_no_key():
    """Neither in its representation."""
    shown = repr(samples.CREDENTIAL)
    assert samples.CREDENTIAL.sign_seed.hex() not in shown
    assert "sign_seed" not in shown and "box_seed" not in shown and "content_keys" not in shown


def test_changed_credential_is_refused():
    """Any character of the token, twice the token, none of it, and what is too long."""
    start = TEXT.index(b"\nrespaldo-client-") + 1
    for at in range(start, len(TEXT) - 1, 7):
        with pytest.raises(Corruption):
            parse_credential(TEXT[:at] + (b"A" if TEXT[at : at + 1] != b"A" else b"B") + TEXT[at + 1 :], "x")
    for bent in (TEXT * 2, b"", TEXT[:start], TEXT[:-5], TEXT + b" " * CREDENTIAL_BYTES_MAX):
        with pytest.raises(Corruption):
            parse_credential(bent, "x")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *((name, True) for name in ("web-1", "a.b_c", "A" * 64)),
        *((name, False) for name in ("A" * 65, "", "-a", "a b", "é", "a/b", "a\n", ".a")),
    ],
)
def test_names(name, good):
    """Names of clients are words that no terminal and no shell takes for anything else."""
    assert is_client_name(name) is good
