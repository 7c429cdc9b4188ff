"""A task that trains in a second, and a program that trains it, for the tests of `fit`.

It has what makes resuming hard: shuffled data, dropout, Adam's moments, and two batch shapes.
"""

import argparse
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from experiments.training.train import Task, TrainConfig, fit

CONFIG = TrainConfig(
    steps=40,
    batch_size=4,
    learning_rate=0.05,
    warmup_steps=5,
    log_every=3,
    validate_every=20,
    checkpoint_every=7,
)


def init(key: jax.Array, hidden_dim: int = 6) -> dict[str, jax.Array]:
    first, second = jax.random.split(key)
    return {
        "first": jax.random.normal(first, (3, hidden_dim)),
        "second": jax.random.normal(second, (hidden_dim,)),
    }


def loss(
    params: Mapping[str, jax.Array], batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    hidden = jnp.tanh(batch["x"] @ params["first"])
    hidden = jnp.where(jax.random.bernoulli(key, 0.8, hidden.shape), hidden, 0.0)
    error = hidden @ params["second"] - batch["y"]
    return jnp.mean(error**2), {"tokens": jnp.asarray(error.size)}


def dataset(pause: float = 0.0, epochs: int | None = None, shapes: int = 2) -> grain.IterDataset:
    """Batches of 4 and 5 rows in an order that only the position in the dataset tells."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 3)).astype(np.float32)

    def example(index: int) -> dict[str, np.ndarray]:
        time.sleep(pause)
        rows = (index + np.arange(4 + index % shapes)) % 30
        return {"x": x[rows], "y": np.sin(x[rows]).sum(1)}

    return (
        grain.MapDataset.range(30)
        .seed(7)
        .shuffle()
        .repeat(epochs)
        .map(example)
        .to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1))
    )


def task(pause: float = 0.0, hidden_dim: int = 6, **changes: Any) -> Task:
    plain = Task(
        name="tiny",
        config={"model": {"hidden_dim": hidden_dim}, "data": "sine"},
        init=lambda key: init(key, hidden_dim),
        loss=loss,
        dataset=dataset(pause),
        validate=lambda params: {"norm": float(jnp.abs(params["second"]).sum())},
    )
    return dataclasses.replace(plain, **changes)


def fingerprint(params: Mapping[str, jax.Array]) -> str:
    """sha256 over the bits of all parameters."""
    digest = hashlib.sha256()
    for name in sorted(params):
        digest.update(np.asarray(params[name]).tobytes())
    return digest.hexdigest()


def untimed(history: Path) -> list[dict[str, Any]]:
    """The metrics file without what a clock decides."""
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    clocks = {"seconds", "tokens_per_second"}
    return [{k: v for k, v in line.items() if k not in clocks} for line in lines]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--pause", type=float, default=0.0)
    asked = parser.parse_args()
    result = fit(task(asked.pause), CONFIG, asked.directory, console=Console(file=sys.stderr))
    print(fingerprint(result.params))
