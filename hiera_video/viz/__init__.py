"""Plots, film strips and contact sheets: arrays in, encoded pictures out."""
