"""What a snapshot records of what it left out is believed as far as it can be had cheaply."""

from __future__ import annotations

import pytest

from respaldo.core.errors import Refused
from respaldo.fs.recorded import LETTERS_MAX, recorded_limit, recorded_rules


def test_options_are_read_back():
    """Patterns in their order, the least size; what is neither is passed over."""
    recorded = ["exclude=*.o", "one-file-system", "exclude=!a=b.o", "exclude-larger-than=90", "exclude-larger-than=7"]
    assert recorded_rules(recorded).patterns == ("*.o", "!a=b.o")
    assert recorded_limit(recorded) == 7
    assert recorded_limit(["exclude-larger-than=x", "exclude-larger-than=²", "exclude-larger-than=" + "9" * 5000]) == 0


def test_more_patterns_than_anybody_writes_are_refused():
    """Compiling them would take memory without end, and leaving some out would delete what they spare."""
    recorded_rules(["exclude=" + "a" * 1000] * (LETTERS_MAX // 1000))
    with pytest.raises(Refused, match="cannot be told"):
        recorded_rules(["exclude=" + "a" * 1000] * (LETTERS_MAX // 1000 + 1))
