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
# # 6. Trainable weights
#
# **The question.** In [chapter 5](05_simplified_self_attention.py) a word attends to the words that
# are similar to it. But what is useful depends on the task: a verb needs its subject, a question
# needs its answer, and neither pair is similar. How can a network *learn* which word attends to
# which?
#
# The answer is three matrices. Each word makes a **query** (what it needs), a **key** (what it can
# be found by) and a **value** (what it passes on). Training changes the matrices.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import attn_jax

# %% [markdown]
# ## Picture
#
# The six words of chapter 5, each of width 3. The matrices are those of Raschka, *Build a Large
# Language Model (From Scratch)* (2024), section 3.4, so each number can be compared with the book.

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
w_query = np.array([[0.296112, 0.516562], [0.251671, 0.688557], [0.073972, 0.866522]])
w_key = np.array([[0.136580, 0.102479], [0.184056, 0.726447], [0.315254, 0.687107]])
w_value = np.array([[0.075635, 0.196638], [0.316412, 0.401740], [0.118568, 0.827395]])


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


query, key, value = x @ w_query, x @ w_key, x @ w_value
weights = softmax(query @ key.T / np.sqrt(2))
panels = {
    "words x": x,
    "queries\nx · w_query": query,
    "keys\nx · w_key": key,
    "values\nx · w_value": value,
    "weights\nsoftmax(q · kᵀ / √2)": weights,
    "context\nweights · values": weights @ value,
}
widths = [panel.shape[1] for panel in panels.values()]
_, axes = plt.subplots(1, 6, figsize=(12, 3.2), width_ratios=widths, layout="constrained")
for axis, (name, panel) in zip(axes, panels.items(), strict=True):
    axis.imshow(panel, cmap="Blues", vmin=0, vmax=panel.max() * 1.6, aspect="auto")
    for (row, column), number in np.ndenumerate(panel):
        axis.text(column, row, f"{number:.2f}", ha="center", va="center", fontsize=8)
    axis.set(title=name, xticks=[], yticks=[])
axes[0].set_yticks(range(6), WORDS)
axes[0].tick_params(length=0)

# %% [markdown]
# ## Code
#
# By hand, for the second word, *journey*. The three products are all that is new; the rest is
# chapter 5, and a division by √2, the root of the queries' width. The library's function does the
# same for all six words at once.

# %%
logits = query[1] @ key.T / np.sqrt(2)
weights_of_journey = softmax(logits)
context = weights_of_journey @ value
print("query  ", query[1].round(4))
print("logits ", logits.round(4))
print("weights", weights_of_journey.round(4))
print("context", context.round(4))
before_the_division = [1.2705, 1.8524, 1.8111, 1.0795, 0.5577, 1.5440]  # printed in the book
assert np.allclose(logits * np.sqrt(2), before_the_division, atol=1e-4)

arrays = [jnp.array(array) for array in (x, w_query, w_key, w_value)]
by_library = attn_jax.self_attention(*arrays)
assert np.allclose(by_library[1], context, atol=1e-5)

# %% [markdown]
# ### Why divide by √d
#
# The score of two random vectors of width d is a sum of d products, so its spread grows as √d.
# Large scores push the softmax to 0 and 1, where it is flat: its derivative vanishes, and training
# stops. Divided by √d, the scores of all widths have the same spread (Vaswani et al. 2017,
# [section 3.2.1](https://arxiv.org/abs/1706.03762)).


# %%
def softmax_of_random_scores(d, scale):
    """Of 200 queries over 6 keys: greatest weight, and derivative of the softmax."""
    rng = np.random.default_rng(0)
    queries, keys = rng.normal(size=(200, 1, d)), rng.normal(size=(200, 6, d))
    scores = (queries * keys).sum(axis=2)
    weights = softmax(scale * scores)
    return weights.max(axis=1).mean(), (weights * (1 - weights)).mean()


for d in (4, 64, 1024):
    plain, scaled = (softmax_of_random_scores(d, scale) for scale in (1, d**-0.5))
    print(
        f"d = {d:4}: greatest weight {plain[0]:.2f}, derivative {plain[1]:.4f}; "
        f"divided by √d: {scaled[0]:.2f}, {scaled[1]:.4f}"
    )
assert plain[1] < 0.03 < 0.09 < scaled[1]  # at d = 1024

# %% [markdown]
# ### A training step, and a hundred of them
#
# A task that similarity cannot solve. Five animals each have a colour: `cat red`, `dog blue`, ….
# The last word asks in French: `chien ?`. The answer is the colour of the dog. The vectors of *dog*
# and *chien* are random, so nothing but training can tell that they belong together.

# %%
WIDTH = 24
rng = np.random.default_rng(1)
english, french, colours = rng.normal(size=(3, 5, WIDTH)) / np.sqrt(WIDTH / 4)


