"""One attention layer in a Flax model, trained by optax on a task that needs attention.

The first token of a sequence is a number i; the right answer is the token at position i. The other
tokens are random, so the model has to learn to attend to position i.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from attn_jax.modules import Embedding, MultiHeadAttention

B, T, D = 64, 8, 32  # the tokens are numbers below T


class Lookup(nnx.Module):
    def __init__(self, rngs):
        self.token, self.position = (Embedding(T, D, rngs=rngs) for _ in range(2))
        self.attention = MultiHeadAttention(D, num_heads=2, rngs=rngs)

    def __call__(self, tokens):  # [B T] -> logits [B T], from the attention of the first token
        x = self.token(tokens) + self.position(jnp.arange(T))[None]
        return self.token.attend(self.attention(x[:, :1], x)[:, 0])


@nnx.jit
def train_step(model, optimizer, tokens):
    def loss(model):
        answer = jnp.take_along_axis(tokens, tokens[:, :1], axis=1)[:, 0]
        logits, cross_entropy = model(tokens), optax.softmax_cross_entropy_with_integer_labels
        return cross_entropy(logits, answer).mean(), (logits.argmax(axis=1) == answer).mean()

    (_, accuracy), gradient = nnx.value_and_grad(loss, has_aux=True)(model)
    optimizer.update(model, gradient)
    return accuracy


model = Lookup(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
batches = jax.random.randint(jax.random.key(1), (200, B, T), 0, T)
accuracy = [float(train_step(model, optimizer, tokens)) for tokens in batches]
print(f"right answers: {accuracy[0]:.2f} in the first batch, {accuracy[-1]:.2f} in the last")
print("token 5 of [5 1 4 1 3 2 6 7] is", model(jnp.array([[5, 1, 4, 1, 3, 2, 6, 7]])).argmax())
assert accuracy[-1] > 0.95
