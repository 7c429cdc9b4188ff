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
# # 1. Translating word by word does not work
#
# **The question.** A dictionary has a French word for each English word. Why is a translation more
# than one look-up after the other? And what does a machine need besides the dictionary?

# %%
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np

from experiments.data.grammar_trees import ADJECTIVES, NOUNS, VERBS, NounPhrase, Tree
from experiments.data.toy_grammar import realise, sample, text
from experiments.measures.grammar_scores import dictionary, score_by_depth, word_by_word
from experiments.systems.lexicon import train_lexicon

# %% [markdown]
# ## Picture
#
# Below is an English sentence, its French translation, and a line from each French word to the
# English word that it translates. If translation were word by word, all lines would be vertical.
# Orange lines belong to words that change places or become two.

# %% tags=["hide-input"]
noun = {word.english: word for word in NOUNS}
adjective = {word.english: word for word in ADJECTIVES}
verb = {word.english: word for word in VERBS}
adjectives = (adjective["small"], adjective["black"])
cat = realise(Tree(NounPhrase(noun["she-cat"], adjectives=adjectives), verb["jumped"]))

figure, ax = plt.subplots(figsize=(8, 2.4), facecolor="white", layout="constrained")
for y, words in ((1, cat.english), (0, cat.french)):
    for x, word in enumerate(words):
        ax.text(x, y, word, ha="center", va="center", fontsize=13, color="black")
for target, source in sorted(cat.sure):
    moved = cat.english[source] in ("black", "she-cat", "jumped")
    ax.plot([source, target], [0.87, 0.13], color="#D55E00" if moved else "0.6", linewidth=2)
ax.set(xlim=(-0.6, 5.6), ylim=(-0.2, 1.2))
ax.set_axis_off()

# %% [markdown]
# Three things are not word by word:
#
# - **Order.** *black* stands before its noun, *noire* after it: the lines cross.
# - **Number of words.** *jumped* becomes two words, *a sauté*. French does this often:
#   *does not sleep* is *ne dort pas*, with the verb between the two words of *not*.
# - **Form.** *La*, *petite* and *noire* are feminine because *chatte* is. With the noun *cat*
#   (*chat*) the same English words become *le*, *petit* and *noir*.

# %% [markdown]
# ## Code
#
# The sentences come from a toy grammar of English and French, `experiments.data.toy_grammar`. It
# draws as many pairs of sentences as we want. Their **depth** is the number of relative clauses
# after the subject: *the cat jumped* has depth 0, *the cat that was on the mat jumped* depth 1.

# %%
train = sample(np.random.default_rng(0), 400, (0, 1))
seen = {sentence.english for sentence in train}
test = sample(np.random.default_rng(1), 300, (0, 1, 2), exclude=seen)
pairs = [(sentence.english, sentence.french) for sentence in train]
for sentence in train[:3]:
    print(text(sentence.english), "→", text(sentence.french))

# %% [markdown]
# Nobody has to write the dictionary: it can be found in the pairs. `table[f, e]` is the probability
# that the English word `e` is translated by the French word `f`. It starts with equal entries. Each
# step shares every French word among the English words of its sentence in proportion to the table,
# and counts the shares. This is IBM model 1 (Brown et al. 1993, section 4.1,
# <https://aclanthology.org/J93-2003>), the first step of statistical machine translation.

# %%
table = {(f, e): 1.0 for english, french in pairs for f in french for e in english}
for _ in range(10):
    counts, totals = Counter(), Counter()
    for english, french in pairs:
        for f in french:
            all_shares = sum(table[f, e] for e in english)
            for e in english:
                counts[f, e] += table[f, e] / all_shares
                totals[e] += table[f, e] / all_shares
    table = {(f, e): counts[f, e] / totals[e] for f, e in counts}


def entries(e):
    """The French words of an English word, the most probable first."""
    found = [(p, f) for (f, other), p in table.items() if other == e]
    return sorted(found, reverse=True)


for e in ("dog", "jumped", "black", "ran", "the"):
    print(f"{e:7}", ", ".join(f"{f} {p:.2f}" for p, f in entries(e)[:4]))

# %% [markdown]
# The table is right about *dog*. It cannot decide between *noir* and *noire*, or between *couru*
# (an animal ran) and *fonctionné* (a machine ran), because the answer is not in the word: it is in
# the other words of the sentence, the **context**.
#
# `train_lexicon` of `experiments` gives the same dictionary. It takes the most probable word of
# each entry:

