"""Worker processes that load batches."""
