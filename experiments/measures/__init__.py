"""What is measured of a trained system: translations, scores, alignments and heads."""
