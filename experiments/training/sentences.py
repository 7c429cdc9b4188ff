"""The corpus, the vocabulary and the directory of a `translate` run."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from experiments.data.corpora import Corpus, load_corpus
from experiments.data.tokens import load_tokenizer, save_tokenizer, train_tokenizer
from experiments.systems.translation import SYSTEMS
from experiments.training import checkpoints
from experiments.training.runs import CHECKPOINTS, clear, write_whole
from experiments.training.settings import Settings

SETTINGS, ENGLISH, FRENCH = "settings.json", "english.json", "french.json"


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizers of both languages."""

    english: Tokenizer
    french: Tokenizer

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of tokens of source and target."""
        return self.english.get_vocab_size(), self.french.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """A hash of both tokenizers; a stored network needs the same."""
        text = self.english.to_str() + self.french.to_str()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary of a run.

    Raises:
      ValueError: a file is missing or damaged.
    """
    return Vocabulary(load_tokenizer(directory / ENGLISH), load_tokenizer(directory / FRENCH))


def reserve_directory(settings: Settings) -> None:
    """Stores the settings in the run's directory, or checks that they equal the stored ones.

    A stored run without a checkpoint is replaced.

    Raises:
      CheckpointMismatch: the directory holds a run with other settings; the message lists them.
    """
    directory = settings.directory
    path, requested = directory / SETTINGS, identity(settings)
    stored = json.loads(path.read_text()) if path.exists() else None
    has_learned = any(checkpoints.exist(directory / name / CHECKPOINTS) for name in SYSTEMS)
    if settings.fresh or (stored != requested and not has_learned):
        for name in (SETTINGS, ENGLISH, FRENCH):
            (directory / name).unlink(missing_ok=True)
        for name in SYSTEMS:
            clear(directory / name)
        write_whole(path, f"{json.dumps(requested, indent=2)}\n".encode())
    elif stored is not None:
        checkpoints.require_equal(directory, stored, requested)


def identity(settings: Settings) -> dict[str, object]:
    """The settings that a resumed run must have again, flat, as JSON: all but search and output."""
    own = {"name", "data_dir", "systems", "beam", "fresh"}
    flat = {}
    for name, value in dataclasses.asdict(settings).items():
        inner = value if isinstance(value, dict) else {"": value}
        if name not in own:
            flat |= {f"{name}.{part}".rstrip("."): entry for part, entry in inner.items()}
    return flat


def prepare_vocabulary(corpus: Corpus, settings: Settings) -> Vocabulary:
    """The stored vocabulary of the run; at first it is learned from the training sentences."""
    directory = settings.directory
    if not (directory / FRENCH).exists():
        for path, side in ((ENGLISH, "source"), (FRENCH, "target")):
            sentences = [getattr(pair, side) for pair in corpus.train]
            save_tokenizer(train_tokenizer(sentences, settings.vocab_size), directory / path)
    return load_vocabulary(directory)


def prepare_corpus(settings: Settings) -> Corpus:
    """The part of the corpus that the run's rule keeps."""
    return settings.rule.apply(load_corpus(settings.corpus, settings.data_dir))
