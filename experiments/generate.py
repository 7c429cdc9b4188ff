"""Generates text with any Hugging Face checkpoint that `load_hf` can read.

    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me"
    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me" --temperature 0.8
    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me" "It was" --lookup 8
    .venv/bin/python -m experiments.generate --model DIR --prompt "Who?" --chat --stop "User:"

DIR is a folder as `transformers` saves it: config.json, safetensors and tokenizer.json. The text is
streamed to standard output, messages go to standard error.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from flax import nnx
from rich.console import Console

from attn_jax.models import (
    GPT,
    Draft,
    DraftModel,
    Generation,
    PromptLookup,
    Sampling,
    generate,
    load_hf,
)
from experiments.command_line.errors import exit_on_user_error
from experiments.command_line.options import parse, shell_command
from experiments.systems.chat import render_chat
from experiments.systems.checkpoint_text import CheckpointTokenizer, NewText


@dataclass(frozen=True, kw_only=True)
class Options:
    """Continues each prompt with a Hugging Face checkpoint.

    Attributes:
      model: the folder with config.json, safetensors and tokenizer.json.
      prompt: one or several texts, continued in one batch; an empty one starts with the
        checkpoint's start token.
      chat: format each prompt as a message with the checkpoint's chat template, and show only the
        answer.
      system: the system message, with --chat.
      max_new_tokens: the most tokens generated for each prompt.
      stop: texts that end the generation, beside the checkpoint's stop tokens; they are not shown.
      sampling: How the next token is sampled; temperature 0 is greedy.
      seed: the seed of the sampling.
      cache: the kind of key/value cache; docs/caches.md compares them.
      int8: store keys and values in eight bits.
      dtype: the dtype of the parameters; by default that of the file.
      lookup: the number of draft tokens taken from earlier repeats in the text; 0 for none.
        Speculative decoding does not change the generated text.
      draft: the folder of a smaller model with the same vocabulary, for draft tokens.
      draft_tokens: the number of draft tokens of that model for each pass.
    """

    model: Path
    prompt: tuple[str, ...]
    chat: bool = False
    system: str = ""
    max_new_tokens: int = 128
    stop: tuple[str, ...] = ()
    sampling: Annotated[Sampling, tyro.conf.arg(name="")] = field(
        default_factory=lambda: Sampling(temperature=0.0)
    )
    seed: int = 0
    cache: Literal["contiguous", "sliding", "paged"] = "contiguous"
    int8: bool = False
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    lookup: int = 0
    draft: Path | None = None
    draft_tokens: int = 4

    def __post_init__(self) -> None:
        if self.lookup < 0:
            raise ValueError(f"lookup must be at least 0; got {self.lookup}")
        if self.system and not self.chat:
            raise ValueError("system needs the chat template; add --chat")
        if self.lookup and self.draft is not None:
            raise ValueError("lookup and draft both propose draft tokens; give one of them")


def run(options: Options, console: Console) -> Generation:
    """Loads the model, generates, and prints the speed.

    Args:
      options: of the run.
      console: for messages.

    Returns:
      The generated ids.

    Raises:
      FileNotFoundError: a file of a checkpoint is missing.
      ValueError: a checkpoint cannot be read, or an option does not fit it.
    """
    with console.status(f"loading {options.model} ..."):
        tokenizer = CheckpointTokenizer.of(options.model)
        stop = tokenizer.stop_ids(options.stop)
        prompts = [_ids(options, tokenizer, prompt) for prompt in options.prompt]
        model = load_hf(options.model, dtype=options.dtype)
        draft = load_draft(options)
    shown = [""] * len(prompts) if options.chat else options.prompt
    write = Writer(shown, [tokenizer.after(prompt, options.stop) for prompt in prompts])
    with console.status("prefill (new sizes are compiled first) ...") as status:

        def on_tokens(example: int, tokens: list[int]) -> None:
            status.stop()
            write(example, tokens)

        generated = generate(
            model,
            prompts,
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            stop=stop,
            rng=jax.random.key(options.seed),
            kind=options.cache,
            int8=options.int8,
            draft=draft,
            on_tokens=on_tokens,
        )
    write.finish(generated)
    console.print(summary(model, prompts, generated), markup=False, soft_wrap=True, style="dim")
    return generated


def load_draft(options: Options) -> Draft | None:
    """The source of draft tokens, or None."""
    if options.draft is not None:
        return DraftModel(load_hf(options.draft, dtype=options.dtype), options.draft_tokens)
    return PromptLookup(options.lookup) if options.lookup else None


def _ids(options: Options, tokenizer: CheckpointTokenizer, prompt: str) -> list[int]:
    if not options.chat:
        return tokenizer.ids(prompt)
    return tokenizer.plain_ids(render_chat(options.model, prompt, options.system))


class Writer:
    """Streams a single text; writes several texts one after the other at the end."""

    def __init__(self, texts: Sequence[str], new_text: Sequence[NewText]) -> None:
        self._texts, self._new_texts = texts, new_text
        self._streams = len(texts) == 1
        if self._streams:
            print(texts[0], end="", flush=True)

    def __call__(self, example: int, tokens: list[int]) -> None:
        """Writes the next tokens of a batch example if there is only one."""
        if self._streams:
            print(self._new_texts[example](tokens), end="", flush=True)

    def finish(self, generated: Generation) -> None:
        """Writes the rest when generation is done."""
        if self._streams:
            print(self._new_texts[0].rest(), flush=True)
            return
        for text, new_text, tokens in zip(
            self._texts, self._new_texts, generated.tokens, strict=True
        ):
            print(f"{text}{new_text(tokens)}{new_text.rest()}\n", flush=True)


def summary(model: GPT, prompts: Sequence[Sequence[int]], generated: Generation) -> str:
    """The number of tokens, and the speed."""
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    new, longest = sum(map(len, generated.tokens)), max(map(len, generated.tokens))
    return (
        f"{size:,} parameters; {sum(map(len, prompts)):,} prompt tokens in "
        f"{generated.prompt_seconds:.1f} s, compiling included; {new:,} generated tokens in "
        f"{generated.seconds:.1f} s: {generated.tokens_per_second:.1f} tokens/s, "
        f"{longest / generated.passes:.1f} a pass of the model"
    )


def main(arguments: Sequence[str]) -> int:
    """The command; returns exit status 0.

    Raises:
      SystemExit: an option is unknown, or the run raised an error that a user can correct.
    """
    with exit_on_user_error():
        options = parse(Options, arguments, prog=shell_command("generate"))
        run(options, Console(stderr=True, highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
