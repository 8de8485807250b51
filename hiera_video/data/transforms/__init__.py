"""Decoded frames to model input."""
