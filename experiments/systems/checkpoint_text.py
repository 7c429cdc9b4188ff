"""The tokenizer of a Hugging Face checkpoint, its start token and its stop tokens."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


@dataclass(frozen=True)
class CheckpointTokenizer:
    """A tokenizer with a start token and stop tokens.

    Attributes:
      tokenizer: of the checkpoint.
      start: the id of the start token, if there is one.
      ends: the ids of the stop tokens.
    """

    tokenizer: Tokenizer
    start: int | None
    ends: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> "CheckpointTokenizer":
        """Reads the files of a checkpoint.

        Raises:
          FileNotFoundError: there is no tokenizer.json.
          ValueError: a file is invalid.
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
        starts = special_ids(folder, "bos_token_id")
        return cls(tokenizer, starts[0] if starts else None, ends)

    def ids(self, prompt: str) -> list[int]:
        """The ids of a prompt, with one start token if the tokenizer adds it or the text has it.

        Raises:
          ValueError: the prompt has no tokens, and the checkpoint has no start token.
        """
        ids, plain = self.tokenizer.encode(prompt).ids, self.plain_ids(prompt)
        if len(ids) > len(plain) and ids[:1] == ids[1:2] == plain[:1]:
            return ids[1:]
        if ids:
            return ids
        if self.start is None:
            raise ValueError(
                f"prompt {prompt!r} has no tokens, and the checkpoint has no start token "
                "(bos_token_id); write at least a word"
            )
        return [self.start]

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text without added special tokens; a chat template has written them."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def stop_ids(self, stops: Sequence[str]) -> list[list[int]]:
        """Stop sequences: the checkpoint's stop tokens, and the ids of each stop text.

        Within a longer text a stop text may have other ids; `NewText` finds it there, too.

        Raises:
          ValueError: a stop text is empty.
        """
        if "" in stops:
            raise ValueError("stop has an empty text, which would stop before the first token")
        alone = [(stop, self.plain_ids(stop)) for stop in stops]
        decode = self.tokenizer.decode
        whole = [ids for stop, ids in alone if stop in decode(ids, skip_special_tokens=False)]
        return [*([end] for end in self.ends), *whole]

    def after(self, ids: Sequence[int], stops: Sequence[str] = ()) -> "NewText":
        """Converts the tokens that are generated after these ids to text."""
        return NewText(self.tokenizer, ids, stops)


class NewText:
    """The text of generated tokens, in parts.

    Incomplete characters, and text that may become a stop text, are held back. From the first stop
    text on nothing is returned.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str]) -> None:
        self._tokenizer, self._ids, self._stops = tokenizer, list(ids), stops
        self._stream = DecodeStream(ids=self._ids, skip_special_tokens=True)
        self._before, self._text, self._shown = self._decoded(), "", 0

    def __call__(self, new: Sequence[int]) -> str:
        """The text that the next tokens add."""
        self._ids += new
        self._text += self._stream.step(self._tokenizer, list(new)) or ""
        return self._next(held=max(map(self._held_length, self._stops), default=0))

    def rest(self) -> str:
        """The text that is still held back, after the last token; an incomplete character is �."""
        whole = self._decoded()
        if whole.startswith(self._before + self._text):
            self._text = whole.removeprefix(self._before)
        return self._next(held=0)

    def _decoded(self) -> str:
        return self._tokenizer.decode(self._ids, skip_special_tokens=True)

    def _held_length(self, stop: str) -> int:
        """Length of the longest beginning of a stop text at the end of the text."""
        return max(n for n in range(len(stop)) if self._text.endswith(stop[:n]))

    def _next(self, held: int) -> str:
        found = [place for stop in self._stops if (place := self._text.find(stop)) >= 0]
        end = max(min(found, default=len(self._text) - held), self._shown)
        shown, self._shown = self._text[self._shown : end], end
        return shown


def special_ids(folder: Path, name: str) -> tuple[int, ...]:
    """Special token ids of a checkpoint, from generation_config.json or else from config.json.

    Raises:
      ValueError: an entry is no id, or a file is no JSON.
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
    """The JSON object in a file.

    Raises:
      ValueError: the file contains something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object; got {type(content).__name__}")
    return content
