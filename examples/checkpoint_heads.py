"""Loads a checkpoint in the format of Hugging Face, and writes a page with all its heads.

The checkpoint is a tiny GPT-2 with random weights, which the program writes first. For a model of
your own, pass the folder that `save_pretrained` or `snapshot_download` gives to `load_hf`.
"""

import tempfile
from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from attn_jax.models import GPT, DecoderConfig, load_hf, save_hf
from attn_jax.viewer import AttentionView

words = ["the", "cat", "that", "was", "sitting", "on", "the", "mat", "jumped"]
vocabulary = sorted(set(words))
config = DecoderConfig(len(vocabulary), model_dim=32, num_layers=2, num_heads=4, max_length=16)

with tempfile.TemporaryDirectory() as folder:
    save_hf(GPT(config, rngs=nnx.Rngs(0)), folder)
    print("in the folder:", *sorted(path.name for path in Path(folder).iterdir()))
    model = load_hf(folder)

ids = jnp.array([vocabulary.index(word) for word in words])
view = AttentionView.from_model(model, ids, words, title="A tiny GPT-2 with random weights")
page = Path("runs/heads.html")
page.parent.mkdir(exist_ok=True)
view.save(page)
layers, heads = view.readings[0].sizes
print(f"{page} shows {layers} layers of {heads} heads; open it in a browser")
assert (layers, heads) == (2, 4)
