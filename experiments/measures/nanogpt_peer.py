"""The loss that nanoGPT itself reaches on the whole validation split of tinyshakespeare.

    .venv/bin/python -m experiments.measures.nanogpt_peer --nanogpt CLONE --data-dir DIR

CLONE is https://github.com/karpathy/nanoGPT, whose model is trained with its readme's settings
for a CPU; it needs torch. The loss on 20 random batches, as in the readme, is computed many times
to show how much it varies.
"""

import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.command_line.errors import exit_on_user_error
from experiments.command_line.options import parse, shell_command
from experiments.data.text_tokens import Characters
from experiments.data.texts import load_text

BATCH, LENGTH, STEPS, WARMUP = 12, 64, 2000, 100
RATE, LAST_RATE = 1e-3, 1e-4
BATCHES, DRAWS = 20, 200  # of the readme's loss, and how many times it is computed


@dataclass(frozen=True, kw_only=True)
class Options:
    """Trains nanoGPT's model with its readme's settings for a CPU.

    Attributes:
      nanogpt: a clone of its repository.
      data_dir: the folder with tinyshakespeare.txt.
      seeds: one training run each.
    """

    nanogpt: Path
    data_dir: Path
    seeds: tuple[int, ...] = (1337, 0, 1)


def rate_at(step: int) -> float:
    """The learning rate of its train.py.

    Example:
      >>> rate_at(100), rate_at(2000)
      (0.001, 0.0001)
    """
    if step < WARMUP:
        return RATE * (step + 1) / (WARMUP + 1)
    done = (step - WARMUP) / (STEPS - WARMUP)
    return LAST_RATE + 0.5 * (1 + math.cos(math.pi * done)) * (RATE - LAST_RATE)


def load_module(clone: Path) -> Any:
    """The module model.py of a clone of nanoGPT.

    Raises:
      ValueError: there is no model.py, or torch is not installed.
    """
    path = clone / "model.py"
    if not path.is_file():
        raise ValueError(f"nanogpt={clone} has no model.py; clone github.com/karpathy/nanoGPT")
    if importlib.util.find_spec("torch") is None:
        raise ValueError("nanoGPT needs torch; pip install torch")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def windows(torch: Any, ids: Any, starts: Any) -> tuple[Any, Any]:
    """Inputs and targets of the windows with these starts."""
    rows = torch.stack([ids[i : i + LENGTH + 1] for i in starts])
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def trained(torch: Any, nanogpt: Any, ids: Any, size: int, seed: int) -> Any:
    """The trained model."""
    torch.manual_seed(seed)
    sizes = {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": LENGTH, "vocab_size": size}
    model = nanogpt.GPT(nanogpt.GPTConfig(**sizes, bias=False, dropout=0.0))
    optimiser = model.configure_optimizers(0.1, RATE, (0.9, 0.99), "cpu")
    for step in range(STEPS + 1):  # nanoGPT's loop includes the step with this number
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step)
        starts = torch.randint(len(ids) - LENGTH, (BATCH,))
        _, loss = model(*windows(torch, ids, starts))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return model.eval()


def losses(torch: Any, model: Any, ids: Any) -> tuple[float, np.ndarray]:
    """Nats a character on the whole split, and on 20 random batches, DRAWS times."""

    def mean(starts: Any) -> float:
        with torch.no_grad():
            return model(*windows(torch, ids, starts))[1].item()

    parts = torch.arange(0, len(ids) - LENGTH, LENGTH).split(LENGTH)
    total = sum(mean(starts) * len(starts) for starts in parts)
    drawn = [
        np.mean([mean(torch.randint(len(ids) - LENGTH, (BATCH,))) for _ in range(BATCHES)])
        for _ in range(DRAWS)
    ]
    return total / sum(map(len, parts)), np.array(drawn)


def run(options: Options, report: Callable[[str], object] = print) -> None:
    """Trains with each seed and prints the losses.

    Raises:
      ValueError: the clone, torch or the text is missing; the message says what to do.
    """
    nanogpt, text = load_module(options.nanogpt), load_text("tinyshakespeare", options.data_dir)
    torch = importlib.import_module("torch")
    letters = Characters.of(text.train + text.validation)
    train, validation = (
        torch.from_numpy(letters.encode(part).astype(np.int64))
        for part in (text.train, text.validation)
    )
    report(f"torch {importlib.metadata.version('torch')}, {torch.get_num_threads()} threads")
    for seed in options.seeds:
        whole, drawn = losses(torch, trained(torch, nanogpt, train, letters.size, seed), validation)
        report(
            f"seed {seed}: {whole:.4f} nats a character on the whole split; on {BATCHES} random "
            f"batches {drawn.min():.4f} to {drawn.max():.4f} in {DRAWS} draws, standard deviation "
            f"{drawn.std():.4f}, at most 1.885 in {np.mean(drawn <= 1.885):.0%}"
        )


def main(arguments: Sequence[str]) -> int:
    """The command.

    Raises:
      SystemExit: an option is unknown, or something is missing.
    """
    with exit_on_user_error():
        run(parse(Options, arguments, prog=shell_command("measures.nanogpt_peer")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
