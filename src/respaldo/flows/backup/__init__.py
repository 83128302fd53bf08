"""Backup: from a walk over sources to a committed snapshot."""
