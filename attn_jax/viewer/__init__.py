"""See attention: one page from weights, from queries and keys, from a trace or from a model."""

from attn_jax.viewer.measures import agreement as agreement
from attn_jax.viewer.measures import gradient_times_input as gradient_times_input
from attn_jax.viewer.measures import leave_one_out as leave_one_out
from attn_jax.viewer.measures import rollout as rollout
from attn_jax.viewer.view import AttentionView as AttentionView
