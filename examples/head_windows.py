"""A different window for each head: attention of one head, vmapped over heads and windows.

`attend` computes one head, and `jax.vmap` passes each head its window, so the mask function needs
no head index. The same works for slopes, caps and tables.
"""

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.masks import causal, draw, sliding_window

T, N, H = 10, 3, 4
query, key, value = jax.random.normal(jax.random.key(0), (3, T, N, H))
windows = jnp.array([0, 2, 9])  # positions before the query that a head may attend to


def recent(window):
    return lambda i, j: (j <= i) & (i - j <= window)


def head(query, key, value, window):
    return attend(query, key, value, mask=recent(window))


out = jax.vmap(head, in_axes=(1, 1, 1, 0), out_axes=1)(query, key, value, windows)

for n, window in enumerate(windows.tolist()):
    rule = causal() & sliding_window(window, 0)
    expected = attend(query[:, n], key[:, n], value[:, n], mask=rule)
    assert jnp.allclose(out[:, n], expected, atol=1e-6)
print(draw(recent(windows[1]), T, T))
print("each head equals attention of that head alone with its window", windows)

assert jnp.all(out[:, 0] == value[:, 0])
print("in head 0 each query attends to itself only")
