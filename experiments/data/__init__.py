"""Texts and sentences, and the way from text to batches of ids."""
