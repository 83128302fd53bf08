"""Ways of looking at snapshots, computed, never stored."""
