"""Restore: from a tree to files, by one plan that a dry run prints and a run executes."""
