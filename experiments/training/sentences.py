"""The corpus, the vocabulary and the directory of a `translate` run."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from attn_jax.models import UNK
from experiments.data.corpora import Corpus, load_corpus
from experiments.data.tokens import encode, load_tokenizer, save_tokenizer, train_tokenizer
from experiments.data.words import words
from experiments.systems.translation import SYSTEMS
from experiments.training import checkpoints
from experiments.training.runs import CHECKPOINTS, clear, write_whole
from experiments.training.settings import Settings

SETTINGS, ENGLISH, FRENCH = "settings.json", "english.json", "french.json"
WORDS = "words.txt"  # the words of the training sources, one a line


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


def prepare_directory(settings: Settings, corpus: Corpus) -> Vocabulary:
    """The vocabulary of the run; the run's directory has these settings when this returns.

    A stored run is replaced if it has no checkpoint, or with `settings.fresh`. The new vocabulary
    is learned before: if that fails, the stored run is unchanged.

    Raises:
      CheckpointMismatch: the directory holds a run with other settings, and the message lists
        them; or checkpoints without settings, because a fresh start was killed.
      ValueError: the vocabulary cannot be learned.
    """
    directory, requested = settings.directory, identity(settings)
    path = directory / SETTINGS
    stored = json.loads(path.read_text()) if path.exists() else None
    has_learned = any(checkpoints.exist(directory / name / CHECKPOINTS) for name in SYSTEMS)
    if settings.fresh or (stored != requested and not has_learned):
        vocabulary = learn_vocabulary(corpus, settings.vocab_size)
        path.unlink(missing_ok=True)
        for name in SYSTEMS:
            clear(directory / name)
        save_vocabulary(vocabulary, corpus, directory)
        write_whole(path, f"{json.dumps(requested, indent=2)}\n".encode())
    elif stored is None:
        raise checkpoints.CheckpointMismatch(
            f"{directory} has checkpoints, but no {SETTINGS}, as after a fresh start that was "
            "killed. Choose another --name or pass --fresh"
        )
    else:
        checkpoints.require_equal(directory, stored, requested)
    return load_vocabulary(directory)


def identity(settings: Settings) -> dict[str, object]:
    """The settings that a resumed run must have again, flat, as JSON: all but search and output."""
    own = {"preset", "name", "data_dir", "systems", "beam", "fresh"}
    flat = {}
    for name, value in dataclasses.asdict(settings).items():
        inner = value if isinstance(value, dict) else {"": value}
        if name not in own:
            flat |= {f"{name}.{part}".rstrip("."): entry for part, entry in inner.items()}
    return flat


def learn_vocabulary(corpus: Corpus, size: int) -> Vocabulary:
    """The subwords of the training sentences, at most `size` of each language.

    Raises:
      ValueError: `size` is too small for the letters alone.
    """
    return Vocabulary(
        train_tokenizer([pair.source for pair in corpus.train], size),
        train_tokenizer([pair.target for pair in corpus.train], size),
    )


def save_vocabulary(vocabulary: Vocabulary, corpus: Corpus, directory: Path) -> None:
    """Stores the tokenizers, and the words of the training sources."""
    save_tokenizer(vocabulary.english, directory / ENGLISH)
    save_tokenizer(vocabulary.french, directory / FRENCH)
    known = sorted({word for pair in corpus.train for word in words(pair.source)})
    write_whole(directory / WORDS, ("\n".join(known) + "\n").encode())


def unknown_parts(
    vocabulary: Vocabulary, directory: Path, sentence: str
) -> tuple[list[str], list[str]]:
    """The characters and the words of a sentence that no training source of the run has.

    Args:
      vocabulary: of the run.
      directory: of the run; in one of an older version no word counts as unknown.
      sentence: in English.

    Returns:
      The characters that are <unk> to the network, and the words of known characters.
    """
    signs = dict.fromkeys(sign for sign in sentence if not sign.isspace())
    characters = [sign for sign in signs if UNK in encode(vocabulary.english, sign)]
    path = directory / WORDS
    if not path.is_file():
        return characters, []
    known = {*path.read_text(encoding="utf-8").split("\n")}
    return characters, [
        word
        for word in dict.fromkeys(words(sentence))
        if word not in known and not any(UNK in encode(vocabulary.english, sign) for sign in word)
    ]


def prepare_corpus(settings: Settings) -> Corpus:
    """The part of the corpus that the run's rule keeps."""
    return settings.rule.apply(load_corpus(settings.corpus, settings.data_dir))
