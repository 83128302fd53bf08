"""Names of objects, and the views that pieces are turned into."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.backend.base import FOLDERS, check_folder, check_name, check_stage, flat, is_leaf
from tests.backend.contract import BAD_NAMES


def test_folders_are_those_of_the_format():
    """A folder is not added in passing."""
    expected = "ballast catalogue condemned config enrolled epochs keys log lost+found notices outcome packs parity"
    assert " ".join(sorted(FOLDERS)) == expected + " pending pins runs segments sessions sums trash verified"
    assert all(check_folder(folder) == folder for folder in FOLDERS)


@given(
    st.sampled_from(sorted(FOLDERS)),
    st.text(string.ascii_lowercase + string.digits + ".-", min_size=1, max_size=128),
)
def test_check_name_splits_what_is_well_formed(folder, leaf):
    """Every leaf of the alphabet that does not start with a dot is a name."""
    if leaf.startswith("."):
        with pytest.raises(ValueError):
            check_name(f"{folder}/{leaf}")
    else:
        assert check_name(f"{folder}/{leaf}") == (folder, leaf)


@given(st.text(max_size=40))
def test_check_name_returns_or_raises_value_error(name):
    """Hostile text is a ValueError or a name that is put together again from its parts."""
    try:
        folder, leaf = check_name(name)
    except ValueError:
        return
    assert name == (f"{folder}/{leaf}" if folder else leaf)
    assert is_leaf(leaf)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_check_name_refuses(name):
    """Whatever is no name is a ValueError."""
    with pytest.raises(ValueError):
        check_name(name)


def test_check_stage_returns_the_leaf():
    """A stage's name lies in its folder."""
    assert check_stage("packs", "packs/ab") == "ab"
    with pytest.raises(ValueError):
        check_stage("packs", "keys/ab")


@given(st.binary(max_size=64), st.integers(-3, 3).filter(bool))
def test_flat_is_the_bytes(content, step):
    """A view of any stride is turned into the bytes it stands for."""
    view = memoryview(content)[::step]
    assert flat(view) == content[::step]
    assert flat(view).c_contiguous


def test_flat_copies_nothing_that_lies_together():
    """A contiguous buffer is looked at where it is."""
    buffer = bytearray(b"abcd")
    view = flat(memoryview(buffer).cast("H"))
    buffer[0] = ord("x")
    assert view.tobytes() == b"xbcd"
