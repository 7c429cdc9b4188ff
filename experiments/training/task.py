"""The input of the training loop: the task and the training settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import grain
from jaxtyping import Array, PyTree

type Loss = Callable[[PyTree, PyTree, Array], tuple[Array, Mapping[str, Array]]]


@dataclass(frozen=True)
class Task:
    """What to train.

    Attributes:
      name: the display name.
      config: model, data and vocabulary as JSON; a run resumes only with an equal config.
      init: maps a random key to params, any pytree of arrays; must be traceable by `jax.jit`.
      loss: maps (params, batch, random key) to the mean loss of a token and a dict of scalars with
        "tokens".
      dataset: endless batches, the same in every process; its iterator's state must be JSON.
      validate: maps params to numbers for the metrics file; None for no validation.
    """

    name: str
    config: Mapping[str, Any]
    init: Callable[[Array], PyTree]
    loss: Loss
    dataset: grain.IterDataset
    validate: Callable[[PyTree], Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training settings; each one changes the result or its log.

    Attributes:
      steps: the number of updates of the parameters.
      batch_size: the number of examples in a batch.
      optimiser: the optimiser; adadelta is that of Bahdanau et al. (2015), rho 0.95, epsilon 1e-6.
      learning_rate: the highest learning rate, reached after the warm-up.
      final_learning_rate: the learning rate at the end of its cosine decay; if it equals
        learning_rate, the rate is constant after the warm-up.
      warmup_steps: the number of updates during which the learning rate rises linearly.
      beta2: the decay of Adam's mean of squared gradients; adam and adamw only.
      weight_decay: the share of each weight subtracted at an update, multiplied by the learning
        rate; biases and gains do not decay; adamw only.
      clip_norm: the largest global norm of the gradient; a larger gradient is scaled down to it.
      seed: the seed of the initial parameters and of all randomness in training.
      log_every: the number of steps between two lines of metrics.jsonl.
      validate_every: the number of steps between two validations.
      checkpoint_every: the number of steps between two checkpoints.
    """

    steps: int = 2000
    batch_size: int = 64
    optimiser: Literal["adam", "adamw", "adadelta"] = "adam"
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    warmup_steps: int = 100
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 500

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.warmup_steps < self.steps:
            raise ValueError(
                f"warmup_steps must be at least 0 and below steps={self.steps}, "
                f"got {self.warmup_steps}"
            )
        if not 0 <= self.beta2 < 1:
            raise ValueError(f"beta2 must be at least 0 and below 1, got {self.beta2}")
        if not 0 <= self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate must lie between 0 and learning_rate={self.learning_rate}, "
                f"got {self.final_learning_rate}"
            )
        if self.weight_decay and self.optimiser != "adamw":
            raise ValueError(
                f"weight_decay={self.weight_decay} needs optimiser='adamw', got {self.optimiser!r}"
            )
