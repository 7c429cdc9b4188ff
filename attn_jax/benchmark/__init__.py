"""Named real-world shapes, timed beside what else there is: `python -m attn_jax.benchmark`."""
