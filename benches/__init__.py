"""Benchmarks: stage by stage with pytest-benchmark, and the whole command beside its limits and peers."""
