"""Preparation of data sets: a module for each, run by `hiera-video prepare NAME`."""
