"""Subwords for translation: byte-pair encoding of words together with the space before them.

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016),
https://arxiv.org/abs/1508.07909, with the space as a character of its own (Kudo & Richardson,
"SentencePiece" (2018), https://arxiv.org/abs/1808.06226), so decoding needs no rules.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from attn_jax.models import BOS, EOS, PAD, UNK

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
_SPACE = "▁"
# A French elision, an English clitic, a word, or one other character, each with the space before.
_WORDS = Regex(
    rf"{_SPACE}?(?:[cdjlmnst]|qu)'(?=\p{{L}})"
    r"|'(?:s|t|d|m|re|ve|ll)(?!\p{L})"
    rf"|{_SPACE}?[\p{{L}}\p{{M}}\p{{N}}]+"
    rf"|{_SPACE}?[^\p{{L}}\p{{M}}\p{{N}}{_SPACE}]"
    rf"|{_SPACE}"
)


def train_tokenizer(
    sentences: Iterable[str], vocab_size: int, *, lowercase: bool = True
) -> Tokenizer:
    """Learns a subword vocabulary; it does not depend on the order of the sentences.

    Args:
      sentences: the training sentences of one language.
      vocab_size: most subwords, `SPECIALS` and all single characters included.
      lowercase: whether to lower-case.

    Returns:
      The tokenizer; its ids 0 to 3 are PAD, BOS, EOS and UNK of `attn_jax.models`.

    Raises:
      ValueError: there is no text, or `vocab_size` is too small for its characters.

    Example:
      >>> tokenizer = train_tokenizer(["l'été", "L'été d'or"] * 3, 40)
      >>> decode(tokenizer, encode(tokenizer, "L'or  d'été"))
      "l'or d'été"
    """
    sentences = list(sentences)
    alphabet = {sign for sentence in sentences for sign in sentence}
    if not alphabet - set(" "):
        raise ValueError("sentences holds no text; pass the training sentences of one language")
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIALS[UNK]))
    fold = [normalizers.Lowercase()] if lowercase else []
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *fold, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=False),
            pre_tokenizers.Split(_WORDS, behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(_SPACE, prepend_scheme="always")
    tokenizer.train_from_iterator(sentences, _trainer(vocab_size))
    if tokenizer.get_vocab_size() > vocab_size:
        raise ValueError(
            f"vocab_size={vocab_size} is too small: the characters and the "
            f"{len(SPECIALS)} special tokens alone are {tokenizer.get_vocab_size()}"
        )
    return _checked(tokenizer, "the trained tokenizer")


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), min_frequency=2, show_progress=False
    )


def _checked(tokenizer: Tokenizer, name: str) -> Tokenizer:
    for token, expected in zip(SPECIALS, (PAD, BOS, EOS, UNK), strict=True):
        actual = tokenizer.token_to_id(token)
        if actual != expected:
            raise ValueError(
                f"{name} gives {token!r} the id {actual}, not {expected}; train it again"
            )
    tokenizer.encode_special_tokens = True  # "</s>" typed by a user is text, not EOS
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a tokenizer as one JSON file.

    Args:
      tokenizer: of `train_tokenizer`.
      path: of the file; a missing folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads a file of `save_tokenizer`.

    Args:
      path: the JSON file.

    Returns:
      The tokenizer.

    Raises:
      ValueError: the file is missing or damaged, or its special tokens have other ids.
    """
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}; train the model first")
    data = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({len(data):,} bytes, {error}); restore it or train the model again"
        ) from error
    return _checked(tokenizer, str(path))


def encode(tokenizer: Tokenizer, sentence: str) -> list[int]:
    """The ids of a sentence, without BOS and EOS.

    Args:
      tokenizer: of the sentence's language.
      sentence: text; characters that are not in the training sentences become UNK.

    Returns:
      At least one id.

    Raises:
      ValueError: the sentence is empty or white space.
    """
    if not sentence.strip():
        raise ValueError(f"sentence={sentence!r} is empty; pass at least one word")
    return tokenizer.encode(sentence, add_special_tokens=False).ids


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids, up to EOS; PAD and BOS are skipped, UNK becomes `<unk>`.

    Args:
      tokenizer: of the language.
      ids: output of a model or of `encode`.

    Returns:
      The sentence; equal to the argument of `encode` up to case and repeated spaces.
    """
    return tokenizer.decode(_visible(ids), skip_special_tokens=False)


def subwords(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The subwords of ids as labels; `▁` stands for the space before.

    Args:
      tokenizer: of the language.
      ids: of subwords and special tokens.

    Returns:
      One string an id.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    labels = []
    for i in map(int, ids):
        label = tokenizer.id_to_token(i) if i >= 0 else None
        if label is None:
            size = tokenizer.get_vocab_size()
            raise ValueError(f"ids holds {i}, outside the vocabulary of {size} subwords")
        labels.append(label)
    return labels


def _visible(ids: Sequence[int]) -> list[int]:
    until_eos = itertools.takewhile(lambda i: i != EOS, map(int, ids))
    return [i for i in until_eos if i not in (PAD, BOS)]
