"""Hiera encoders, masked autoencoders and their weights. Importing it does not import torch."""
