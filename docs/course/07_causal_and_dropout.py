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
# # 7. Causal attention and dropout
#
# **The question.** A language model predicts the next word. In [chapter 6](06_trainable_weights.py)
# every word attends to all words, also to those that follow it. A word that attends to the next
# word does not need to predict it. How do we keep a word from attending to later words, and still
# train all positions of a sentence in one pass?
#
# The answer is a **causal mask**: a word attends to itself and to earlier words only. This chapter
# also adds **dropout**, which removes weights at random in training.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import attn_jax
from attn_jax import masks

# %% [markdown]
# ## Picture
#
# The attention weights of the six words, without and with the mask. Each row is a query, and its
# weights sum to 1. The matrices are those of Raschka (2024), section 3.5.

# %% tags=["hide-input"]
WORDS = ["Your", "journey", "starts", "with", "one", "step"]
x = np.array(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)
w_query = np.array([[0.316059, -0.168285], [0.456809, -0.337877], [0.511835, -0.091774]])
w_key = np.array([[0.405806, 0.213361], [-0.470421, -0.260051], [0.236805, -0.510543]])
w_value = np.array([[0.252570, 0.519107], [-0.141478, -0.085168], [-0.196181, -0.204327]])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


logits = (x @ w_query) @ (x @ w_key).T / np.sqrt(2)
may_attend = np.tril(np.ones((6, 6), bool))
panels = {"every word": softmax(logits), "itself and earlier words": np.zeros((6, 6))}
panels["itself and earlier words"] = softmax(np.where(may_attend, logits, -np.inf))
_, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for axis, (name, weights) in zip(axes, panels.items(), strict=True):
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=1)
    for (row, column), weight in np.ndenumerate(weights):
        if weight > 0:
            colour = "white" if weight > 0.6 else "black"
            axis.text(column, row, f"{weight:.2f}", ha="center", va="center", color=colour)
        else:
            corner = (column - 0.5, row - 0.5)
            axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, hatch="///", lw=0, ec="gray"))
    axis.set_title(f"a word attends to {name}")
    axis.set_xticks(range(6), WORDS)
    axis.set_yticks(range(6), WORDS)

# %% [markdown]
# ## Code
#
# By hand: the logit of a later word becomes −∞ *before* the softmax, so that its weight is
# exp(−∞) = 0. Setting the weights of later words to 0 *after* the softmax leaves rows that sum to
# less than 1. Divided by their sums, they are the same weights.

# %%
before = softmax(np.where(may_attend, logits, -np.inf))
after = softmax(logits) * may_attend
print("sums of the rows after masking:", after.sum(axis=1).round(2))
assert np.allclose(before, after / after.sum(axis=1, keepdims=True))
assert np.allclose(before[1, :2], [0.5517, 0.4483], atol=1e-4)  # as in the book

arrays = [jnp.array(array) for array in (x, w_query, w_key, w_value)]
causal = attn_jax.causal_self_attention(*arrays)
assert np.allclose(causal, before @ x @ w_value, atol=1e-6)

# %% [markdown]
# No information comes from the future: after a change of the last word, the outputs of the first
# five words are equal bit by bit. So one pass over a sentence trains all its positions: each
# position is an example that ends there.

# %%
other_last_word = arrays[0].at[5].set(jnp.array([9.0, -9.0, 9.0]))
changed = attn_jax.causal_self_attention(other_last_word, *arrays[1:])
assert np.array_equal(changed[:5], causal[:5])
assert not np.allclose(changed[5], causal[5], atol=0.1)

full = attn_jax.self_attention(*arrays)
changed = attn_jax.self_attention(other_last_word, *arrays[1:])
largest = abs(changed - full)[:5].max()
print(f"largest change of an earlier word without the mask: {largest:.2f}")
assert largest > 0.1

# %% [markdown]
# ### Dropout
#
# In training, each weight is set to 0 with probability p, so that no output depends on a single
# word (Srivastava et al. 2014, [JMLR 15](https://jmlr.org/papers/v15/srivastava14a.html)). The
# other weights are divided by 1 − p, which keeps the mean over all random choices the same. The
# choice depends on a random key only: the same key drops the same weights.

# %%
rate, rng, places = 0.5, jax.random.key(0), jnp.arange(6)
keep = np.asarray(attn_jax.dropout_mask(rng, rate, places, places))
dropped = before * keep / (1 - rate)
print(dropped.round(2))

query, key, value = (arrays[0] @ matrix for matrix in arrays[1:])


def with_dropout(rng):
    options = {"mask": masks.causal(), "dropout_rate": rate, "dropout_rng": rng}
    return attn_jax.attend(query, key, value, **options)


assert np.allclose(with_dropout(rng), dropped @ value, atol=1e-6)
assert np.array_equal(with_dropout(rng), with_dropout(jax.random.key(0)))
assert not np.allclose(with_dropout(rng), with_dropout(jax.random.key(1)), atol=1e-3)

