"""Features of clips: extraction into a store, and reading the store. Imports no torch."""
