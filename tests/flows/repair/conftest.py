"""One sound repository for all tests of the repair; each damages a copy."""

from __future__ import annotations

import pytest

from tests.flows.repair.ward import Ward, lay


@pytest.fixture(scope="session")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    """A sound repository."""
    return lay(tmp_path_factory.mktemp("ward"))
