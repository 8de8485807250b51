"""The commands: argument parsing and every check that needs no torch."""
