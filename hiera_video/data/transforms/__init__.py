"""Transforms from decoded frames to model input."""
