"""One sound repository for all tests of the check; each damages a copy."""

from __future__ import annotations

import pytest

from tests.flows.check.scenes import Scene, build


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A sound repository."""
    return build(tmp_path_factory.mktemp("scene"))
