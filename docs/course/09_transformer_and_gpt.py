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
# # 9. The Transformer and GPT
#
# **The question.** Attention computes weighted means: it moves information from word to word, and
# does nothing else with it. What turns multi-head attention into a model that writes text?
#
# The answer is a **block** that is repeated: attention between the words, then a small network
# inside each word. A GPT is a stack of such blocks with causal attention (Vaswani et al. 2017,
# [section 3.1](https://arxiv.org/abs/1706.03762); Radford et al. 2018 and 2019).

# %%
import json
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import attn_jax
from attn_jax.models import GPT, DecoderConfig, generate, load_hf, save_hf, token_losses
from attn_jax.viewer import AttentionView
from experiments import sort
from experiments.measures.heads import all_head_statistics

# %% [markdown]
# ## Picture
#
# A GPT, from the bottom to the top. Each part of a block *adds* its result to the vector of a word.
# The line that runs past a part is a residual connection.

# %% tags=["hide-input"]
_, axis = plt.subplots(figsize=(6.4, 5.2))
parts = [
    (0.0, -1.6, "tokens → embedding + position", "#dddddd"),
    (1.3, 0.5, "norm → causal multi-head attention", "#a6cee3"),
    (2.6, 0.5, "norm → feed-forward network", "#b2df8a"),
    (3.9, -1.6, "norm → logits of the next token", "#dddddd"),
]
axis.plot([0, 0], [0.6, 3.9], color="black", lw=2)
for y, left, text, colour in parts:
    axis.add_patch(plt.Rectangle((left, y), 4.8, 0.6, facecolor=colour, edgecolor="black"))
    axis.text(left + 2.4, y + 0.3, text, ha="center", va="center")
    if left > 0:
        axis.plot([0, 2.9, 2.9], [y - 0.25, y - 0.25, y], color="black")
        axis.plot([2.9, 2.9, 0], [y + 0.6, y + 0.85, y + 0.85], color="black")
        plus = {"boxstyle": "circle", "facecolor": "white"}
        axis.text(0, y + 0.85, "+", ha="center", va="center", bbox=plus)
axis.add_patch(plt.Rectangle((-0.5, 0.85), 6.1, 2.8, fill=False, linestyle="--"))
axis.text(5.7, 2.2, "a block,\nrepeated", va="center")
axis.set(xlim=(-1.8, 7.2), ylim=(-0.1, 4.7))
axis.set_axis_off()

# %% [markdown]
# ## Code
#
# By hand: a GPT of one block, from the parameters of the library's. Attention is the function of
# chapter 8; the norm makes mean 0 and variance 1 of each vector (Ba et al. 2016,
# [arXiv](https://arxiv.org/abs/1607.06450)).

# %%
tiny = GPT(DecoderConfig(7, model_dim=8, num_layers=1, num_heads=2), rngs=nnx.Rngs(0))


def norm(x):
    mean, variance = (f(x, axis=1, keepdims=True) for f in (jnp.mean, jnp.var))
    return (x - mean) / jnp.sqrt(variance + 1e-5)


def gpt_of_one_block(tokens):
    attention, network = tiny.blocks[0].attention, tiny.blocks[0].feed_forward
    matrices = [attention.w_query, attention.w_key, attention.w_value, attention.w_out]
    weights = [matrix[...] for matrix in matrices]
    x = tiny.embedding.table[...][tokens] + tiny.position.table[: len(tokens)]
    x = x + attn_jax.multi_head_self_attention(norm(x), *weights, causal=True)
    x = x + jax.nn.gelu(norm(x) @ network.w_up[...]) @ network.w_down[...]
    return norm(x) @ tiny.embedding.table[...].T


tokens = jnp.array([3, 1, 4, 1, 5])
assert np.allclose(gpt_of_one_block(tokens), tiny(tokens[None])[0], atol=1e-5)

# %% [markdown]
# (The biases are 0 in a new model, and the scales of the norms are 1, so they are left out here.)
#
# ### A GPT that sorts
#
# The question is six letters, the answer the same letters sorted: `CAACBB` → `AABBCC`, as in
# [minGPT's demo](https://github.com/karpathy/minGPT). Each token is predicted from those before it;
# only the answer counts in the loss. A quarter of all 729 questions is never trained on.

# %%
settings = sort.Settings(num_layers=2, num_heads=2)
data, length = sort.make_data(settings), settings.length
graph, start = nnx.split(GPT(settings.model, rngs=nnx.Rngs(0)))
optimiser = optax.adamw(optax.cosine_decay_schedule(3e-3, 400), b2=0.95)


def loss(params, rows):
    logits = nnx.merge(graph, params)(rows[:, :-1])[:, length - 1 :]
    losses, _ = token_losses(logits, rows[:, length:])
    return losses.mean()


@jax.jit
def training_steps(params, opt_state, batches):
    def step(carry, rows):
        params, opt_state = carry
        value, gradients = jax.value_and_grad(loss)(params, rows)
        updates, opt_state = optimiser.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), value

    return jax.lax.scan(step, (params, opt_state), batches)


params, opt_state, rng = start, optimiser.init(start), np.random.default_rng(0)
for part in range(4):
    batches = data.train[rng.integers(len(data.train), size=(100, 64))]
    (params, opt_state), losses = training_steps(params, opt_state, batches)
    print(f"after {100 * (part + 1)} steps: loss {losses[-10:].mean():.4f}")


