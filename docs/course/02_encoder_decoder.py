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
# # 2. Encoder and decoder
#
# **The question.** A translation needs the whole English sentence before its first French word
# ([chapter 1](01_word_by_word.py)). Sentences have different lengths, and a network works on
# vectors of fixed size. How does a sentence become a vector, and how does a vector become a
# sentence of another language?

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

from attn_jax.models import (
    BOS,
    EOS,
    EncoderDecoder,
    EncoderDecoderConfig,
    GatedUnit,
    greedy_search,
    translation_loss,
)
from experiments.data.batches import Example, pad
from experiments.data.toy_grammar import sample, text
from experiments.measures.toy_translation import Vocabulary

# %% [markdown]
# ## Picture
#
# The **encoder** takes one word after the other. It keeps one vector, its *hidden state* `h`, and
# each word changes it. The state after the last word is the **context**. The **decoder** starts
# from the context and writes one French word after the other. The inputs of its next step are the
# word that it wrote and, in our model, the context again.

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(9, 2.6), facecolor="white", layout="constrained")
english, french = ["the", "black", "cat", "jumped"], ["le", "chat", "noir", "a", "sauté", "<end>"]
labels = [f"h{j}" for j in range(1, 5)] + [f"s{i}" for i in range(1, 7)]
for x, label in enumerate(labels):
    encoder = label.startswith("h")
    colour = "#0072B2" if encoder else "#D55E00"
    context = {"facecolor": colour, "linewidth": 3} if label == "h4" else {"facecolor": "white"}
    box = {"boxstyle": "round,pad=0.4", "edgecolor": colour} | context
    ax.text(x, 1, label, ha="center", va="center", bbox=box, color="white" if x == 3 else "black")
    if x < 9:
        ax.annotate("", (x + 0.7, 1), (x + 0.3, 1), arrowprops={"arrowstyle": "->", "color": "0.3"})
    word = english[x] if encoder else french[x - 4]
    start, end = ((x, 0.25), (x, 0.7)) if encoder else ((x, 1.3), (x, 1.75))
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": "0.3"})
    ax.text(x, 0.1 if encoder else 1.9, word, ha="center", va="center", color="black")
ax.text(3.1, 1.6, "the context:\none vector", ha="center", va="center", color="black")
ax.set(xlim=(-0.5, 9.5), ylim=(-0.1, 2.1))
ax.set_axis_off()

# %% [markdown]
# **The decoder sees one vector of fixed size, whatever the length of the sentence.** The lecture
# compares this with an exam after a course of six months, for which you may use a summary of one
# page and nothing else.

# %% [markdown]
# ## Code
#
# ### One step of the encoder
#
# The state should keep what was, and take in what is new. A gated unit (Cho et al. 2014, section
# 2.3, <https://arxiv.org/abs/1406.1078>) computes for each entry how much: the update gate `z` is
# 0 where the old value stays, and 1 where the candidate replaces it. The reset gate `r` is 0 where
# the candidate ignores the old value. `drive` is the input word
# after a matrix, one part for each gate and one for the candidate.


# %%
def gated_step(state, drive, w_gates, w_candidate):
    gates, new = jnp.split(drive, [2 * state.size])
    z, r = jnp.split(jax.nn.sigmoid(gates + state @ w_gates), 2)
    candidate = jnp.tanh(new + (r * state) @ w_candidate)
    return (1 - z) * state + z * candidate


unit = GatedUnit(4, rngs=nnx.Rngs(0))
state, drive = jnp.array([0.5, -0.5, 0.1, 0.9]), jnp.linspace(-2, 2, 12)
by_hand = gated_step(state, drive, unit.gate_kernel[...], unit.candidate_kernel[...])
print(by_hand)
assert jnp.allclose(by_hand, unit(state, drive), atol=1e-6)

# %% [markdown]
# ### The model
#
# `EncoderDecoder` with `context="final"` is the picture above: its decoder gets the encoder's final
# state and nothing else of the source. We train it on short sentences of the toy grammar.

# %%
sentences = sample(np.random.default_rng(0), 1000, (0,))
train, test = sentences[:900], sentences[900:]
source_words = Vocabulary.of(sentence.english for sentence in sentences)
target_words = Vocabulary.of(sentence.french for sentence in sentences)


def padded(sentences):
    english = [source_words.encode(sentence.english) for sentence in sentences]
    french = [target_words.encode(sentence.french) for sentence in sentences]
    pairs = zip(english, french, strict=True)
    return pad([Example(source, [*target, EOS]) for source, target in pairs], (5, 8))


config = EncoderDecoderConfig(
    source_words.size,
    target_words.size,
    embed_dim=32,
    hidden_dim=32,
    readout_dim=32,
    context="final",
    init="glorot",
)
graph, params = nnx.split(EncoderDecoder(config, rngs=nnx.Rngs(0)))
optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, 200))


@jax.jit
def update(params, state, batch):
    """One step of training: the loss is the mean of −log p of each French word."""

    def loss(params):
        return translation_loss(nnx.merge(graph, params), batch)[0]

    value, gradient = jax.value_and_grad(loss)(params)
    change, state = optimiser.update(gradient, state)
    return optax.apply_updates(params, change), state, value


