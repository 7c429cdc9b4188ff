"""Text generation with a cache: a decode step computes one token, not the whole text again.

The model has random weights, so its tokens mean nothing. They are the tokens that the model gives
without a cache.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from attn_jax.models import GPT, DecoderConfig, Sampling, generate

config = DecoderConfig(
    vocab_size=50, model_dim=64, num_layers=2, num_heads=4, max_length=32, is_tied=False
)
model = GPT(config, rngs=nnx.Rngs(0))
prompts = [[3, 1, 4, 1, 5], [9, 2]]  # one batch, two lengths

generation = generate(model, prompts, max_new_tokens=8)
for prompt, tokens in zip(prompts, generation.tokens, strict=True):
    likeliest = model(jnp.array([prompt + tokens])).argmax(axis=2)[0].tolist()
    assert tokens == likeliest[len(prompt) - 1 : -1]
    print(prompt, "->", tokens)
print("one pass over the whole text, without a cache, gives the same tokens")

pool = {"kind": "paged", "page": 4, "pages": 7}  # 13 tokens need 4 pages, 10 tokens 3
for name, options in (("contiguous", {}), ("in eight bits", {"int8": True}), ("paged", pool)):
    caches = model.init_caches(len(prompts), 16, **options)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(caches)) / 1024
    print(f"a cache for 2 texts of up to 16 tokens, {name}: {size:.0f} KiB")

sampling = Sampling(temperature=0.8, top_k=10)
again = generate(model, prompts, max_new_tokens=8, sampling=sampling, rng=jax.random.key(0))
print("sampled at temperature 0.8:", again.tokens[0])
assert again.tokens != generation.tokens
