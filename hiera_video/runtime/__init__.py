"""Run-time services: processes, precision, seeds, signals, metric logs and the run folder."""
