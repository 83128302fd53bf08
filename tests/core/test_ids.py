"""Names of objects: in bulk and one by one they are the same ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, parse_hash_leaf, parse_leaves, parse_random_leaf

PARSE = {NAME_BYTES: parse_hash_leaf, RANDOM_ID_BYTES: parse_random_leaf}


def spoil(leaf: str) -> st.SearchStrategy[str]:
    """Changes a leaf in one place, or its length."""
    letters = st.sampled_from(["", "0", "F", "g", "/", "\n", " ", ".", "packs/", "é", "²", "\0"])
    places = st.integers(0, len(leaf))
    return st.tuples(places, letters, st.integers(0, 6)).map(
        lambda drawn: leaf[: drawn[0]] + drawn[1] + leaf[drawn[0] + drawn[2] :]
    )


@pytest.mark.parametrize("id_bytes", sorted(PARSE))
@given(data=st.data())
def test_names_in_bulk_are_names_one_by_one(id_bytes, data):
    """Whatever stands among the names, each means what it means alone."""
    good = st.binary(min_size=id_bytes, max_size=id_bytes).map(bytes.hex)
    leaves = data.draw(st.lists(good, max_size=5))
    if leaves and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(leaves) - 1))
        leaves[at] = data.draw(spoil(leaves[at]))
    if len(leaves) > 1 and data.draw(st.booleans()):  # of the right length together, not each
        leaves[0], leaves[1] = leaves[0] + leaves[1][:2], leaves[1][2:]
    names = ["packs/" + leaf for leaf in leaves]
    assert list(parse_leaves(names, id_bytes)) == [PARSE[id_bytes](leaf) for leaf in leaves]
