"""Makes snapshots of tar archives."""
