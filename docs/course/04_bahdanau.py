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
# # 4. Bahdanau's look back
#
# **The question.** One vector is too small for a long sentence
# ([chapter 3](03_long_sentences.py)). But the encoder has a state after *every* word. What if the
# decoder may look back at all of these states, and selects from them anew for each word it writes?

# %%
import dataclasses
import tempfile
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from attn_jax import attend, scores
from attn_jax.models import EOS, greedy_search
from attn_jax.viewer import AttentionView
from experiments.data.toy_grammar import LECTURE, realise, sample, text
from experiments.gallery.pages import figure_3a
from experiments.measures.toy_translation import TrainingPairs, train_translator
from experiments.systems.translation import Widths
from experiments.training.task import TrainConfig

# %% [markdown]
# ## Picture
#
# Figure 3(a) of Bahdanau, Cho and Bengio (2014), <https://arxiv.org/abs/1409.0473>. Each row is a
# French word that the decoder wrote, each column an English word. A cell is the weight with which
# the decoder attended to that English word when it wrote the French word. *European Economic Area*
# becomes *zone économique européenne*: there the large weights are in reverse order. The network
# was trained on pairs of sentences, without any information on which word translates which.

# %%
figure_3a()

# %% [markdown]
# ## Code
#
# ### By hand
#
# An encoder state is now called an **annotation** of its word. This encoder reads the sentence in
# both directions; an annotation joins the two states of a word. For each French word, the decoder
# computes (section 3.1 and appendix A.1.2):
#
# 1. one **logit** for each English word: a small network compares the decoder's state with the
#    annotation;
# 2. the **weights**: a softmax of the logits, so they are positive and their sum is 1;
# 3. the **context**: the mean of the annotations under these weights.
#
# The next French word then depends on the context, the state and the French word before.


# %%
def look_back(state, annotations, w_query, w_key, v):
    hidden = np.tanh(state @ w_query + annotations @ w_key)  # one row for each English word
    logits = hidden @ v
    powers = np.exp(logits - logits.max())
    weights = powers / powers.sum()
    return weights @ annotations, weights


rng = np.random.default_rng(0)
S, n, E, A = 5, 3, 6, 4  # English words; widths of state, annotation and small network
shapes = ((n,), (S, E), (n, A), (E, A), (A,))
arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
state, annotations, w_query, w_key, v = arrays
context, weights = look_back(state, annotations, w_query, w_key, v)
print("weights", weights.round(3))
print("context", context.round(3))

# %% [markdown]
# In the library this is `attend` with the additive score. The query is the projected state, the
# keys are the projected annotations, the values are the annotations:

# %%
score = partial(scores.additive, out_kernel=jnp.array(v))
query, keys = jnp.array(state @ w_query)[None], jnp.array(annotations @ w_key)
values = jnp.array(annotations)
assert jnp.allclose(attend(query, keys, values, score=score)[0], context, atol=1e-5)

# %% [markdown]
# ### The network
#
# Grammar, widths and training are those of chapter 3. Only the system is another one: `"bahdanau"`
# is `EncoderDecoder` with `context="attention"`. It is trained on sentence pairs alone, without
# alignments.

# %%
lecture, rng = realise(LECTURE), np.random.default_rng(0)
held_out = {lecture.english}
test = [s for depth in range(5) for s in sample(rng, 64, (depth,), exclude=held_out)]
held_out |= {sentence.english for sentence in test}
train = sample(rng, 16_000, (0, 1, 2, 3), exclude=held_out)

pairs = TrainingPairs([(s.english, s.french) for s in train], longest=48)
sizes = dict.fromkeys(("embed_dim", "hidden_dim", "align_dim", "readout_dim"), 64)
widths = Widths(**sizes, dropout_rate=0.2)
config = TrainConfig(steps=1200, learning_rate=5e-3, checkpoint_every=1200)
with tempfile.TemporaryDirectory() as folder:
    translator = train_translator(pairs, "bahdanau", widths, config, Path(folder) / "run")


def accuracy(translator):
    """The share of sentences whose every word is right, at each depth."""
    found = translator.translate([s.english for s in test])
    right = np.array([a.generated == s.french for a, s in zip(found, test, strict=True)])
    return right.reshape(5, 64).mean(axis=1)


exact = accuracy(translator)
for depth, share in enumerate(exact):
    print(f"depth {depth}: {share:.2f}{' (not in training)' if depth == 4 else ''}")
assert exact[:4].min() > 0.6

# %% [markdown]
# At depth 3, the network with one vector translated less than half of the sentences.
#
# ### *sauté* attends to *jumped*
#
# The lecture says that the decoder focuses on *jumped* when it writes *sauté*. The figure has the
# weights for the lecture's sentence; orange frames are the true links, from the grammar. An article
# may also attend to its noun, which decides between *le* and *la*.

# %%
[alignment] = translator.align([(lecture.english, lecture.french)])
row = alignment.weights[lecture.french.index("sauté")]
print(f"sauté attends to {lecture.english[row.argmax()]} with weight {row.max():.2f}")
assert lecture.english[row.argmax()] == "jumped"

# %% tags=["hide-input"]
figure, ax = plt.subplots(figsize=(7.5, 6.5), facecolor="white", layout="constrained")
ax.imshow(alignment.weights, cmap="Blues", vmin=0, vmax=1)
ax.set_xticks(range(len(lecture.english)), lecture.english, rotation=60)
ax.set_yticks(range(len(lecture.french)), lecture.french)
ax.xaxis.tick_top()
for target, source in lecture.sure:
    frame = plt.Rectangle((source - 0.45, target - 0.45), 0.9, 0.9, fill=False, color="#D55E00")
    ax.add_patch(frame)
