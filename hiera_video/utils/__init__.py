"""Small helpers without a domain: checks, files, paths, hashes, timing."""
