"""Sentences on their way to a network and back: corpus, rule, word pieces, batches."""

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
    """The word pieces of both languages."""

    english: Tokenizer
    french: Tokenizer

    @property
    def sizes(self) -> tuple[int, int]:
        """How many pieces: source, target."""
        return self.english.get_vocab_size(), self.french.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """A hash of both; a network is useless with any other vocabulary."""
        text = self.english.to_str() + self.french.to_str()
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_vocabulary(directory: Path) -> Vocabulary:
    """The vocabulary of a run.

    Raises:
      ValueError: a file is missing or damaged.
    """
    return Vocabulary(load_tokenizer(directory / ENGLISH), load_tokenizer(directory / FRENCH))


def claim(settings: Settings) -> None:
    """Makes the run's directory this run's own: its settings are stored, or equal those stored.

    What stopped before its first checkpoint has learned nothing, and gives way to other settings.

    Raises:
      CheckpointMismatch: the directory holds a run with other settings; the message lists them.
    """
    directory = settings.directory
    path, asked = directory / SETTINGS, identity(settings)
    stored = json.loads(path.read_text()) if path.exists() else None
    has_learned = any(checkpoints.exist(directory / name / CHECKPOINTS) for name in SYSTEMS)
    if settings.fresh or (stored != asked and not has_learned):
        for name in (SETTINGS, ENGLISH, FRENCH):
            (directory / name).unlink(missing_ok=True)
        for name in SYSTEMS:
            clear(directory / name)
        write_whole(path, f"{json.dumps(asked, indent=2)}\n".encode())
    elif stored is not None:
        checkpoints.require_equal(directory, stored, asked)


def identity(settings: Settings) -> dict[str, object]:
    """What all systems of a run share, flat and in JSON: all but how it is searched and shown."""
    own = {"name", "data_dir", "systems", "beam", "fresh"}
    flat = {}
    for name, value in dataclasses.asdict(settings).items():
        inner = value if isinstance(value, dict) else {"": value}
        if name not in own:
            flat |= {f"{name}.{part}".rstrip("."): entry for part, entry in inner.items()}
    return flat


def prepare_vocabulary(corpus: Corpus, settings: Settings) -> Vocabulary:
    """The run's vocabulary, learned from the training sentences where it has none yet."""
    directory = settings.directory
    if not (directory / FRENCH).exists():
        for path, side in ((ENGLISH, "source"), (FRENCH, "target")):
            sentences = [getattr(pair, side) for pair in corpus.train]
            save_tokenizer(train_tokenizer(sentences, settings.vocab_size), directory / path)
    return load_vocabulary(directory)


def prepare_corpus(settings: Settings) -> Corpus:
    """The corpus, cut down by the run's rule."""
    return settings.rule.apply(load_corpus(settings.corpus, settings.data_dir))
