"""A GPT in forty lines of code, made of attention layers: it learns one sentence by heart.

Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.3. For work,
use `attn_jax.models.GPT`, which also has caches and loads checkpoints.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from attn_jax.masks import causal
from attn_jax.modules import Embedding, FeedForward, MultiHeadAttention, TransformerEncoderBlock

TEXT = "The cat that was sitting on the mat, which was next to the dog, jumped. "
B, T, P, D, N, LAYERS = 16, 24, 128, 48, 4, 2  # P characters of ASCII, T of them in a batch example
ids = jnp.array(list((2 * TEXT).encode()))


class GPT(nnx.Module):
    def __init__(self, rngs):
        self.character, self.position = (Embedding(n, D, rngs=rngs) for n in (P, T))
        self.blocks = nnx.List()
        for _ in range(LAYERS):
            attention = MultiHeadAttention(D, N, mask=causal(), rngs=rngs)
            feed_forward = FeedForward(D, 4 * D, rngs=rngs)
            self.blocks.append(TransformerEncoderBlock(attention, feed_forward, rngs=rngs))

    def __call__(self, ids):  # [B T] -> logits of each next character [B T P]
        x = self.character(ids) + self.position(jnp.arange(T))[None]
        for block in self.blocks:
            x = block(x)
        return self.character.attend(x)


@nnx.jit
def train_step(model, optimizer, texts):
    def loss(model):
        logits = model(texts[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits, texts[:, 1:]).mean()

    optimizer.update(model, nnx.grad(loss)(model))


model = GPT(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
for start in jax.random.randint(jax.random.key(1), (200, B), 0, len(TEXT)):
    train_step(model, optimizer, ids[start[:, None] + jnp.arange(T + 1)[None]])

sample, next_logits = ids[:T], nnx.jit(lambda model, ids: model(ids[None])[0, -1])
while len(sample) < len(TEXT):
    sample = jnp.append(sample, next_logits(model, sample[-T:]).argmax())
text = bytes(sample.tolist()).decode()
print(f"given: {text[:T]}\nmodel: {text[T:]}")
assert text == TEXT
