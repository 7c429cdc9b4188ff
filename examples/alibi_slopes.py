"""ALiBi with trained slopes: each head learns how fast its attention decreases with distance.

The target output uses the slopes of the paper (Press et al. 2021,
https://arxiv.org/abs/2108.12409). Training starts from equal slopes and fits this output.
"""

import jax
import jax.numpy as jnp

from attn_jax import dot_product_attention
from attn_jax.score_mods import alibi, alibi_slopes

B, T, N, H = 2, 48, 4, 8
query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H))


def attention(slopes):  # [N], one for each head; slopes[None] adds a batch axis
    return dot_product_attention(query, key, value, score_mod=alibi(slopes[None]), is_causal=True)


target = attention(alibi_slopes(N))


@jax.jit
def train_step(log_slopes):
    def loss(log_slopes):
        return jnp.mean((attention(jnp.exp(log_slopes)) - target) ** 2)

    error, gradient = jax.value_and_grad(loss)(log_slopes)
    return log_slopes - 30 * gradient, error


log_slopes = jnp.log(jnp.full(N, 0.05))
errors = []
for _ in range(300):
    log_slopes, error = train_step(log_slopes)
    errors.append(float(error))
print(f"loss {errors[0]:.0e} -> {errors[-1]:.0e}")
print("learned", jnp.exp(log_slopes).round(3), "target", alibi_slopes(N).round(3))
assert jnp.allclose(jnp.exp(log_slopes), alibi_slopes(N), atol=5e-3)
