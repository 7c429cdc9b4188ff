"""`attn_jax.viewer`, without a browser."""
