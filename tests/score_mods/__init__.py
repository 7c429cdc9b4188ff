"""`attn_jax.score_mods`."""
