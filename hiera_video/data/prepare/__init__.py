"""Turn raw data-set releases into checked lists, re-encoded copies and tar shards."""
