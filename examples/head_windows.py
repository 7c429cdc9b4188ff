"""A window of its own for each head: a rule for one head, mapped over the number in it.

`attend` knows one head; `jax.vmap` hands each head its window, and nobody indexes heads in a mask.
The same goes for slopes, caps and tables.
"""

import jax
import jax.numpy as jnp

from attn_jax import attend
from attn_jax.masks import causal, draw, sliding_window

T, N, H = 10, 3, 4
query, key, value = jax.random.normal(jax.random.key(0), (3, T, N, H))
windows = jnp.array([0, 2, 9])  # how many positions before it a head may read


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
print("each head is the same as that head alone with its window", windows)

assert jnp.all(out[:, 0] == value[:, 0])
print("head 0 reads nothing but itself")
