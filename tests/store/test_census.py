"""The census: it knows every folder, so that no key is destroyed that something is sealed under."""

from __future__ import annotations

from respaldo.backend.base import FOLDERS, LOST_FOUND
from respaldo.codec.keys import SEALED_KINDS
from respaldo.store import census
from respaldo.store.census import NAMED, RECORDS

NOT_UNDER_THE_EPOCH = {
    "keys": "slots, each sealed under its own secret; what they say of themselves is made again with them",
    "epochs": "records of epochs, each under the master key that it is of",
    "ballast": "not sealed",
    "parity": "of what is sealed, and follows it",
    "runs": "in areas only, which have a master key of their own, and no epochs",
    "notices": "likewise",
    LOST_FOUND: "what a repair took away; the document says that it is lost with its key",
}


def test_every_folder_is_looked_at_or_is_known_to_hold_nothing_of_an_epoch():
    """A folder that is added to the format is added here or there, or this fails."""
    assert set(census.FOLDERS) | set(NOT_UNDER_THE_EPOCH) == set(FOLDERS)
    assert not set(census.FOLDERS) & set(NOT_UNDER_THE_EPOCH)


IN_PACKS = {"data", "tree", "list", "footer", "trailer"}
WITH_THE_KEYS = {"about", "epoch"}
"""What describes slots and epochs, which a rotation makes anew itself."""


def test_census_counts_every_kind_that_is_sealed():
    """A new kind of object needs a place in it, and a way to be sealed anew."""
    assert {*RECORDS.values(), *NAMED.values()} | IN_PACKS | WITH_THE_KEYS == SEALED_KINDS
