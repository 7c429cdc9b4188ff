"""Tests of attn_jax and of its experiments; README.md says what is where."""
