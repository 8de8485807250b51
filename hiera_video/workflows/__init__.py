"""What each command does, assembled from the libraries; the only code that handles a whole `Config`."""
