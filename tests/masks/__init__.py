"""`attn_jax.masks` and block masks."""
