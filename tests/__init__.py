"""Tests of attn_jax and of its experiments; README.md explains the folders and helpers."""
