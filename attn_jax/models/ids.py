"""The four token ids that every vocabulary starts with."""

PAD = 0
"""Padding up to a fixed length: masked in attention, never generated, not counted in losses."""

BOS = 1
"""Beginning of sentence: the decoder's first input; never generated."""

EOS = 2
"""End of sentence: decoding stops after it."""

UNK = 3
"""Unknown: replaces a word that is not in the vocabulary."""
