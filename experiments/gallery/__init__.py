"""The program that makes docs/gallery with models of the questions."""
