"""Faults of the training engine, injected into real runs of `tools/train_net.py`; started by `benchmarks/faults.py`."""