ax.set_axisbelow(True)

# %% [markdown]
# As in the paper's figure, the large weights are on a diagonal where both languages have the same
# order. Where a noun and its adjective change places, the rows are reversed: in the paper's figure,
# and in a test sentence of ours.


# %%
def attended(rows, weights, words):
    best = [words[column] for column in weights.argmax(axis=1)]
    return ", ".join(f"{row} ← {word}" for row, word in zip(rows, best, strict=True))


paper = figure_3a().readings[0]
zone = slice(paper.queries.index("zone"), paper.queries.index("européenne") + 1)
print(attended(paper.queries[zone], paper.weights(0, 0)[zone], paper.keys))
crossing = next(s for s in test if "crossing" in {span.phenomenon for span in s.spans})
[ours] = translator.align([(crossing.english, crossing.french)])
print(attended(ours.generated, ours.weights, ours.source))

# %% [markdown]
# The decoder's steps one after the other, as an animation (press ▶). `Trace` is the record of a
# translation that `greedy_search` returns.

# %%
model = translator.network.model(translator.params)
source = jnp.array(translator.source.encode(lecture.english))
trace = greedy_search(model, source, source > 0, max_length=30)
memory = model.encode(source, source > 0)


def word(i):
    return "<end>" if i == EOS else translator.target.decode([i])[0]


written = [word(int(i)) for i in trace.target[trace.target_mask]]
print(text(written[:-1]))
AttentionView.from_trace(
    trace,
    lecture.english,
    written,
    annotations=memory.annotations,
    word=word,
    title="The lecture's sentence, step by step",
)

# %% [markdown]
# `look_back` computes all these weights. The query of a step is the state after the step before:

# %%
attention = model.decoder.attention
kernels = (attention.query_kernel.kernel, attention.key_kernel.kernel, attention.v)
trained = [np.asarray(kernel[...]) for kernel in kernels]
for i in range(1, len(written)):
    context, weights = look_back(trace.states[i - 1], memory.annotations, *trained)
    assert np.allclose(weights, trace.weights[i], atol=1e-4)
    assert np.allclose(context, trace.contexts[i], atol=1e-4)

# %% [markdown]
# ## What was added
#
# A context for each French word, instead of one for the sentence. A longer sentence has more
# annotations, so the decoder has more to attend to. If all weight is on the last annotation, each
# context is the same vector, as in chapter 3 (exercise 2).

# %% [markdown]
# ## Break it
#
# With `v = 0` all logits are 0 and all weights are equal, so the context is the same mean at each
# step. Each step again gets one and the same vector, whatever the length. This network was trained
# with other weights, so it is worse than the network of chapter 3.

# %%
broken = nnx.clone(model)
broken.decoder.attention.v[...] = jnp.zeros(64)
without = accuracy(dataclasses.replace(translator, params=nnx.state(broken)))
print("depth 0 to 4:", without.round(2))
assert without[2:4].max() < 0.3

# %% [markdown]
# ## Exercises
#
# 1. Remove `tanh` from `look_back`. Why do the weights no longer depend on the state?
# 2. Give `attend` a mask that leaves only the last annotation. What is the context?
# 3. In which share of all French words is the largest weight at a true link (`sentence.possible`)?
#    And what happens at depth 4, where sentences are longer than any in training?

# %% [markdown]
# ## Answers


# %% tags=["hide-cell"]
# 1. Without tanh the logit is (state · w_query) · v + (annotation · w_key) · v. The first part is
#    the same for all words, and a softmax does not change if all logits grow by the same number
#    (Brody et al. 2021, https://arxiv.org/abs/2105.14491).
def without_tanh(state):
    logits = (state @ w_query + annotations @ w_key) @ v
    return np.exp(logits) / np.exp(logits).sum()


with_tanh = [look_back(s, annotations, w_query, w_key, v)[1] for s in (state, -3 * state)]
assert np.allclose(without_tanh(state), without_tanh(-3 * state), atol=1e-5)
assert not np.allclose(*with_tanh, atol=0.05)

# %% tags=["hide-cell"]
# 2. The last annotation, at each step: one vector, as in chapters 2 and 3.
last = jnp.arange(S) == S - 1
only_last = attend(query, keys, values, score=score, mask=last[None])
assert jnp.allclose(only_last[0], values[-1], atol=1e-6)

# %% tags=["hide-cell"]
# 3. Most of them. Sentences of depth 4 are longer than any in training; there fewer weights are at
#    true links, and fewer translations are right. Attention alone does not extend to new lengths.
found = translator.align([(s.english, s.french) for s in test])
hits = [[], [], [], [], []]
for sentence, aligned in zip(test, found, strict=True):
    best = enumerate(aligned.weights.argmax(axis=1).tolist())
    hits[sentence.depth] += [link in sentence.possible for link in best]
shares = [float(np.mean(part)) for part in hits]
print("at a true link, by depth:", np.round(shares, 2))
assert min(shares[:4]) > 0.7
assert exact[4] < exact[3]

# %% [markdown]
# Next: [5. Simplified self-attention](05_simplified_self_attention.py). The arguments of `attend`:
# [how to choose](../how_to_choose.md). The same comparison on real sentences:
# [report](../../experiments/results/docs-seed0/report.md).
