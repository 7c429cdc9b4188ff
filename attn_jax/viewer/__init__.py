"""Pages that show attention, from weights, queries and keys, a trace, or a model."""

from attn_jax.viewer.measures import agreement as agreement
from attn_jax.viewer.measures import gradient_times_input as gradient_times_input
from attn_jax.viewer.measures import leave_one_out as leave_one_out
from attn_jax.viewer.measures import rollout as rollout
from attn_jax.viewer.view import AttentionView as AttentionView