# %% [markdown]
# One call is far from the output without dropout. The mean over many keys is close to it. A trained
# model is used without dropout.

# %%
many = jax.vmap(with_dropout)(jax.random.split(jax.random.key(2), 1000))
of_one, of_mean = (abs(out - causal).max() for out in (many[0], many.mean(axis=0)))
print(f"greatest distance of one call {of_one:.3f}, of the mean {of_mean:.3f}")
assert of_mean < 0.05 < of_one

# %% [markdown]
# ## What was added
#
# A mask before the softmax, which is True where a query may attend to a key. The last word may
# attend to all words, so its output is that of self-attention without a mask: this is how causal
# self-attention reduces to chapter 6. With `dropout_rate=0`, dropout reduces to no dropout.

# %% [markdown]
# ## Break it
#
# Train next-token prediction on *random* digits. Nobody can predict them: the loss of a model that
# sees earlier tokens only cannot fall below log 10 on new sequences. Without the mask it falls far
# below, because each position attends to the next one, and the model is useless when the next token
# does not exist yet.

# %%
T, DIGITS, WIDTH = 12, 10, 22
table = jnp.eye(DIGITS, WIDTH)  # of each digit one entry; positions take the others
place = jnp.eye(T, WIDTH, DIGITS)


def next_token_logits(params, tokens, attention):
    sequence = table[tokens] + place[: tokens.shape[0]]
    return attention(sequence, *params)


def mean_loss(params, tokens, attention):
    predict = jax.vmap(next_token_logits, (None, 0, None))
    logits = predict(params, tokens[:, :-1], attention)
    losses = optax.softmax_cross_entropy_with_integer_labels
    return losses(logits, tokens[:, 1:]).mean()


def train(attention):
    draws = 0.2 * jax.random.normal(jax.random.key(0), (2, WIDTH, WIDTH))
    params = [*draws, jnp.zeros((WIDTH, DIGITS))]
    optimiser = optax.adam(0.05)

    def step(carry, rng):
        params, opt_state = carry
        tokens = jax.random.randint(rng, (64, T), 0, DIGITS)
        gradients = jax.grad(mean_loss)(params, tokens, attention)
        updates, opt_state = optimiser.update(gradients, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    rngs = jax.random.split(jax.random.key(3), 200)
    return jax.lax.scan(step, (params, optimiser.init(params)), rngs)[0][0]


tokens = jax.random.randint(jax.random.key(4), (500, T), 0, DIGITS)
attentions = {"masked": attn_jax.causal_self_attention}
attentions["not masked"] = attn_jax.self_attention
params, losses = {}, {}
for name, attention in attentions.items():
    params[name] = jax.jit(train, static_argnums=0)(attention)
    losses[name] = float(mean_loss(params[name], tokens, attention))
    print(f"{name}: loss {losses[name]:.2f}; log 10 = {np.log(10):.2f}")
assert losses["not masked"] < 1.5 < 2.25 < losses["masked"]

# Generation: the model is given six tokens, and its last output is for the seventh.
predict = jax.vmap(next_token_logits, in_axes=(None, 0, None))
outputs = predict(params["not masked"], tokens[:, :6], attn_jax.self_attention)
right = float((outputs[:, -1].argmax(axis=-1) == tokens[:, 6]).mean())
print(f"right next tokens when the next token does not exist yet: {right:.0%}")
assert right < 0.3

# %% [markdown]
# ## Exercises
#
# 1. Which output of causal self-attention is a value as it stands? Which one is the same as without
#    the mask?
# 2. Show by the derivatives of all outputs by all words (`jax.jacobian`) that no output depends on
#    a later word.
# 3. Leave out the division by 1 − p in dropout. What is the mean of the outputs over many keys?

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. The first word has one key, so its weight is 1. The last word attends to all words.
assert np.allclose(causal[0], value[0], atol=1e-6)
assert np.allclose(causal[5], full[5], atol=1e-6)

# %% tags=["hide-cell"]
# 2. The derivatives above the diagonal are exactly 0, and those below it are not.
jacobian = jax.jacobian(attn_jax.causal_self_attention)(*arrays)  # [T, V, T, D]
size = np.abs(np.asarray(jacobian)).max(axis=(1, 3))
assert (size[~may_attend] == 0).all()
assert (size[may_attend] > 0).all()

# %% tags=["hide-cell"]
# 3. (1 − p) times the output without dropout. The network would be tested with outputs
# that are twice as great as in training.
undivided = many * (1 - rate)
assert np.allclose(undivided.mean(axis=0), (1 - rate) * causal, atol=0.03)
assert not np.allclose(undivided.mean(axis=0), causal, atol=0.03)

# %% [markdown]
# Next: [8. Many heads, and positions](08_many_heads_and_positions.py). More masks are in
# [how to choose](../how_to_choose.md), and [packing](../packing.md) keeps several documents in one
# sequence apart with masks.
