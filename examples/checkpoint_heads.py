"""Loads a checkpoint in the format of Hugging Face, and writes a page with all its heads.

A tiny GPT-2 is first trained to repeat letters, and saved. For a checkpoint of your own, pass
the folder that `save_pretrained` wrote or `snapshot_download` returned to `load_hf`.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from attn_jax.models import GPT, DecoderConfig, load_hf, save_hf
from attn_jax.viewer import AttentionView

HALF, LETTERS = 6, "abcdefgh"
config = DecoderConfig(len(LETTERS), model_dim=32, num_layers=1, num_heads=2, max_length=2 * HALF)


@nnx.jit
def train_step(model, optimizer, half):  # the second half of a text repeats the first
    ids = jnp.concatenate([half, half], axis=1)

    def loss(model):
        logits, target = model(ids)[:, HALF - 1 : -1], ids[:, HALF:]
        return optax.softmax_cross_entropy_with_integer_labels(logits, target).mean()

    optimizer.update(model, nnx.grad(loss)(model))


model = GPT(config, rngs=nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
for half in jax.random.randint(jax.random.key(1), (200, 64, HALF), 0, len(LETTERS)):
    train_step(model, optimizer, half)

with tempfile.TemporaryDirectory() as folder:
    save_hf(model, folder)
    print("in the folder:", *sorted(path.name for path in Path(folder).iterdir()))
    loaded = load_hf(folder)
text = "hbadce" * 2
ids = jnp.array([LETTERS.index(letter) for letter in text])
answer = "".join(LETTERS[i] for i in loaded(ids[None])[0, HALF - 1 : -1].argmax(axis=1))
print(f"the loaded model repeats {text[:HALF]} as {answer}")
assert answer == text[HALF:]

page = Path("runs/heads.html")
page.parent.mkdir(exist_ok=True)
AttentionView.from_model(loaded, ids, list(text), title="A GPT-2 that repeats letters").save(page)
print(f"{page} shows to which letter each head attends; open it in a browser")