# %%
lexicon = train_lexicon(pairs, iterations=10, null_word=False)
assert lexicon.table == {e: entries(e)[0][1] for _, e in table}
right = sum(tuple(lexicon.translate(s.english)) == s.french for s in test)
print(f"{right} of {len(test)} test sentences are right")
assert right == 0

# %% [markdown]
# None is right: every verb of this grammar needs two French words, and each entry has one. So we
# help: `dictionary()` is written by hand, and an entry may have several words, such as *a sauté*
# for *jumped*.

# %%
by_hand = [word_by_word(dictionary(), sentence.english) for sentence in test]
scores = score_by_depth(test, by_hand)
for score in scores:
    print(f"depth {score.depth}: {score.exact:.0%} of {score.sentences} sentences are right")
    print("  ", {kind: round(part, 2) for kind, part in score.phenomena.items()})
assert all(score.exact < 0.4 for score in scores)
assert all(score.phenomena["crossing"] == 0 for score in scores)

# %% [markdown]
# The second line has the share of each phenomenon that is right. `crossing` (an adjective changes
# sides) is never right, nor is `elision` (*l'oiseau*, not *le oiseau*). `agreement` and `sense` are
# right when the dictionary's form happens to be the needed one. A longer sentence has more places
# to be wrong.

# %% [markdown]
# ## What was added
#
# A dictionary, found by counting in sentence pairs. It has no context: the output for a word is the
# same in every sentence. To translate, a machine must use the other words (which noun? animal or
# machine?) and the grammar of the other language (which order?).

# %% [markdown]
# ## Break it
#
# Without the repeated steps, one count of what occurs together is left. Then words such as *est*
# and *qui* win in more than a third of the entries, because they occur together with everything.

# %%
counted = train_lexicon(pairs, iterations=1, null_word=False).table
changed = {e: (counted[e], f) for e, f in lexicon.table.items() if counted[e] != f}
for e in ("jumped", "tree", "white"):
    print(f"{e}: {changed[e][0]} instead of {changed[e][1]}")
assert len(changed) > len(lexicon.table) / 3
assert Counter(f for f, _ in changed.values()).most_common(1)[0][0] in ("est", "qui")

# %% [markdown]
# ## Exercises
#
# 1. *ran* is *a couru* for animals and *a fonctionné* for machines. Write a function that
#    translates *ran* from the English sentence. Which word does it have to look at?
# 2. Translate word by word, then exchange each adjective with the noun after it if French puts that
#    adjective after the noun. Which share of `crossing` does this repair, and why not all?
# 3. Which phenomena do the sentences contain that the dictionary translates exactly?

# %% [markdown]
# ## Answers


# %% tags=["hide-cell"]
# 1. The subject decides: the first noun of the sentence, however far the verb is from it.
def translate_ran(english):
    subject = next(noun[word] for word in english if word in noun)
    return ("a", "couru" if subject.kind == "animal" else "fonctionné")


ran = [sentence for sentence in test if sentence.english[-1] == "ran"]
assert all(translate_ran(sentence.english) == sentence.french[-2:] for sentence in ran)
longest = max(len(sentence.english) for sentence in ran)
print(f"{len(ran)} sentences, all right, with up to {longest} words")

# %% tags=["hide-cell"]
# 2. The order is right for all, the form only for masculine nouns: order and agreement are two
#    problems. A rule for each phenomenon needs to know what the rules before it did.
after = {word.masculine for word in ADJECTIVES if not word.before}
nouns = {word.french for word in NOUNS}


def with_order(words):
    words = list(words)
    for i in range(len(words) - 1):
        if words[i] in after and words[i + 1] in nouns:
            words[i], words[i + 1] = words[i + 1], words[i]
    return tuple(words)


repaired = score_by_depth(test, [with_order(words) for words in by_hand])
for score in repaired:
    print(f"depth {score.depth}: crossing {score.phenomena['crossing']:.2f}")
    assert 0.2 < score.phenomena["crossing"] < 0.9

# %% tags=["hide-cell"]
# 3. Those whose dictionary form happens to be the right one; never one whose order changes.
exact = [
    sentence for sentence, words in zip(test, by_hand, strict=True) if words == sentence.french
]
kinds = Counter(span.phenomenon for sentence in exact for span in sentence.spans)
print(len(exact), "sentences:", dict(kinds))
assert exact
assert "crossing" not in kinds
assert "elision" not in kinds

# %% [markdown]
# Next: [2. Encoder and decoder](02_encoder_decoder.py). The same dictionary, as the baseline of a
# real translation task: [experiments/systems/lexicon.py](../../experiments/systems/lexicon.py).
