"""`attn_jax.benchmark`: timings, claims and reports."""
