"""Rewriting: new snapshots from old ones, without their sources."""
