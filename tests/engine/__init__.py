"""`attn_jax._engine`: the operation, its dispatch and its kernels."""
