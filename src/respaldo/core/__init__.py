"""Errors, ids, model and seams: what every layer may import. Standard library only."""
