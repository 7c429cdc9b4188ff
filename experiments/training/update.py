"""One update of the parameters: clipping, learning-rate schedule and optimiser (optax).

Pascanu et al., "On the difficulty of training recurrent neural networks" (2013) for the clipping;
Adam, Kingma & Ba (2015); AdamW, Loshchilov & Hutter (2019), who also propose the cosine (2017);
Adadelta, Zeiler (2012), with the constants of Bahdanau et al. (2015), appendix B.2.
"""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from experiments.training.task import Loss, TrainConfig


class TrainState(NamedTuple):
    """The parameters, optimiser state, random key and step of training."""

    params: PyTree
    opt_state: PyTree
    key: Key[Array, ""]
    step: Int[Array, ""]


def learning_rate_schedule(config: TrainConfig) -> optax.Schedule:
    """Linear warm-up, then a cosine to the final rate; no step has rate 0."""
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / (config.warmup_steps + 1),
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.steps,
        end_value=config.final_learning_rate,
    )


def make_optimiser(config: TrainConfig) -> optax.GradientTransformation:
    """Clips the gradient's global norm, then applies `config.optimiser`."""
    rate = learning_rate_schedule(config)
    rule = {
        "adam": lambda: optax.adam(rate, b2=config.beta2),
        "adamw": lambda: optax.adamw(
            rate, b2=config.beta2, weight_decay=config.weight_decay, mask=is_decayed
        ),
        "adadelta": lambda: optax.adadelta(rate, rho=0.95, eps=1e-6),
    }[config.optimiser]
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), rule())


def is_decayed(params: PyTree) -> PyTree:
    """The mask of weight decay: True for matrices and embeddings, False for biases and gains.

    The names decide, because the biases of attention heads have the shape of a matrix.
    """

    def decays(path: tuple, _: Any) -> bool:
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        return not re.search(r"(^|\.)(bias|scale|sink|b_\w+)$", name)

    return jax.tree.map_with_path(decays, params)


def initial_state(init: Callable[[Array], PyTree], config: TrainConfig) -> TrainState:
    """The state before the first update; traceable by `jax.eval_shape`."""
    init_key, key = jax.random.split(jax.random.key(config.seed))
    # Weak types change the dtype of products with bfloat16, and a checkpoint does not keep them.
    params = jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), init(init_key))
    opt_state = make_optimiser(config).init(params)
    return TrainState(params, opt_state, key, jnp.zeros((), jnp.int32))


def update(
    loss: Loss, config: TrainConfig, state: TrainState, batch: PyTree
) -> tuple[TrainState, dict[str, Array]]:
    """One update; a pure function that the caller may jit, donate and shard."""
    key = jax.random.fold_in(state.key, state.step)
    (value, measured), grads = jax.value_and_grad(loss, has_aux=True)(state.params, batch, key)
    # optax's Adam raises a float to an int32 power, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = make_optimiser(config).update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        rate = learning_rate_schedule(config)(state.step)
    measured = {
        **measured,
        "loss": value,
        "learning_rate": jnp.asarray(rate),
        "grad_norm": optax.tree.norm(grads),
    }
    return TrainState(params, opt_state, state.key, state.step + 1), measured
