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
# # 3. Long sentences lose context
#
# **The question.** The decoder of [chapter 2](02_encoder_decoder.py) sees one vector of fixed size.
# It translated short sentences. What happens if the sentence is longer, and the vector is not?

# %%
import tempfile
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from experiments.data.grammar_trees import (
    ADJECTIVES,
    LECTURE,
    NOUNS,
    PARTICIPLES,
    PREPOSITIONS,
    VERBS,
    Clause,
    NounPhrase,
    Tree,
)
from experiments.data.toy_grammar import realise, sample, text
from experiments.measures.grammar_scores import score_by_depth
from experiments.measures.toy_translation import TrainingPairs, train_translator
from experiments.systems.translation import Widths
from experiments.training.task import TrainConfig

# %% [markdown]
# ## Picture
#
# The lecture's sentence is *The cat that was sitting on the mat, which was next to the dog,
# jumped*. It has two relative clauses between *cat* and *jumped*; its **depth** is 2. Here it is
# with fewer and with more clauses. The context at the right has 64 numbers each time.

# %% tags=["hide-input"]
noun = {word.english: word for word in NOUNS}
adjective = {word.english: word for word in ADJECTIVES}
place = {" ".join(word.english): word for word in PREPOSITIONS}
CHAIN = (("on", "old", "mat"), ("next to", "white", "dog"), ("behind", "green", "table"))
CHAIN = (("", "black", "cat"), *CHAIN, ("near", "red", "bed"))


def the_cat(depth, colours=False):
    """The lecture's sentence with another number of clauses, and perhaps with adjectives."""
    clause = None
    for i in range(depth, -1, -1):
        where, colour, name = CHAIN[i]
        phrase = NounPhrase(noun[name], True, (adjective[colour],) * colours, clause)
        if i > 0:
            sitting = PARTICIPLES[0] if i == 1 else None
            clause = Clause(place[where], phrase, participle=sitting, restrictive=i == 1)
    return realise(Tree(phrase, VERBS[0]))


assert the_cat(2).english == realise(LECTURE).english
figure, ax = plt.subplots(figsize=(9, 2.6), facecolor="white", layout="constrained")
for row, depth in enumerate((3, 2, 1, 0)):
    words = the_cat(depth).english
    for x, word in enumerate(words):
        marked = word in ("cat", "jumped")
        ax.add_patch(plt.Rectangle((x, row), 0.9, 0.7, color="#0072B2" if marked else "0.75"))
    ax.text(len(words) + 0.3, row + 0.35, f"{len(words)} words", va="center", color="black")
    ax.annotate("", (29, row + 0.35), (26, row + 0.35), arrowprops={"arrowstyle": "->"})
    ax.add_patch(plt.Rectangle((29.2, row), 3, 0.7, color="#D55E00"))
    ax.text(30.7, row + 0.35, "64", ha="center", va="center", color="white")
    ax.text(-0.5, row + 0.35, f"depth {depth}", ha="right", va="center", color="black")
ax.text(30.7, 4, "context", ha="center", color="black")
ax.set(xlim=(-3.5, 33), ylim=(-0.2, 4.5))
ax.set_axis_off()

# %% [markdown]
# ## Code
#
# We train the kind of network of chapter 2, now with 64 numbers instead of 32, and on sentences of
# depth 0 to 3. `train_translator` is the training loop of that chapter with batches of similar
# lengths, dropout and checkpoints. The system `"final"` is `EncoderDecoder` with `context="final"`.
# The lecture's sentence is not among the training sentences.

# %%
rng = np.random.default_rng(0)
lectures = [the_cat(depth, colours) for colours in (False, True) for depth in range(5)]
held_out = {sentence.english for sentence in lectures}
test = [s for depth in range(4) for s in sample(rng, 64, (depth,), exclude=held_out)]
held_out |= {sentence.english for sentence in test}
train = sample(rng, 16_000, (0, 1, 2, 3), exclude=held_out)

pairs = TrainingPairs([(s.english, s.french) for s in train], longest=40)
sizes = dict.fromkeys(("embed_dim", "hidden_dim", "align_dim", "readout_dim"), 64)
widths = Widths(**sizes, dropout_rate=0.2)
config = TrainConfig(steps=2000, learning_rate=5e-3, checkpoint_every=2000)
with tempfile.TemporaryDirectory() as folder:
    translator = train_translator(pairs, "final", widths, config, Path(folder) / "run")
print(f"{translator.network.size:,} parameters, trained on {len(train):,} sentences")

# %% [markdown]
# By hand, the accuracy at each depth is the share of sentences whose translation has every word
# right. `score_by_depth` computes the same.

# %%
outputs = [a.generated for a in translator.translate([s.english for s in test])]
exact = {}
for depth in range(4):
    here = [(s, o) for s, o in zip(test, outputs, strict=True) if s.depth == depth]
    exact[depth] = sum(s.french == o for s, o in here) / len(here)
scores = score_by_depth(test, outputs)
assert exact == {score.depth: score.exact for score in scores}
print(" → ".join(f"{share:.2f}" for share in exact.values()))
assert exact[0] > 0.8
assert exact[3] < exact[0] - 0.2