def make_questions(count):
    """Sequences of five animals and a question; right colours, and where they are."""
    order = np.array([rng.permutation(5) for _ in range(count)])
    colour = rng.integers(5, size=(count, 5))
    asked, rows = rng.integers(5, size=count), np.arange(count)
    items = english[order] + colours[colour]
    sequences = np.concatenate([items, french[order[rows, asked]][:, None]], axis=1)
    return jnp.array(sequences, jnp.float32), jnp.array(colour[rows, asked]), asked


train, test = make_questions(1000), make_questions(500)

# %% [markdown]
# The model is one self-attention. The context of the question, times the vectors of the colours,
# gives one logit for each colour. The loss is the cross-entropy of the right colour.


# %%
def logits(params, sequences):
    attend = jax.vmap(attn_jax.self_attention, in_axes=(0, None, None, None))
    contexts = attend(sequences, *params)
    return contexts[:, -1] @ jnp.array(colours.T, jnp.float32)


def loss(params):
    sequences, colour, _ = train
    losses = optax.softmax_cross_entropy_with_integer_labels
    return losses(logits(params, sequences), colour).mean()


def right_answers(params):
    return float((logits(params, test[0]).argmax(axis=1) == test[1]).mean())


optimiser = optax.adam(1e-2)
start = [0.1 * w for w in jax.random.normal(jax.random.key(0), (3, WIDTH, WIDTH))]


@jax.jit
def training_step(params, opt_state):
    now, gradients = jax.value_and_grad(loss)(params)
    updates, opt_state = optimiser.update(gradients, opt_state)
    return optax.apply_updates(params, updates), opt_state, now


params, opt_state = start, optimiser.init(start)
for step in range(100):
    params, opt_state, now = training_step(params, opt_state)
    if step in (0, 10, 99):
        print(f"step {step:2}: loss {now:.3f}, {right_answers(params):.0%} right")
assert right_answers(start) < 0.5 < 0.95 < right_answers(params)

# Where does the question attend to? To the animal that it asks for, wherever it stands.
sequences, _, asked = test
queries, keys = sequences @ params[0], sequences @ params[1]
weights = jax.vmap(attn_jax.attention_weights)(queries, keys)[:, -1]
on_asked = float(weights[np.arange(500), asked].mean())
print(f"mean weight of the question on the animal that it asks for: {on_asked:.2f}")
assert on_asked > 0.8

# %% [markdown]
# ## What was added
#
# Three matrices and the division by √d. With `w_query = √d · I`, `w_key = w_value = I` the
# division and the matrices cancel, and what is left is simplified self-attention (exercise 1; the
# library's test of it is `test_a01…` in `tests/lineage`). We write: self-attention *reduces to*
# simplified self-attention.

# %% [markdown]
# ## Break it
#
# Without the matrices: the question attends by similarity, as in chapter 5. It is most similar to
# itself, and not more similar to *dog* than to *cat*.

# %%
contexts = jax.vmap(attn_jax.simplified_self_attention)(test[0])[:, -1]
untrained = float(((contexts @ colours.T).argmax(axis=1) == test[1]).mean())
print(f"right: {untrained:.0%} without matrices, {right_answers(params):.0%} with them")
assert untrained < 0.6 < right_answers(params)

# %% [markdown]
# ## Exercises
#
# 1. Choose the three matrices so that `self_attention` gives the six words the context vectors of
#    chapter 5.
# 2. Multiply `w_query` by any invertible matrix A. By what must `w_key` be multiplied so that no
#    output changes? What does that tell about the two matrices?
# 3. Many models add a bias to each projection. Show that a bias of the *keys* changes nothing, and
#    that a bias of the *queries* does.

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. √d · I for the queries undoes the division by √d; the others are the identity.
words, eye = jnp.array(x), jnp.eye(3)
same = attn_jax.self_attention(words, jnp.sqrt(3.0) * eye, eye, eye)
assert np.allclose(same, attn_jax.simplified_self_attention(words), atol=1e-6)

# %% tags=["hide-cell"]
# 2. By the inverse of Aᵀ. Only the product w_query · w_keyᵀ matters, not its two factors.
A = np.array([[2.0, 1.0], [-1.0, 3.0]])
changed = x @ (w_query @ A) @ (x @ (w_key @ np.linalg.inv(A).T)).T
assert np.allclose(changed, query @ key.T)
assert not np.allclose(x @ (w_query @ A) @ (x @ (w_key @ A)).T, query @ key.T)

# %% tags=["hide-cell"]
# 3. A key bias adds the same number to all scores of a query, which the softmax ignores.
bias = np.array([3.0, -2.0])
unchanged = softmax(query @ (key + bias).T / np.sqrt(2))
assert np.allclose(unchanged, softmax(query @ key.T / np.sqrt(2)))
changed = softmax((query + bias) @ key.T / np.sqrt(2))
assert not np.allclose(changed, unchanged, atol=0.01)

# %% [markdown]
# Next: [7. Causal attention and dropout](07_causal_and_dropout.py). The layer with batches, masks
# and caches is `attn_jax.modules.MultiHeadAttention`; [how to choose](../how_to_choose.md) lists
# the functions.
