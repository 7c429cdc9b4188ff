"""The files of a checkpoint beside its weights: `load_hf` keeps them, `save_hf` writes them."""

import dataclasses
from pathlib import Path

from attn_jax.models.checkpoints import _files
from attn_jax.models.checkpoints._values import Config

_CONFIG = "config.json"
# The files that `transformers` reads from a language model's folder beside config and weights.
_KEPT = (
    *("generation_config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken"),
    *("chat_template.*", "additional_chat_templates/*.jinja"),
)


@dataclasses.dataclass(frozen=True)
class Origin:
    """The files of a checkpoint beside its weights: names and contents.

    Origins are hashable and compare by value, so a model that has one can be split and compiled.
    """

    names: tuple[str, ...]
    contents: tuple[bytes, ...] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, folder: Path) -> "Origin":
        """The origin of a checkpoint's folder."""
        found = {path for pattern in (_CONFIG, *_KEPT) for path in folder.glob(pattern)}
        files = sorted(path for path in found if path.is_file())
        names = tuple(path.relative_to(folder).as_posix() for path in files)
        return cls(names, tuple(path.read_bytes() for path in files))

    @property
    def config(self) -> Config:
        """The content of its config.json."""
        text = self.contents[self.names.index(_CONFIG)]
        return _files.parse_json(Path(_CONFIG), text)

    def write(self, folder: Path) -> None:
        """Writes all files except config.json."""
        for name, content in zip(self.names, self.contents, strict=True):
            if name != _CONFIG:
                (folder / name).parent.mkdir(exist_ok=True)
                _files.write_bytes(folder / name, content)
