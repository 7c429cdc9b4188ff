"""The repository itself: package structure, documents, public names, mutants, other devices."""
