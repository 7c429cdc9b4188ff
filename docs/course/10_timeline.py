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
# # 10. The timeline
#
# **The question.** The ideas of this course took some forty years. Which idea came when, and what
# is left of each mechanism if its new idea is taken away?
#
# Back-propagation trained networks with hidden layers in 1986 (Rumelhart, Hinton & Williams,
# [Nature 323](https://doi.org/10.1038/323533a0)). Elman's network of 1988 used the hidden layer of
# one word as an input for the next word ([published in 1990](https://doi.org/10.1207/s15516709cog1402_1)):
# the simple recurrent network. The rest of the history is in `attn_jax.lineage`, as data.

# %%
import tomllib
from importlib.resources import files

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

import attn_jax
from attn_jax import lineage, scores
from attn_jax.models import LSTM, GatedUnit

# %% [markdown]
# ## Picture
#
# Each row is a mechanism with its new idea, in the column of its year (not to scale). An arrow
# leads to the mechanism that is left without that idea, most often an older one. Simplified
# self-attention is younger than self-attention: the book of 2024 made it by taking the matrices
# away.

# %% tags=["hide-input"]
years = sorted({step.year for step in lineage.values()})
point = {s.name: (years.index(s.year), -row) for row, s in enumerate(lineage.values())}
_, axis = plt.subplots(figsize=(11.5, 6.6), layout="constrained")
for step in lineage.values():
    x, y = point[step.name]
    axis.hlines(y, -0.4, len(years) - 0.6, color="#eeeeee", zorder=0)
    axis.text(len(years) - 0.4, y, step.adds, va="center")
    for edge in step.reduces_to:
        to_x, to_y = point[edge.to]
        bend = 0.45 if to_y > y else -0.45  # edges of one year bend to the right
        style = {"arrowstyle": "->", "color": "tab:blue", "shrinkA": 4, "shrinkB": 4}
        style["connectionstyle"] = f"arc3,rad={bend if to_x == x else 0.1}"
        axis.annotate("", (to_x, to_y), (x, y), arrowprops=style)
axis.scatter(*zip(*point.values(), strict=True), color="tab:blue", zorder=3)
axis.set_yticks([y for _, y in point.values()], list(lineage), weight="bold")
axis.set_xticks(range(len(years)), years)
axis.set_xlim(-0.4, 2 * len(years) - 0.5)
axis.tick_params(length=0, top=True, labeltop=True)
axis.spines[:].set_visible(False)

# %% [markdown]
# ## Code
#
# The first edges, by hand. An **RNN** in three lines, and the **GRU** (Cho et al. 2014,
# [section 2.3](https://arxiv.org/abs/1406.1078)) with its two gates wide open: it always updates,
# it never resets, and it is that RNN.

# %%
T, M, N = 7, 3, 4  # words, width of a word, width of the state
rng = np.random.default_rng(0)
words, w, u = (rng.normal(size=size) / 2 for size in ((T, M), (M, N), (N, N)))


def rnn(activation):
    states = [np.zeros(N)]
    for word in words:
        states.append(activation(word @ w + states[-1] @ u))
    return np.array(states[1:])


def run(cell, *gates, place):
    """All outputs of a cell of the library, with the same gates at each word."""
    state, outputs = jnp.zeros(cell.state_dim), []
    for word in words:
        drive = list(gates)
        drive.insert(place, word @ w)
        state = cell(state, jnp.concatenate(drive))
        outputs.append(state[:N])
    return jnp.stack(outputs)


OPEN, CLOSED = jnp.full(N, 100.0), jnp.full(N, -100.0)  # σ(100) = 1, σ(−100) = 0
gru = GatedUnit(N, rngs=nnx.Rngs(0))
gru.candidate_kernel[...] = jnp.array(u)
assert np.allclose(run(gru, OPEN, OPEN, place=2), rnn(np.tanh), atol=1e-5)

# %% [markdown]
# The **LSTM** (Hochreiter & Schmidhuber 1997, [section 4](https://doi.org/10.1162/neco.1997.9.8.1735))
# keeps a memory beside its output. If it forgets the memory at once, it is an RNN whose activation
# is tanh twice: once into the memory, once out of it. (The forget gate is an addition of Gers et
# al. 2000.)

# %%
lstm = LSTM(N, rngs=nnx.Rngs(0))
lstm.cell.dense_h.kernel[:, 2 * N : 3 * N] = jnp.array(u)  # of the gates i, f, g, o


def tanh_twice(x):
    return np.tanh(np.tanh(x))


assert np.allclose(run(lstm, OPEN, CLOSED, OPEN, place=2), rnn(tanh_twice), atol=1e-5)

# %% [markdown]
# All edges of the picture are tests like these, in `tests/lineage`, in 64-bit numbers and each with
# a counterexample. One of the paths from GPT back to the RNN:

