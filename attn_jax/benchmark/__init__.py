"""Attention on named real-world shapes, timed beside other libraries.

Run it with `python -m attn_jax.benchmark`.
"""