data, optimiser_state = padded(train), optimiser.init(params)
rng = np.random.default_rng(0)
for step in range(200):
    rows = rng.integers(len(train), size=64)
    batch = jax.tree.map(lambda array, rows=rows: array[rows], data)
    params, optimiser_state, value = update(params, optimiser_state, batch)
    if step % 50 == 0 or step == 199:
        print(f"step {step:3}: loss {value:.3f}")
model = nnx.merge(graph, params)

# %% [markdown]
# The decoder by hand: its first input is the mark `BOS`, and it stops after `EOS`. `greedy_search`
# is the library's form of this loop; it also records what the decoder computed, as a `Trace`.


# %%
def decode(memory):
    state, token, written = model.start(memory), BOS, []
    while token != EOS and len(written) < 8:
        state, step = model.step(memory, state, jnp.array(token))
        token = int(step.logits.argmax())
        written.append(token)
    return written


def encode(sentence):
    ids = jnp.array(source_words.encode(sentence.english))
    return model.encode(ids, jnp.ones(ids.size, bool))


@jax.jit
def search(source, mask):
    return jax.vmap(lambda s, m: greedy_search(model, s, m, max_length=8))(source, mask)


batch = padded(test)
trace = search(batch.source, batch.source_mask)
first = int(trace.target_mask[0].sum())
assert decode(encode(test[0])) == trace.target[0, :first].tolist()
exact = float((trace.target == batch.target).all(axis=1).mean())
french = target_words.decode(trace.target[0, : first - 1].tolist())
print(text(test[0].english), "→", text(french))
print(f"{exact:.0%} of {len(test)} new sentences are translated exactly")
assert exact > 0.6

# %% [markdown]
# The dictionary of chapter 1 got about a quarter of such sentences. Below are the encoder's states
# for two of them: 32 numbers for each word, blue if positive and red if negative. Only the last
# column of each goes to the decoder.

# %% tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), facecolor="white", layout="constrained")
shortest = min(test, key=lambda sentence: len(sentence.english))
longest = max(test, key=lambda sentence: len(sentence.english))
for ax, sentence in zip(axes, (shortest, longest), strict=True):
    memory = encode(sentence)
    ax.imshow(memory.annotations.T, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    ax.set_xticks(range(len(sentence.english)), sentence.english, rotation=30)
    last = len(sentence.english) - 1
    ax.add_patch(plt.Rectangle((last - 0.5, -0.5), 1, 32, fill=False, linewidth=3))
    ax.set(ylabel="entry of the state", title=f"context: {memory.summary.size} numbers")
    assert memory.summary.shape == (32,)
    assert jnp.array_equal(memory.summary, memory.annotations[-1])

# %% [markdown]
# ## What was added
#
# A dictionary has an output for a word. The encoder–decoder has an output for a sentence: order,
# gender and sense can be right, because all words are in the context vector before the first
# French word is written. With a context that is always the same, each output would be the same
# sentence: the words of the source reach the decoder by the context alone.

# %% [markdown]
# ## Break it
#
# We replace the context by zeros. The decoder still writes French, since it learned which French
# words follow each other. But it writes the same sentence for every source.

# %%
without = [encode(s)._replace(summary=jnp.zeros(32)) for s in test[:4]]
for sentence, memory in zip(test, without, strict=False):
    print(text(sentence.english), "→", text(target_words.decode(decode(memory)[:-1])))
assert len({tuple(decode(memory)) for memory in without}) == 1

# %% [markdown]
# ## Exercises
#
# 1. Write the whole encoder by hand, with `gated_step`, `model.encoder.embedding` and
#    `model.encoder.inputs[0]`, and compare all states with `encode(sentence).annotations`.
# 2. Give the decoder everything of one sentence except its context, which is that of another
#    sentence. Which sentence does it write?
# 3. Does the context depend on the order of the words? Does the mean of the word vectors?

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. A loop over the words; the state starts at zero.
encoder, cell = model.encoder, model.encoder.cells[0]
state, states = jnp.zeros(32), []
for word_id in source_words.encode(test[0].english):
    drive = encoder.inputs[0](encoder.embedding[...][word_id])
    state = gated_step(state, drive, cell.gate_kernel[...], cell.candidate_kernel[...])
    states.append(state)
assert jnp.allclose(jnp.stack(states), encode(test[0]).annotations, atol=1e-5)

# %% tags=["hide-cell"]
# 2. The second sentence's translation: nothing else of the source reaches the decoder.
mixed = encode(test[0])._replace(summary=encode(test[1]).summary)
assert decode(mixed) == decode(encode(test[1]))
assert decode(mixed) != decode(encode(test[0]))

# %% tags=["hide-cell"]
# 3. The context does, because each step starts from the state before. A mean does not.
ids = jnp.array(source_words.encode(test[0].english))
every = jnp.ones(ids.size, bool)
contexts = [model.encode(order, every).summary for order in (ids, ids[::-1])]
means = [encoder.embedding[...][order].mean(axis=0) for order in (ids, ids[::-1])]
assert not jnp.allclose(*contexts, atol=1e-2)
assert jnp.allclose(*means, atol=1e-6)

# %% [markdown]
# Next: [3. Long sentences lose context](03_long_sentences.py). The classes in detail:
# [attn_jax/models](../../attn_jax/models/encoder_decoder.py). The pictures follow J. Alammar,
# [Visualizing A Neural Machine Translation Model](https://jalammar.github.io/visualizing-neural-machine-translation-mechanics-of-seq2seq-models-with-attention/).
