"""Copies snapshots from one repository into another."""
