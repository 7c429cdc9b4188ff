"""`attn_jax.caches`, and attention over a cache."""
