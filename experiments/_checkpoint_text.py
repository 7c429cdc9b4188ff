"""Text of a checkpoint of Hugging Face: its tokenizer, and where texts begin and end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


@dataclass(frozen=True)
class Words:
    """How text becomes ids and comes back, and where it begins and ends.

    Attributes:
      tokenizer: of the checkpoint.
      begin: the id that begins texts, if there is one.
      ends: ids that end a text.
    """

    tokenizer: Tokenizer
    begin: int | None
    ends: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> "Words":
        """Those of a checkpoint.

        Raises:
          FileNotFoundError: it has no tokenizer.json.
          ValueError: a file is not what it should be.
        """
        path = folder / "tokenizer.json"
        if not path.exists():
            raise FileNotFoundError(
                f"{folder} has no tokenizer.json; write it with "
                "AutoTokenizer.from_pretrained(...).save_pretrained(folder) of transformers"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no class of its own
            raise ValueError(f"{path} is no tokenizer: {error}") from error
        ends = special_ids(folder, "eos_token_id")
        begins = special_ids(folder, "bos_token_id")
        return cls(tokenizer, begins[0] if begins else None, ends)

    def ids(self, prompt: str) -> list[int]:
        """The ids of a prompt.

        Raises:
          ValueError: it has none, and the checkpoint names no token that begins texts.
        """
        if ids := self.tokenizer.encode(prompt).ids:
            return ids
        if self.begin is None:
            raise ValueError(
                f"prompt {prompt!r} has no tokens, and the checkpoint names none that begins texts "
                "(bos_token_id); write at least a word"
            )
        return [self.begin]

    def after(self, ids: Sequence[int]) -> Callable[[list[int]], str]:
        """A function from the next ids to what they add to a text; half a character waits."""
        stream = DecodeStream(ids=list(ids), skip_special_tokens=True)
        return lambda new: stream.step(self.tokenizer, new) or ""


def special_ids(folder: Path, name: str) -> tuple[int, ...]:
    """Ids that a checkpoint names, by generation_config.json or else by config.json.

    Raises:
      ValueError: they are no ids, or a file is no JSON.
    """
    for path in (folder / "generation_config.json", folder / "config.json"):
        if not path.exists():
            continue
        try:
            named = json.loads(path.read_text(encoding="utf-8")).get(name)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON: {error}") from error
        ids = named if isinstance(named, list) else [] if named is None else [named]
        if not all(isinstance(i, int) for i in ids):
            raise ValueError(f"{path} must give {name} as an id or a list of ids; got {named!r}")
        if ids:
            return tuple(ids)
    return ()
