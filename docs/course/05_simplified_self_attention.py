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
# # 5. Simplified self-attention
#
# **The question.** In [chapter 4](04_bahdanau.py) a decoder attends to the words of another
# sentence. Can the words of *one* sentence attend to each other in the same way? What is left if we
# also remove the recurrent network and all trained parameters?

# %%
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import attn_jax
from attn_jax import scores

# %% [markdown]
# ## Picture
#
# The sentence is *Your journey starts with one step*, with a vector of three numbers for each word.
# Sentence and vectors are those of Raschka, *Build a Large Language Model (From Scratch)* (2024),
# section 3.3, so that you can compare each number with the book.
#
# Below, *journey* attends to all six words, itself included. A thicker line is a larger weight. The
# result is the mean of the six vectors under these weights: the **context vector** of *journey*.

# %%
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
JOURNEY = WORDS.index("journey")

# %% tags=["hide-input"]
powers = np.exp(x @ x[JOURNEY])
figure, ax = plt.subplots(figsize=(8, 3.4), facecolor="white", layout="constrained")
for i, (word, weight) in enumerate(zip(WORDS, powers / powers.sum(), strict=True)):
    ax.plot([i, 2.5], [0.35, 1.5], color="#0072B2", linewidth=40 * weight**1.5)
    ax.text(i + 0.3 * (2.5 - i), 0.72, f"{weight:.2f}", ha="center", color="black", bbox={
        "facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    weight_of = "bold" if i == JOURNEY else "normal"
    ax.text(i, 0.15, word, ha="center", fontsize=12, fontweight=weight_of, color="black")
    ax.text(i, -0.1, " ".join(f"{number:.2f}" for number in x[i]), ha="center", color="0.3")
result = powers @ x / powers.sum()
ax.text(2.5, 1.8, "context vector of journey", ha="center", fontsize=12, color="black")
ax.text(2.5, 1.58, " ".join(f"{number:.2f}" for number in result), ha="center", color="0.3")
ax.set(xlim=(-0.6, 5.6), ylim=(-0.2, 2))
ax.set_axis_off()

# %% [markdown]
# ## Code
#
# ### One query by hand
#
# The word that attends to the others is the **query**. The steps are those of chapter 4: logits,
# weights, context. Only the small network that compared two vectors is now a dot product, which
# needs no parameters.

# %%
query = x[JOURNEY]
logits = np.array([query @ word for word in x])  # how similar is each word to the query?
weights = np.exp(logits) / np.exp(logits).sum()  # softmax: positive, with sum 1
context = sum(weight * word for weight, word in zip(weights, x, strict=True))
for name, numbers in (("logits", logits), ("weights", weights), ("context", context)):
    print(f"{name:8}", " ".join(f"{number:.4f}" for number in numbers))

# %% [markdown]
# These are the numbers that the book prints (it calls the logits *attention scores*):

# %%
assert np.allclose(logits, [0.9544, 1.4950, 1.4754, 0.8434, 0.7070, 1.0865], atol=5e-5)
assert np.allclose(weights, [0.1385, 0.2379, 0.2333, 0.1240, 0.1082, 0.1581], atol=5e-5)
assert np.allclose(context, [0.4419, 0.6515, 0.5683], atol=5e-5)

# %% [markdown]
# ### All queries at once
#
# With every word as the query, the logits are one matrix product, and so are the contexts:

# %%
all_logits = x @ x.T
all_weights = np.exp(all_logits) / np.exp(all_logits).sum(axis=1, keepdims=True)
contexts = all_weights @ x
assert np.allclose(contexts[JOURNEY], context)

# %% tags=["hide-input"]
panels = {"logits  x · xᵀ": all_logits, "weights  softmax": all_weights, "contexts": contexts}
figure, axes = plt.subplots(
    1,
    3,
    figsize=(10, 3.6),
    width_ratios=(6, 6, 3),
    facecolor="white",
    layout="constrained",
)
for ax, (title, numbers) in zip(axes, panels.items(), strict=True):
    ax.imshow(numbers, cmap="Blues", vmin=0, vmax=2 * numbers.max(), aspect="auto")
    for (row, column), number in np.ndenumerate(numbers):
        ax.text(column, row, f"{number:.4f}", ha="center", va="center", fontsize=8, color="black")
    ax.set_yticks(range(6), WORDS)
    columns = WORDS if numbers.shape[1] == 6 else range(3)
    ax.set_xticks(range(numbers.shape[1]), columns, rotation=45)
    ax.set_title(title)

# %% [markdown]
# The logits are symmetric: *journey* is as similar to *one* as *one* is to *journey*. The weights
# are not, because each row is divided by its own sum.
#
# The library has this as one function. It is `attend`, the function of chapter 4, with the same
# array three times and another score:

# %%
of_library = attn_jax.simplified_self_attention(jnp.array(x, jnp.float32))
array = jnp.array(x, jnp.float32)
by_attend = attn_jax.attend(query=array, key=array, value=array, score=scores.dot)
assert np.allclose(of_library, contexts, atol=1e-5)
assert np.allclose(by_attend, contexts, atol=1e-5)
assert np.allclose(all_logits, all_logits.T)
assert not np.allclose(all_weights, all_weights.T, atol=0.01)

# %% [markdown]
# ### The order of the words does not count
#
# If the words change places, the contexts change places with them, and no number changes. Attention
# takes a *set* of words. The recurrent encoder had the order in its states; here it is lost, until
# [chapter 8](08_many_heads_and_positions.py) adds positions.

# %%
order = [5, 0, 3, 1, 4, 2]
shuffled = attn_jax.simplified_self_attention(jnp.array(x[order], jnp.float32))
assert np.allclose(shuffled, contexts[order], atol=1e-5)

# %% [markdown]
# ## What was added
#
# *Self*: queries, keys and values are the words of one sentence. What was removed: the recurrent
# network and all parameters. One row of the contexts is chapter 4 with one query, a dot product as
# score, and the words as annotations.

# %% [markdown]
# ## Break it
#
# The idea is that weights depend on similarity. With equal weights all words get the same vector,
# the mean of the sentence, and nothing tells them apart.

# %%
equal = np.full((6, 6), 1 / 6) @ x
print(equal.round(4))
assert np.allclose(equal, equal[0])
assert np.ptp(contexts, axis=0).min() > 0.01

# %% [markdown]
# ## Exercises
#
# 1. Divide the logits by their sum, without a softmax. Compare the weights of *journey*. What goes
#    wrong if the vectors have negative entries? Subtract 0.5 from all vectors to see it.
# 2. Does each word attend most to itself? Multiply all vectors by 10 to see it more clearly.
# 3. A second *journey* is added to the sentence. How does the weight of *journey* change for the
#    query *one*? Compute it from the weight before.

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. Nearly the same here. But a negative logit becomes a negative weight; a softmax has none.
by_sum = logits / logits.sum()
assert np.allclose(by_sum, [0.1455, 0.2278, 0.2249, 0.1285, 0.1077, 0.1656], atol=5e-5)
moved = (x - 0.5) @ (x[JOURNEY] - 0.5)
print("by the sum:", (moved / moved.sum()).round(2))
print("softmax:   ", (np.exp(moved) / np.exp(moved).sum()).round(2))
assert (moved / moved.sum()).min() < -0.05

# %% tags=["hide-cell"]
# 2. No: "with" attends most to "journey", which has the longest vector of all.
sharp = np.exp(100 * all_logits - 100 * all_logits.max(axis=1, keepdims=True))
most = [WORDS[i] for i in sharp.argmax(axis=1)]
print(dict(zip(WORDS, most, strict=True)))
assert most[WORDS.index("with")] == "journey"
assert np.linalg.norm(x[JOURNEY]) == np.linalg.norm(x, axis=1).max()

# %% tags=["hide-cell"]
# 3. From w to 2 w / (1 + w) for both together: the sum of all weights stays 1.
one = WORDS.index("one")
seven = np.vstack([x, x[JOURNEY]])
longer = np.exp(seven @ x[one]) / np.exp(seven @ x[one]).sum()
w = all_weights[one, JOURNEY]
print(f"{w:.3f} → {longer[JOURNEY] + longer[-1]:.3f}")
assert np.isclose(longer[JOURNEY] + longer[-1], 2 * w / (1 + w))

# %% [markdown]
# Next: [6. Trainable weights](06_trainable_weights.py). The function:
# [attn_jax/lecture/functions.py](../../attn_jax/lecture/functions.py); all numbers of the book as
# tests: [tests/lecture/test_book_numbers.py](../../tests/lecture/test_book_numbers.py).
