"""What does a language model say next? Any checkpoint of Hugging Face that `load_hf` reads.

    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me"
    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me" --temperature 0.8
    .venv/bin/python -m experiments.generate --model DIR --prompt "Call me" "It was" --lookup 8
    .venv/bin/python -m experiments.generate --model DIR --prompt "Who?" --chat --stop "User:"

DIR is a folder as `transformers` saves it: config.json, safetensors and tokenizer.json. The text
goes to standard output as it is said, what is told about it to standard error.
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
from experiments.command_line.errors import mendable_errors
from experiments.command_line.options import shell_command
from experiments.systems.chat import rendered
from experiments.systems.checkpoint_text import Following, Words


@dataclass(frozen=True, kw_only=True)
class Options:
    """Says what comes after each prompt, by a checkpoint of Hugging Face.

    Attributes:
      model: folder with config.json, safetensors and tokenizer.json.
      prompt: one text or several, which go on side by side; an empty one begins with the token
        that begins texts.
      chat: whether each prompt is a message, which the checkpoint's chat template writes; only the
        answer is shown then.
      system: with `chat`, what the model is told before the message.
      max_new_tokens: the most tokens that are said after each.
      stop: texts before which a text ends, beside the tokens that the checkpoint names.
      sampling: how the next token is chosen; temperature 0 takes the likeliest one.
      seed: of what is drawn.
      cache: where keys and values are kept; docs/caches.md compares the kinds.
      int8: keep them in eight bits.
      dtype: of the parameters; the file's by default.
      lookup: guess so many tokens at once where the text repeats itself; 0 guesses none. What is
        said stays the same.
      draft: folder of a smaller model of the same vocabulary, which guesses.
      draft_tokens: how many tokens that one guesses at once.
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
            raise ValueError("system is told by the chat template; add --chat")
        if self.lookup and self.draft is not None:
            raise ValueError("lookup and draft both guess; give one of them")


def run(options: Options, console: Console) -> Generation:
    """Loads, says, and tells how fast.

    Args:
      options: of the run.
      console: for what is told about the text.

    Returns:
      What was said, as ids.

    Raises:
      FileNotFoundError: a file of a checkpoint is missing.
      ValueError: a checkpoint cannot be read, or an option does not fit it.
    """
    with console.status(f"loading {options.model} ..."):
        words = Words.of(options.model)
        stop = words.stop_ids(options.stop)
        prompts = [_ids(options, words, prompt) for prompt in options.prompt]
        model = load_hf(options.model, dtype=options.dtype)
        draft = load_draft(options)
    shown = [""] * len(prompts) if options.chat else options.prompt
    write = Writer(shown, [words.after(prompt, options.stop) for prompt in prompts])
    with console.status("reading the prompt (new sizes are compiled first) ...") as status:

        def tell(row: int, tokens: list[int]) -> None:
            status.stop()
            write(row, tokens)

        said = generate(
            model,
            prompts,
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            stop=stop,
            rng=jax.random.key(options.seed),
            kind=options.cache,
            int8=options.int8,
            draft=draft,
            on_tokens=tell,
        )
    write.rest(said)
    console.print(summary(model, prompts, said), markup=False, soft_wrap=True, style="dim")
    return said


def load_draft(options: Options) -> Draft | None:
    """What guesses, if anything does."""
    if options.draft is not None:
        return DraftModel(load_hf(options.draft, dtype=options.dtype), options.draft_tokens)
    return PromptLookup(options.lookup) if options.lookup else None


def _ids(options: Options, words: Words, prompt: str) -> list[int]:
    if not options.chat:
        return words.ids(prompt)
    return words.plain_ids(rendered(options.model, prompt, options.system))


class Writer:
    """Writes a single text as it is said, and several one after the other in the end."""

    def __init__(self, texts: Sequence[str], following: Sequence[Following]) -> None:
        self._texts, self._following = texts, following
        self._streams = len(texts) == 1
        if self._streams:
            print(texts[0], end="", flush=True)

    def __call__(self, row: int, tokens: list[int]) -> None:
        """Takes the next tokens of a row."""
        if self._streams:
            print(self._following[row](tokens), end="", flush=True)

    def rest(self, said: Generation) -> None:
        """What is left to write when all is said."""
        if self._streams:
            print(self._following[0].rest(), flush=True)
            return
        for text, following, tokens in zip(self._texts, self._following, said.tokens, strict=True):
            print(f"{text}{following(tokens)}{following.rest()}\n", flush=True)


def summary(model: GPT, prompts: Sequence[Sequence[int]], said: Generation) -> str:
    """How much was said, and how fast."""
    size = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model)))
    new, longest = sum(map(len, said.tokens)), max(map(len, said.tokens))
    return (
        f"{size:,} parameters; {sum(map(len, prompts)):,} tokens read in {said.prompt_seconds:.1f} "
        f"s, compiling included; {new:,} tokens said in {said.seconds:.1f} s: "
        f"{said.tokens_per_second:.1f} tokens/s, {longest / said.passes:.1f} a pass of the model"
    )


def main(arguments: Sequence[str]) -> int:
    """The command; 0 where something was said.

    Raises:
      SystemExit: an option is unknown, or the run met an error that a user can mend.
    """
    with mendable_errors():
        options = tyro.cli(Options, args=arguments, prog=shell_command("generate"))
        run(options, Console(stderr=True, highlight=False))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
