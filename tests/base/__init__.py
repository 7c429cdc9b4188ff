"""`attn_jax._base`: copies and equality, recompilation, transfers, distances of positions."""
