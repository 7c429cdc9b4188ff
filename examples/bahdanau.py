"""Bahdanau's encoder-decoder in forty lines of code: it learns to write words backwards.

Bahdanau et al. (2014), section 3, https://arxiv.org/abs/1409.0473, with tanh cells. No alignment is
given in training: the decoder learns to which word it attends in each step.
"""

import jax
import jax.numpy as jnp
import optax

from attn_jax import attend, attention_weights, masks

B, S, P, H = 64, 6, 10, 32  # batch, words of a source, vocabulary (0 starts a target), width
SHAPES = {"E": (P, H), "F": (H, H), "G": (H, H), "W": (H, H), "U": (2 * H, H), "v": (H,)}
SHAPES |= {"Y": (P, H), "R": (H, H), "C": (2 * H, H), "O": (H, P)}
p = {k: 0.2 * jax.random.normal(jax.random.key(i), SHAPES[k]) for i, k in enumerate(SHAPES)}


def states(kernel, x):  # of a recurrent network, after each word
    return jax.lax.scan(lambda h, x: (jnp.tanh(x + h @ kernel),) * 2, jnp.zeros(H), x)[1]


def decode(p, source, target):  # returns logits [S P] and attention weights [S S]
    x = p["E"][source]
    h = jnp.hstack([states(p["F"], x), states(p["G"], x[::-1])[::-1]])  # annotations [S 2H]
    keys = h @ p["U"]

    def score(query, keys):  # a network with one hidden layer scores each pair
        return jnp.tanh(query[:, None] + keys[None]) @ p["v"]

    def step(s, word):  # from one decoder state to the next
        query = (s @ p["W"])[None]
        context = attend(query, keys, h, score=score)[0]
        s = jnp.tanh(p["Y"][word] + s @ p["R"] + context @ p["C"])
        return s, (s @ p["O"], attention_weights(query, keys, score=score)[0])

    return jax.lax.scan(step, jnp.zeros(H), jnp.roll(target, 1).at[0].set(0))[1]


@jax.jit
def train_step(p, state, source):
    def loss(p):
        logits, _ = jax.vmap(decode, (None, 0, 0))(p, source, source[:, ::-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, source[:, ::-1]).mean()

    updates, state = adam.update(jax.grad(loss)(p), state)
    return optax.apply_updates(p, updates), state


adam = optax.adam(5e-3)
state = adam.init(p)
for source in jax.random.randint(jax.random.key(99), (400, B, S), 1, P):
    p, state = train_step(p, state, source)
source = jnp.array([3, 1, 4, 1, 5, 9])
logits, weights = decode(p, source, source[::-1])
print("source", source, "output", logits.argmax(axis=1))
print(masks.draw(masks.from_array(weights > 0.5), S, S))
assert jnp.array_equal(logits.argmax(axis=1), source[::-1])
