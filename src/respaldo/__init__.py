"""Respaldo: a content-addressed, deduplicating, encrypted backup store."""

__version__ = "0.1.0"
