"""What the tests of this folder begin with: a new repository, and its storage."""

from tests.store.repositories import backend, repo

__all__ = ["backend", "repo"]
