# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 8. Many heads, and positions
#
# **The question.** Two things are still missing. First, a word has one set of attention weights,
# but may need two things at once: a verb needs its subject *and* its object. Second, attention
# ignores the order of the words: *dog bites man* and *man bites dog* are the same set of vectors.
# How does a word attend to two things, and how does attention use the order?
#
# The answers: several attentions side by side, called **heads**, and vectors that depend on the
# **position** of a word.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import attn_jax
from attn_jax import positions

# %% [markdown]
# ## Picture
#
# Two encodings of positions. **Sinusoids** (Vaswani et al. 2017,
# [section 3.5](https://arxiv.org/abs/1706.03762)) are added to the words: each pair of columns is a
# sine and a cosine, slower from left to right. **Rotations** (RoPE; Su et al. 2021,
# [section 3.2.2](https://arxiv.org/abs/2104.09864)) turn each pair of entries of a query or a key
# by an angle that grows with the position, fast for some pairs and slowly for others. The dot
# product of two rotated vectors depends on their distance only.

# %% tags=["hide-input"]
_, axes = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
sinusoids = positions.sinusoidal(jnp.arange(48), 32)
image = axes[0].imshow(sinusoids, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
axes[0].set(title="sinusoids", xlabel="column", ylabel="position")
plt.colorbar(image, ax=axes[0])
arrow = jnp.broadcast_to(jnp.array([1.0, 0.0]), (8, 1, 2))
for radius, (frequency, colour) in enumerate(((0.7, "tab:blue"), (0.1, "tab:orange")), start=1):
    turned = radius * positions.rotary(arrow, jnp.arange(8), jnp.array([frequency]))[:, 0]
    for place, (across, up) in enumerate(np.asarray(turned)):
        axes[1].annotate("", (across, up), (0, 0), arrowprops={"arrowstyle": "->", "color": colour})
        axes[1].text(1.1 * across, 1.1 * up, place, color=colour, ha="center", va="center")
axes[1].set(title="a pair, turned by its position 0 … 7", xlim=(-2.4, 2.6), ylim=(-2.4, 2.4))
axes[1].set(aspect="equal", xticks=[], yticks=[])
vector = jax.random.normal(jax.random.key(0), (1, 1, 32))
frequencies = positions.rotary_frequencies(32)
rotated = positions.rotary(jnp.broadcast_to(vector, (60, 1, 32)), jnp.arange(60), frequencies)[:, 0]
for start in (0, 20):
    products = rotated[start : start + 40] @ rotated[start]
    axes[2].plot(products, lw=5 - 0.18 * start, label=f"key at position {start}")
axes[2].set(title="dot product of rotated vectors", xlabel="distance from the key to the query")
axes[2].legend()
axes[2].grid(color="0.9")

# %% [markdown]
# ## Code
#
# ### Heads
#
# By hand: each head has its own three matrices. Their outputs are concatenated and multiplied by an
# output matrix. `jax.vmap` over the heads' axis of the matrices gives all heads at once.

# %%
T, D, N, H = 6, 8, 2, 4  # words, their width, heads, width of a head
x, *weights = (
    jax.random.normal(jax.random.key(seed), shape) * (1 if seed == 0 else 0.5)
    for seed, shape in enumerate(((T, D), (D, N, H), (D, N, H), (D, N, H), (N, H, D)))
)
w_query, w_key, w_value, w_out = weights
by_number = [(w_query[:, n], w_key[:, n], w_value[:, n]) for n in range(N)]
one_by_one = [attn_jax.self_attention(x, *matrices) for matrices in by_number]
by_hand = jnp.concatenate(one_by_one, axis=1) @ w_out.reshape(N * H, D)

all_heads = jax.vmap(attn_jax.self_attention, in_axes=(None, 1, 1, 1))
heads = all_heads(x, w_query, w_key, w_value)  # [N, T, H]
assert np.allclose(heads, jnp.stack(one_by_one), atol=1e-5)

library = attn_jax.multi_head_self_attention(x, w_query, w_key, w_value, w_out)
assert np.allclose(library, by_hand, atol=1e-4)

# %% [markdown]
# ### Positions
#
# Without positions, a permuted sentence gives the permuted outputs: each word gets the same vector
# as before, wherever it stands. With positions it does not.

# %%
order = jnp.array([5, 2, 0, 4, 1, 3])
place = jnp.arange(T)


def attention(words):
    return attn_jax.multi_head_self_attention(words, *weights)


encoding = positions.sinusoidal(place, D)
angle = np.arange(T)[:, None] / 10_000 ** (np.arange(0, D, 2) / D)  # by hand
assert np.allclose(encoding[:, 0::2], np.sin(angle), atol=1e-6)
assert np.allclose(encoding[:, 1::2], np.cos(angle), atol=1e-6)

without = abs(attention(x[order]) - attention(x)[order]).max()
ordered = abs(attention(x[order] + encoding) - attention(x + encoding)[order]).max()
print(f"difference without positions {without:.6f}, with sinusoids {ordered:.2f}")
assert without < 1e-4 < 0.1 < ordered

# %% [markdown]
# Rotations are applied to queries and keys, inside each head. At position p, the pair (a, b) of
# entry i and entry i + H/2 of a head becomes (a cos pf − b sin pf, b cos pf + a sin pf), with a
# frequency f for each pair. `positions.rotary` does this for all heads.

# %%
frequencies = positions.rotary_frequencies(H)
query, key, value = (jnp.einsum("TD,DNH->TNH", x, weight) for weight in weights[:3])
angle = np.arange(T)[:, None, None] * np.asarray(frequencies)  # [T, 1, pairs]
a, b = np.split(np.asarray(query), 2, axis=-1)
cos, sin = np.cos(angle), np.sin(angle)
turned = [a * cos - b * sin, b * cos + a * sin]
by_hand = np.concatenate(turned, axis=-1)
assert np.allclose(positions.rotary(query, place, frequencies), by_hand, atol=1e-5)


def rotary_attention(place):
    rotated = (positions.rotary(array, place, frequencies) for array in (query, key))
    return attn_jax.dot_product_attention(*rotated, value)


unordered = attn_jax.dot_product_attention(query, key, value)
assert not np.allclose(rotary_attention(place), unordered, atol=0.1)

# %% [markdown]
# ## What was added
#
# Heads: with one head and the identity as output matrix, multi-head attention reduces to the
# self-attention of chapters 6 and 7. Positions: if all words have the same position, the order is
# lost again, and what is left is attention without positions (exercise 3).

# %% [markdown]
# ## Break it
#
# One head instead of two, with the same number of parameters. The task is that of chapter 6 with a
# double question: *the colour of this animal, and the colour of that one?* One head has one set of
# weights, so it mixes both colours, and cannot tell which is the first.

# %%
WIDTH = 24
rng = np.random.default_rng(0)
vectors = rng.normal(size=(4, 5, WIDTH)).astype(np.float32) / np.sqrt(6)
animals, first, second, colours = vectors


def make_questions(count):
    order = np.array([rng.permutation(5) for _ in range(count)])
    colour = rng.integers(5, size=(count, 5))
    asked = np.array([rng.permutation(5)[:2] for _ in range(count)])
    which, answers = (np.take_along_axis(a, asked, axis=1) for a in (order, colour))
    question = first[which[:, 0]] + second[which[:, 1]]
    items = animals[order] + colours[colour]
    return jnp.concatenate([items, question[:, None]], axis=1), jnp.array(answers)


def logits(params, sequences):
    attend = jax.vmap(attn_jax.multi_head_self_attention, (0, None, None, None, None))
    return attend(sequences, *params)[:, -1].reshape(-1, 2, WIDTH) @ colours.T


def both_right(num_heads, steps=150):
    """The share of new questions of which a trained attention answers both parts."""
    V = 2 * WIDTH // num_heads
    shapes = [(WIDTH, num_heads, V)] * 3 + [(num_heads, V, 2 * WIDTH)]
    rngs = jax.random.split(jax.random.key(0), 4)
    params = [0.1 * jax.random.normal(*draw) for draw in zip(rngs, shapes, strict=True)]
    (sequences, answers), (new, right) = make_questions(1000), make_questions(500)
    optimiser = optax.adam(1e-2)

    def loss(params):
        losses = optax.softmax_cross_entropy_with_integer_labels
        return losses(logits(params, sequences), answers).mean()

    def step(carry, _):
        params, opt_state = carry
        updates, opt_state = optimiser.update(jax.grad(loss)(params), opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    train = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[0])
    params, _ = train((params, optimiser.init(params)))
    return float((logits(params, new).argmax(axis=-1) == right).all(axis=1).mean())


one, two = both_right(1), both_right(2)
print(f"both answers are right: {one:.0%} with one head, {two:.0%} with two heads")
assert one < 0.7 < 0.9 < two

# %% [markdown]
# ## Exercises
#
# 1. Remove head 0 from a trained model without changing the shapes of its matrices.
# 2. Shift all positions by 100. Which encoding leaves the output of attention unchanged?
# 3. Give all words the same position. What is left of a permuted sentence?

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. Set its rows of the output matrix to 0. The output is a sum over the heads.
pruned = attn_jax.multi_head_self_attention(x, *weights[:3], w_out.at[0].set(0))
assert np.allclose(pruned, heads[1] @ w_out[1], atol=1e-4)
assert np.allclose(library, heads[0] @ w_out[0] + heads[1] @ w_out[1], atol=1e-4)

# %% tags=["hide-cell"]
# 2. Rotations. A score depends on the distance of query and key, which is the same.
assert np.allclose(rotary_attention(place + 100), rotary_attention(place), atol=1e-3)
shifted = attention(x + positions.sinusoidal(place + 100, D))
assert not np.allclose(shifted, attention(x + encoding), atol=0.1)

# %% tags=["hide-cell"]
# 3. Permuted outputs again, as without positions: no word can tell where it stands.
everywhere_3 = positions.sinusoidal(jnp.full(T, 3), D)
permuted = attention(x[order] + everywhere_3)
assert np.allclose(permuted, attention(x + everywhere_3)[order], atol=1e-3)

# %% [markdown]
# Next: [9. The Transformer and GPT](09_transformer_and_gpt.py). The layer for work is
# `attn_jax.modules.MultiHeadAttention`, with `rotary=` for rotations; other encodings are in
# [how to choose](../how_to_choose.md).
