"""`attn_jax.positions`."""
