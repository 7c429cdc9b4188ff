"""Attention on a graph: a node reads the nodes that its edges lead to.

Veličković et al., "Graph Attention Networks" (2017), https://arxiv.org/abs/1710.10903, with the
scaled dot product for their score. The edge list becomes a mask; the same by sums over edges is
what it is compared with.
"""

import math

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.masks import draw, from_array

NODES, H = 7, 4
edges = jnp.array([[0, 1], [1, 0], [1, 2], [2, 5], [3, 3], [4, 0], [4, 5], [5, 4], [5, 2]])
reader, read = edges.T
query, key, value = jax.random.normal(jax.random.key(0), (3, NODES, H))

neighbours = from_array(jnp.zeros((NODES, NODES), bool).at[reader, read].set(True))
print(draw(neighbours, NODES, NODES))
out = attend(query, key, value, mask=neighbours)

logits = jnp.sum(query[reader] * key[read], axis=-1) / math.sqrt(H)
weights = jnp.exp(logits) / jax.ops.segment_sum(jnp.exp(logits), reader, NODES)[reader]
expected = jax.ops.segment_sum(weights[:, None] * value[read], reader, NODES)
assert jnp.allclose(out, expected, atol=1e-6)
print("the same as sums over edges")

assert jnp.all(out[6] == 0)
print("node 6 has no edge and reads", out[6])

reached = from_array(jnp.eye(NODES, dtype=bool)) | neighbours
assert jnp.all(attend(query, key, value, mask=reached)[6] == value[6])
print("with self-loops it reads itself")