# %% tags=["hide-input"]
length = [np.mean([len(s.english) for s in test if s.depth == depth]) for depth in exact]
figure, ax = plt.subplots(figsize=(6, 3.2), facecolor="white", layout="constrained")
ax.plot(length, list(exact.values()), "s--", color="#D55E00", label="RNN, last state")
for depth, x in enumerate(length):
    ax.annotate(f"depth {depth}", (x, exact[depth]), (-44, -14), textcoords="offset points")
ax.set(xlabel="English words, mean", ylabel="sentences right", ylim=(0, 1.08), xlim=(-4, 30))
ax.legend(loc="lower left")
ax.grid(axis="y", color="0.9")

# %% [markdown]
# All these depths were in training, so the network had examples of each. The program
# `.venv/bin/python -m experiments.grammar` trains the same network; its
# [report](../../experiments/results/grammar/report.md) has 1.00, 1.00, 0.95 and 0.37 for depth 0 to
# 3, and 0.00 for depths that were not in training. Bahdanau et al. (2014), figure 2 and section
# 5.1, <https://arxiv.org/abs/1409.0473>, measured the same loss on English and French news.
#
# ### The lecture's sentence
#
# The lecture says that an RNN decoder might struggle with its sentence. We test it, with fewer and
# with more clauses, and a second time with an adjective for each noun:

# %%
found = [a.generated for a in translator.translate([s.english for s in lectures])]
for number, (sentence, words) in enumerate(zip(lectures, found, strict=True)):
    if number == 5:
        print("With adjectives:")
    verdict = "right" if words == sentence.french else "WRONG"
    line = f"depth {sentence.depth} {verdict} {text(words)}"
    print(textwrap.fill(line, 80, subsequent_indent=" " * 14))
assert found[0] == lectures[0].french
assert found[-1] != lectures[-1].french

# %% [markdown]
# At depth 2 without adjectives you see **the lecture's own sentence, and this network translates
# it**, as the network of the report above does: one vector of 64 numbers holds these two clauses.
# It does not hold most sentences of depth 3, as the curve shows, and depth 4 was not in training.
# The wrong sentences are good French, but with other nouns, adjectives or places. The decoder
# learned how a French sentence continues, and the vector has lost a part of this one.

# %% [markdown]
# ## What was added
#
# A measure: accuracy against length. At depth 0 it is the result of chapter 2. The kind of network
# is the same, and so is its limit, which only long sentences show: a vector of fixed size.

# %% [markdown]
# ## Break it
#
# Without long sentences in the test, nothing is wrong. A mean over short sentences hides the limit.

# %%
short = np.mean([exact[0], exact[1]])
print(f"depth 0 and 1 only: {short:.2f}; depth 3: {exact[3]:.2f}")
assert short > exact[3] + 0.2

# %% [markdown]
# ## Exercises
#
# 1. A sentence of depth 3 has four nouns. Which of them does the network lose?
# 2. Is the wrong French bad French? Compare `exact` with the share of agreeing participles.
# 3. Replace the first noun of a sentence by another noun. How much does the context change, in
#    proportion to its length as a vector, at depth 0 and at depth 3?

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. Mostly the later ones; the first is nearly always right.
french_nouns = {word.french for word in NOUNS}
kept = np.zeros(4)
deep = [(s, o) for s, o in zip(test, outputs, strict=True) if s.depth == 3]
for sentence, output in deep:
    wanted = [word for word in sentence.french if word in french_nouns]
    written = [word for word in output if word in french_nouns][:4]
    kept[: len(written)] += [a == b for a, b in zip(wanted, written, strict=False)]
kept /= len(deep)
print("share of right nouns, first to last:", kept.round(2))
assert kept[1:].min() < kept[0] - 0.05

# %% tags=["hide-cell"]
# 2. No: participles agree with their subjects in sentences that have the wrong nouns.
agreement = scores[3].phenomena["agreement"]
print(f"agreement {agreement:.2f}, all words {exact[3]:.2f}")
assert agreement > exact[3] + 0.2


# %% tags=["hide-cell"]
# 3. The more words follow, the less of the first noun is in the context.
@jax.jit
def context(ids):
    return model.encode(ids, ids > 0).summary


def padded(english):
    return jnp.array(translator.source.encode(english) + [0] * (40 - len(english)))


model = translator.network.model(translator.params)
change = {0: [], 3: []}
for sentence in test:
    if sentence.depth in change:
        first = next(word for word in sentence.english if word in noun)
        other = "dog" if first != "dog" else "cat"
        replaced = tuple(other if word == first else word for word in sentence.english)
        a, b = context(padded(sentence.english)), context(padded(replaced))
        change[sentence.depth].append(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(a)))
print({depth: round(float(np.mean(values)), 2) for depth, values in change.items()})
assert np.mean(change[3]) < 0.7 * np.mean(change[0])

# %% [markdown]
# Next: [4. Bahdanau's look back](04_bahdanau.py). The same comparison on real sentences:
# [experiments/results/docs-seed0/report.md](../../experiments/results/docs-seed0/report.md).