# %%
name = "GPT"
while lineage[name].reduces_to:
    older = lineage[name].reduces_to[0].to
    print(f"{lineage[name].year} {name}, without its idea: {older}")
    name = older
assert name == "RNN"

table = tomllib.loads((files("tests") / "data" / "reductions.toml").read_text("utf-8"))
tested = {(row["mechanism"], row["to"]) for row in table["reduction"]}
edges = {(step.name, edge.to) for step in lineage.values() for edge in step.reduces_to}
print(f"{len(edges)} edges, {len(edges & tested)} with a test")
assert tested == edges

# %% [markdown]
# ## What was added
#
# Nothing new: this chapter puts the ideas in order. A state (RNN); gates that protect it (LSTM,
# GRU); a second network that starts from one vector (encoder–decoder); attention to all words
# (Bahdanau, Luong); attention without recurrence (self-attention, heads, positions); blocks of it
# (Transformer); the decoder alone (GPT). Most reduce to an earlier one: this is what the arrows
# mean.

# %% [markdown]
# ## Break it
#
# Take the gates away, and then attention. How much does the last output depend on the *first* of
# 2 … 60 words? Through an RNN without gates, the derivative vanishes exponentially. Through an open
# memory it stays. Through attention there is a single step; the derivative falls only because more
# words share the weight.


# %%
def through_rnn(length):
    def last(first):
        state = first
        for _ in range(length):
            state = jnp.tanh(state @ orthogonal * 0.8)
        return state

    return last


def through_lstm(length):
    # The gates i, f, g, o: nothing enters; the memory keeps σ(5) = 0.993 of itself.
    keep = jnp.concatenate([CLOSED, jnp.full(N, 5.0), jnp.zeros(N), OPEN])

    def last(first):
        state = jnp.concatenate([jnp.zeros(N), first])
        for _ in range(length):
            state = lstm(state, keep)
        return state[N:]

    return last


def through_attention(length):
    others = 0.3 * jax.random.normal(jax.random.key(0), (length, N))
    attention = attn_jax.simplified_self_attention
    return lambda first: attention(jnp.vstack([first, others]))[-1]


orthogonal = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (N, N)))[0]
first, lengths = 0.3 * jnp.ones(N), (2, 10, 30, 60)
paths = {"RNN": through_rnn, "LSTM": through_lstm, "attention": through_attention}
print("words    ", "  ".join(f"{length:8}" for length in lengths))
sizes = {}
for name, path in paths.items():
    derivatives = [jax.jacobian(path(length))(first) for length in lengths]
    sizes[name] = [float(jnp.linalg.norm(derivative)) for derivative in derivatives]
    print(f"{name:9}", "  ".join(f"{size:.6f}" for size in sizes[name]))
assert sizes["RNN"][-1] < 0.01 * sizes["RNN"][0]
assert sizes["LSTM"][-1] > 0.5 * sizes["LSTM"][0]
assert sizes["attention"][-1] > 10 * sizes["RNN"][-1]

# %% [markdown]
# ## Exercises
#
# 1. Set the gates of the GRU so that its state never changes.
# 2. Which mechanisms does GPT build on? Collect them from `lineage`.
# 3. Show the edge from Bahdanau attention to the encoder–decoder: if all weight is on the last
#    word, every decode step gets the same vector.

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. A closed update gate. The state stays at zero, whatever the words are.
assert not run(gru, CLOSED, OPEN, place=2).any()


# %% tags=["hide-cell"]
# 2. Follow all edges. Four mechanisms are not below GPT. The LSTM is one: encoder–decoders
# used it too, but Cho's, from which the path leads on, has a GRU.
def below(name):
    older = [edge.to for edge in lineage[name].reduces_to]
    return {*older}.union(*(below(one) for one in older))


others = {*lineage} - below("GPT") - {"GPT"}
positions = {"sinusoidal positions", "learned positions"}
assert others == positions | {"LSTM", "grouped-query attention"}

# %% tags=["hide-cell"]
# 3. A mask that is True at the last word only. The decoder's states no longer matter.
states, annotations = (jnp.array(rng.normal(size=(n, N)), jnp.float32) for n in (5, T))
only_last = jnp.arange(T)[None] == T - 1
attend = {"score": lambda query, key: scores.additive(query, key, jnp.ones(N))}
contexts = attn_jax.attend(states, annotations, annotations, mask=only_last, **attend)
assert np.array_equal(contexts, np.tile(annotations[-1], (5, 1)))
contexts = attn_jax.attend(states, annotations, annotations, **attend)
assert not np.allclose(contexts, contexts[0], atol=0.01)

# %% [markdown]
# Next: this is the last chapter. [How to choose](../how_to_choose.md) leads from here to the
# functions, and `.venv/bin/python -m experiments.translate` repeats the comparison of chapters 2 to
# 4 with real sentences.
