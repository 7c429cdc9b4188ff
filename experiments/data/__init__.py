"""Texts and sentence pairs, tokenizers, and batches of ids."""
