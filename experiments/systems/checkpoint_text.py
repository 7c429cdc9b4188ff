"""Text of a checkpoint of Hugging Face: its tokenizer, and where texts begin and end."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        """The ids of a prompt; a text that begins with the token that begins texts has it once.

        Raises:
          ValueError: it has none, and the checkpoint names no token that begins texts.
        """
        ids, plain = self.tokenizer.encode(prompt).ids, self.plain_ids(prompt)
        if len(ids) > len(plain) and ids[:1] == ids[1:2] == plain[:1]:
            return ids[1:]
        if ids:
            return ids
        if self.begin is None:
            raise ValueError(
                f"prompt {prompt!r} has no tokens, and the checkpoint names none that begins texts "
                "(bos_token_id); write at least a word"
            )
        return [self.begin]

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text that has all its special tokens, as a chat template writes it."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def stop_ids(self, stops: Sequence[str]) -> list[list[int]]:
        """Ids that end a text: those of the checkpoint, and of each stop text as it is alone.

        A tokenizer may write a stop text otherwise within a text; `Following` finds it there, too.

        Raises:
          ValueError: a stop text is empty.
        """
        if "" in stops:
            raise ValueError("stop has an empty text, which would stop before the first token")
        alone = [(stop, self.plain_ids(stop)) for stop in stops]
        decode = self.tokenizer.decode
        whole = [ids for stop, ids in alone if stop in decode(ids, skip_special_tokens=False)]
        return [*([end] for end in self.ends), *whole]

    def after(self, ids: Sequence[int], stops: Sequence[str] = ()) -> "Following":
        """What follows these ids, as text."""
        return Following(self.tokenizer, ids, stops)


class Following:
    """The text that tokens add to others: half a character waits, and so may a stop text's begin.

    Nothing is shown from the first stop text on.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._ids, self._stops = tokenizer, list(ids), stops
        self._stream = DecodeStream(ids=self._ids, skip_special_tokens=True)
        self._before, self._text, self._shown = self._whole(), "", 0

    def __call__(self, new: Sequence[int]) -> str:
        """What the next tokens add."""
        self._ids += new
        self._text += self._stream.step(self._tokenizer, list(new)) or ""
        return self._next(held=max(map(self._begun, self._stops), default=0))

    def rest(self) -> str:
        """What is left when no more tokens come: half a character is � then."""
        whole = self._whole()
        if whole.startswith(self._before + self._text):
            self._text = whole.removeprefix(self._before)
        return self._next(held=0)

    def _whole(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)

    def _begun(self, stop: str) -> int:
        """How much of a stop text stands at the end."""
        return max(n for n in range(len(stop)) if self._text.endswith(stop[:n]))

    def _next(self, held: int) -> str:
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        end = max(min(found, default=len(self._text) - held), self._shown)
        shown, self._shown = self._text[self._shown : end], end
        return shown


def special_ids(folder: Path, name: str) -> tuple[int, ...]:
    """Ids that a checkpoint names, by generation_config.json or else by config.json.

    Raises:
      ValueError: they are no ids, or a file is no JSON.
    """
    for path in (folder / "generation_config.json", folder / "config.json"):
        named = read_object(path).get(name) if path.exists() else None
        ids = named if isinstance(named, list) else [] if named is None else [named]
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in ids):
            raise ValueError(f"{path} must give {name} as an id or a list of ids; got {named!r}")
        if ids:
            return tuple(ids)
    return ()


def read_object(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
      ValueError: it is none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object; got {type(content).__name__}")
    return content
