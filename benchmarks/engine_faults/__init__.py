"""Faults injected into training runs; started by `benchmarks/faults.py`."""
