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
B, T, D, N, LAYERS = 16, 24, 48, 4, 2
letters = sorted(set(TEXT))
ids = jnp.array([letters.index(letter) for letter in 2 * TEXT])


class GPT(nnx.Module):
    def __init__(self, rngs):
        self.letter, self.position = (Embedding(n, D, rngs=rngs) for n in (len(letters), T))
        self.blocks = nnx.List()
        for _ in range(LAYERS):
            attention = MultiHeadAttention(D, N, mask=causal(), rngs=rngs)
            feed_forward = FeedForward(D, 4 * D, rngs=rngs)
            self.blocks.append(TransformerEncoderBlock(attention, feed_forward, rngs=rngs))

    def __call__(self, tokens):  # [B T] -> logits of the next letters [B T P]
        x = self.letter(tokens) + self.position(jnp.arange(T))[None]
        for block in self.blocks:
            x = block(x)
        return self.letter.attend(x)


@nnx.jit
def train_step(model, optimizer, start):
    texts = ids[start[:, None] + jnp.arange(T + 1)[None]]

    def loss(model):
        logits, cross_entropy = (
            model(texts[:, :-1]),
            optax.softmax_cross_entropy_with_integer_labels,
        )
        return cross_entropy(logits, texts[:, 1:]).mean()

    optimizer.update(model, nnx.grad(loss)(model))


model = GPT(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
for start in jax.random.randint(jax.random.key(1), (200, B), 0, len(TEXT)):
    train_step(model, optimizer, start)

sample, next_logits = ids[:T], nnx.jit(lambda model, tokens: model(tokens[None])[0, -1])
while len(sample) < len(TEXT):
    sample = jnp.append(sample, next_logits(model, sample[-T:]).argmax())
text = "".join(letters[i] for i in sample)
print(f"given: {text[:T]}\nmodel: {text[T:]}")
assert text == TEXT
