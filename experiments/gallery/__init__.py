"""The program that makes docs/gallery from the models of the questions."""
