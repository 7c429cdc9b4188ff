"""Lossless tokenizers for language models: characters, or byte pairs.

Byte-pair encoding of bytes: Sennrich et al. (2016), https://arxiv.org/abs/1508.07909; Radford et
al., "Language Models are Unsupervised Multitask Learners" (2019), section 2.2. Unlike the
subwords of `tokens`, these keep spaces and line ends, so bits per character are exact.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

BYTES = 256
type Kind = Literal["char", "bpe"]


@dataclass(frozen=True)
class Characters:
    """One id a character, in the order of Unicode.

    Example:
      >>> tokens = Characters.of("to be")
      >>> tokens.encode("beet").tolist(), tokens.decode([4, 3, 2])
      ([1, 2, 2, 4], 'toe')
    """

    letters: str

    @classmethod
    def of(cls, text: str) -> "Characters":
        """The alphabet of a text."""
        return cls("".join(sorted(set(text))))

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.letters)

    @property
    def fingerprint(self) -> str:
        """A hash of the tokenizer; a stored run resumes only with the same."""
        return hashlib.sha256(self.letters.encode()).hexdigest()

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """The ids of a text.

        Raises:
          ValueError: a character is not in the alphabet.
        """
        ids = {letter: i for i, letter in enumerate(self.letters)}
        if unknown := sorted(set(text) - set(self.letters)):
            raise ValueError(
                f"{''.join(unknown)!r} is not among the {self.size} characters of the text; leave "
                "it out"
            )
        return np.array([ids[letter] for letter in text], np.int32)

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """The text of ids."""
        return "".join(self.letters[i] for i in ids)


@dataclass(frozen=True)
class BytePairs:
    """Byte-pair encoding of bytes; any text has ids."""

    tokenizer: Tokenizer

    @classmethod
    def of(cls, text: str, vocab_size: int) -> "BytePairs":
        """The byte pairs learned from a text.

        Raises:
          ValueError: `vocab_size` is less than the number of bytes.
        """
        if vocab_size < BYTES:
            raise ValueError(f"vocab_size={vocab_size} must be at least {BYTES}, one id a byte")
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator([text], trainer)
        return cls(tokenizer)

    @property
    def size(self) -> int:
        """Number of ids; less than `vocab_size` where the text has too few pairs."""
        return self.tokenizer.get_vocab_size()

    @property
    def fingerprint(self) -> str:
        """A hash of the tokenizer; a stored run resumes only with the same."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def encode(self, text: str) -> Int[np.ndarray, " T"]:
        """The ids of a text."""
        return np.array(self.tokenizer.encode(text).ids, np.int32)

    def decode(self, ids: Sequence[int] | Int[np.ndarray, " T"]) -> str:
        """The text of ids; bytes that form no character become «�»."""
        return self.tokenizer.decode([int(i) for i in ids])


type Tokens = Characters | BytePairs


def learn_tokens(kind: Kind, train: str, validation: str, vocab_size: int) -> Tokens:
    """A tokenizer: all characters of the text, or byte pairs learned from the training split.

    From the validation split only the set of its characters is used.
    """
    return Characters.of(train + validation) if kind == "char" else BytePairs.of(train, vocab_size)
