"""`python -m attn_jax.benchmark.decode`: tokens a second, beside transformers on the same weights.

The model has GPT-2's sizes and random parameters. `save_hf` saves it and `transformers` loads it;
both must generate the same tokens. They take turns in one process. One text, greedy, float32: the
speed is limited by how fast weights and caches are read from memory.
"""

import importlib
import importlib.metadata
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from attn_jax.benchmark import machine
from attn_jax.models import GPT, DecoderConfig, generate, save_hf

PROMPT, NEW, ROUNDS = 512, 128, 7
NEEDED = ("torch", "transformers", "safetensors")


class Run(NamedTuple):
    """The generated tokens of one run, and the seconds of prefill and of decoding."""

    tokens: list[int]
    prompt_seconds: float
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, without the first one, which is part of the prefill."""
        return (len(self.tokens) - 1) / self.seconds


def main() -> int:
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"this benchmark compares with transformers: pip install {' '.join(missing)}")
        return 2
    facts = machine.environment()
    print(f"{facts['date']}  {facts['processor']}, {facts['cores']} cores, {facts['versions']}")
    print(f"transformers {importlib.metadata.version('transformers')}")
    model = GPT(DecoderConfig(), rngs=nnx.Rngs(0))
    prompt = np.random.default_rng(0).integers(0, model.config.vocab_size, PROMPT).tolist()
    with tempfile.TemporaryDirectory() as folder:
        save_hf(model, Path(folder) / "gpt2")
        runners = {"attn_jax": ours(model), "transformers": theirs(Path(folder) / "gpt2")}
    runs = {name: [run(prompt) for _ in range(2)] for name, run in runners.items()}  # warm-up
    for turn in range(ROUNDS):
        for name in list(runners)[:: 1 if turn % 2 == 0 else -1]:
            runs[name].append(runners[name](prompt))
    same = runs["attn_jax"][-1].tokens == runs["transformers"][-1].tokens
    report({name: rounds[2:] for name, rounds in runs.items()})
    print(f"the same {NEW} tokens: {'yes' if same else 'NO'}")
    return 0 if same else 1


def report(runs: dict[str, list[Run]]) -> None:
    """Prints each library's medians, and the median of the ratios within a round."""
    print(f"\n12 layers, width 768, float32, one text: {PROMPT} prompt tokens, {NEW} generated")
    for name, rounds in runs.items():
        print(
            f"  {name:13} prompt {statistics.median(run.prompt_seconds for run in rounds):6.3f} s, "
            f"then {statistics.median(run.tokens_per_second for run in rounds):6.1f} tokens/s"
        )
    pairs = list(zip(*runs.values(), strict=True))
    decode = sorted(our.tokens_per_second / their.tokens_per_second for our, their in pairs)
    prefill = sorted(their.prompt_seconds / our.prompt_seconds for our, their in pairs)
    for name, ratios in (("tokens a second", decode), ("prefill", prefill)):
        print(
            f"  {name}: {statistics.median(ratios):.2f}x transformers "
            f"({ratios[0]:.2f}-{ratios[-1]:.2f} in {len(ratios)} rounds)"
        )


def ours(model: GPT) -> Callable[[list[int]], Run]:
    """A runner of this library's `generate`, which times prefill and decoding itself."""

    def run(prompt: list[int]) -> Run:
        result = generate(model, [prompt], max_new_tokens=NEW)
        # Its prefill gives the first token, and then it runs NEW decode steps; NEW - 1 are needed.
        return Run(result.tokens[0], result.prompt_seconds, result.seconds * (NEW - 1) / NEW)

    return run


def theirs(folder: Path) -> Callable[[list[int]], Run]:
    """A runner of `transformers`, which records the time after each token."""
    torch, transformers = map(importlib.import_module, ("torch", "transformers"))
    torch.set_num_threads(machine.cores())
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()

    def run(prompt: list[int]) -> Run:
        times: list[float] = []

        def record_time(ids: Any, scores: Any, **_: Any) -> Any:
            del scores
            times.append(time.perf_counter())
            return torch.zeros(ids.shape[0], dtype=torch.bool)

        ids, start = torch.tensor([prompt]), time.perf_counter()
        generated = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=[record_time],
        )
        return Run(generated[0, len(prompt) :].tolist(), times[0] - start, times[-1] - times[0])

    return run


if __name__ == "__main__":
    sys.exit(main())
