"""Outputs of trained systems, and what is measured of them: scores, alignments and heads."""
