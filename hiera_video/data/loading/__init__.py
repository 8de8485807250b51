"""Batches from worker processes."""
