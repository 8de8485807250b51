"""Features of clips: extraction in shards, and the reader of what it wrote. Importing this package imports no torch."""
