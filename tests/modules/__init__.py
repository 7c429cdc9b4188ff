"""`attn_jax.modules`: layers and blocks."""
