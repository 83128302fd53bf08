"""The collector: marks what snapshots need, moves it together, deletes the rest."""
