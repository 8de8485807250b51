"""Workflows: the commands, assembled from the libraries; only they handle a whole `Config`."""
