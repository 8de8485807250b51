"""Load, convert, inflate and save weights."""
