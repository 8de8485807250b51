"""Helpers without dependencies on the rest of the package, apart from its errors."""
