"""Attention on a graph: a node attends to the nodes that its edges point to.

Veličković et al., "Graph Attention Networks" (2017), https://arxiv.org/abs/1710.10903, with the
scaled dot product as the score. The edge list becomes a mask. The result is compared with sums over
edges.
"""

import math

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.masks import draw, from_array

NODES, H = 7, 4
edges = jnp.array([[0, 1], [1, 0], [1, 2], [2, 5], [3, 3], [4, 0], [4, 5], [5, 4], [5, 2]])
source, target = edges.T  # node source[i] attends to node target[i]
query, key, value = jax.random.normal(jax.random.key(0), (3, NODES, H))

neighbours = from_array(jnp.zeros((NODES, NODES), bool).at[source, target].set(True))
print(draw(neighbours, NODES, NODES))
out = attend(query, key, value, mask=neighbours)

logits = jnp.sum(query[source] * key[target], axis=-1) / math.sqrt(H)
weights = jnp.exp(logits) / jax.ops.segment_sum(jnp.exp(logits), source, NODES)[source]
expected = jax.ops.segment_sum(weights[:, None] * value[target], source, NODES)
assert jnp.allclose(out, expected, atol=1e-6)
print("attention equals sums over edges")

assert jnp.all(out[6] == 0)
print("node 6 has no edges and its output is", out[6])

with_self_loops = from_array(jnp.eye(NODES, dtype=bool)) | neighbours
assert jnp.all(attend(query, key, value, mask=with_self_loops)[6] == value[6])
print("with self-loops node 6 attends to itself")
