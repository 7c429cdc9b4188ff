"""`attn_jax._lineage`, and the identities between the mechanisms that it names."""
