"""Hiera encoders, masked autoencoders and their weights. Importing this package imports no torch."""