# %% [markdown]
# `generate` writes the answers, each token with a cache of the earlier ones.


# %%
def share_sorted(model, rows):
    answers = sort.predicted_answers(model, rows[:, :length])
    return float((answers == rows[:, length:]).all(axis=1).mean())


model = nnx.merge(graph, params)
before = share_sorted(nnx.merge(graph, start), data.held_out)
after = share_sorted(model, data.held_out)
print(f"questions never seen: {before:.0%} sorted before training, {after:.0%} after")
assert before < 0.2 < 0.9 < after

# %% [markdown]
# What do its heads attend to? Mean weights of a letter of the answer, over all held-out questions:
# a head that sorts attends to the letters of the question that equal the next letter, wherever they
# stand. The last row is for uniform weights.

# %%
heads = all_head_statistics(model, data.held_out)
for head in heads:
    print(f"{head.name}: {head.next_letter:.0%} of its weight on the next letter")
*trained, uniform = (head.next_letter for head in heads)
assert max(trained) > uniform + 0.03

# %% [markdown]
# The same heads in the viewer, for one question and its answer: click a letter, or choose a head.

# %%
questions = data.held_out[:, :length]
question = questions[sort.most_balanced(questions, settings.letters)]
(answer,) = generate(model, [question.tolist()], max_new_tokens=length).tokens
text = np.array([*question, *answer[:-1]])
letters = list(sort.as_letters(text))
AttentionView.from_model(model, text, letters, title="A GPT that sorts")

# %% [markdown]
# ### A checkpoint in the format of GPT-2
#
# `save_hf` writes the folder that the `transformers` library reads, and `load_hf` reads such a
# folder. There is no internet connection here, so the folder is one that we write ourselves.

# %%
with tempfile.TemporaryDirectory() as folder:
    save_hf(model, folder)
    config = json.loads(Path(folder, "config.json").read_text())
    loaded = load_hf(folder)
print({name: config[name] for name in ("model_type", "n_layer", "n_head", "n_embd")})

rows = jnp.array(data.held_out[:5])
assert jnp.array_equal(loaded(rows), model(rows))
assert generate(loaded, [question.tolist()], max_new_tokens=length).tokens == [answer]

# %% [markdown]
# For the real GPT-2, with an internet connection, download its folder once:
# `folder = huggingface_hub.snapshot_download("gpt2", allow_patterns=["*.json", "*.safetensors"])`,
# then `load_hf(folder)`. [Checkpoints](../checkpoints.md) lists the families of models that can be
# loaded, and [generation](../generation.md) how to sample from them.

# %% [markdown]
# ## What was added
#
# Residual connections, norms and a feed-forward network, and a stack of blocks. A block without the
# feed-forward network is multi-head attention on normed vectors, added to its input. A Transformer
# whose decoder ignores the source is a GPT. Both are tests of `attn_jax.lineage` (chapter 10).

# %% [markdown]
# ## Break it
#
# Switch off one part at a time in the trained model, by setting its last matrix to 0.


# %%
def without(part):
    broken = nnx.merge(graph, params, copy=True)
    for block in broken.blocks:
        if part == "attention":
            block.attention.w_out[...] *= 0
        if part == "feed-forward networks":
            block.feed_forward.w_down[...] *= 0
    if part == "positions":
        broken.position.table[...] *= 0
    return share_sorted(broken, data.held_out)


for part in ("attention", "feed-forward networks", "positions"):
    share = without(part)
    print(f"without {part}: {share:.0%} sorted")
    assert share < 0.5 < after

# %% [markdown]
# ## Exercises
#
# 1. Which loss must an untrained GPT have on random letters?
# 2. Generate the answer without `generate`: call the model on the whole text for each new token.
# 3. How many parameters has GPT-2 (small)? Count the embeddings, the blocks and the last norm.

# %% [markdown]
# ## Answers

# %% tags=["hide-cell"]
# 1. About log 3: each of the three letters is about equally likely. A greater loss at the
# start of a training run is a sign of a mistake.
letters = jnp.array(rng.integers(settings.letters, size=(1000, 2 * length)))
assert abs(loss(start, letters) - np.log(settings.letters)) < 0.15

# %% tags=["hide-cell"]
# 2. The most likely token after the last one, again and again. `generate` gives the same
# tokens, but computes each earlier token only once.
text = question.tolist()
for _ in range(length):
    text.append(int(model(jnp.array([text]))[0, -1].argmax()))
assert text[length:] == list(answer)

# %% tags=["hide-cell"]
# 3. 124,439,808. A block has 4 D² + 4 D for attention, 8 D² + 5 D for the network, 4 D for
# two norms.
D = 768
by_hand = (50_257 + 1024) * D + 12 * (12 * D**2 + 13 * D) + 2 * D
shapes = nnx.state(nnx.eval_shape(lambda: GPT(DecoderConfig(), rngs=nnx.Rngs(0))))
assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == by_hand == 124_439_808

# %% [markdown]
# Next: [10. The timeline](10_timeline.py). `.venv/bin/python -m experiments.sort` trains a larger
# model and reports what each head attends to.
