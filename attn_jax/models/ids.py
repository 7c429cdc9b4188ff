"""The four token ids every vocabulary starts with."""

PAD = 0
"""Fills a sequence up to its fixed length; never read, never emitted, never counted."""

BOS = 1
"""Stands before the first word of a translation; an input only, never emitted."""

EOS = 2
"""Ends a sentence; decoding stops behind it."""

UNK = 3
"""Stands for a word that the vocabulary does not hold."""
