"""Devices, processes, signals, seeds, logs and the run folder."""
