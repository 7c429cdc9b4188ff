"""`attn_jax.models`: models, searches, losses and checkpoints."""
