"""Measuring a repository on a machine: the disk, each stage of the data's road, whole runs, the wait for a first byte.

Writes to scratch directories that are removed whatever happens, never to the repository.
"""
