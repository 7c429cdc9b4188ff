"""Word pieces: byte-pair encoding on words that keep their spaces, so that text comes back.

Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units" (2016),
https://arxiv.org/abs/1508.07909, with the space written as a sign of its own (Kudo & Richardson,
"SentencePiece" (2018), https://arxiv.org/abs/1808.06226): no rules are needed to decode.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from attn_jax.models import BOS, EOS, PAD, UNK

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
_SPACE = "▁"
# A French elision, an English clitic, a word, or one other sign; the space goes with what follows.
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
    """Learns a word-piece vocabulary; the same sentences, in any order, give the same.

    Args:
      sentences: the training sentences of one language.
      vocab_size: how many pieces at most, `SPECIALS` and all single characters included.
      lowercase: fold case, as scores that ignore it suggest.

    Returns:
      The tokenizer; its ids 0 to 3 are PAD, BOS, EOS and UNK of `attn_jax.models`.

    Raises:
      ValueError: there is no text, or `vocab_size` has no room for its characters.

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
            f"vocab_size={vocab_size} has no room: the characters alone and the "
            f"{len(SPECIALS)} special pieces are {tokenizer.get_vocab_size()}"
        )
    return _checked(tokenizer, "the trained tokenizer")


def _trainer(vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=list(SPECIALS), min_frequency=2, show_progress=False
    )


def _checked(tokenizer: Tokenizer, name: str) -> Tokenizer:
    for piece, expected in zip(SPECIALS, (PAD, BOS, EOS, UNK), strict=True):
        actual = tokenizer.token_to_id(piece)
        if actual != expected:
            raise ValueError(
                f"{name} gives {piece!r} the id {actual}, not {expected}; train it anew"
            )
    tokenizer.encode_special_tokens = True  # "</s>" typed by a user is text, not the end
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a tokenizer as one JSON file.

    Args:
      tokenizer: what `train_tokenizer` returned.
      path: the file; its folder is made if need be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")


def load_tokenizer(path: Path) -> Tokenizer:
    """Reads what `save_tokenizer` wrote.

    Args:
      path: the JSON file.

    Returns:
      The tokenizer.

    Raises:
      ValueError: the file is missing or damaged, or its special pieces have other ids.
    """
    if not path.is_file():
        raise ValueError(f"no tokenizer at {path}; train the model first")
    data = path.read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({len(data):,} bytes, {error}); restore it or train the model anew"
        ) from error
    return _checked(tokenizer, str(path))


def encode(tokenizer: Tokenizer, sentence: str) -> list[int]:
    """The piece ids of a sentence, without BOS and EOS.

    Args:
      tokenizer: of the sentence's language.
      sentence: text; characters that training never saw become UNK.

    Returns:
      At least one id.

    Raises:
      ValueError: the sentence is empty or white space.
    """
    if not sentence.strip():
        raise ValueError(f"sentence={sentence!r} is empty; pass at least one word")
    return tokenizer.encode(sentence, add_special_tokens=False).ids


def decode(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of piece ids, up to EOS; PAD and BOS are skipped, UNK is written `<unk>`.

    Args:
      tokenizer: of the language of the pieces.
      ids: as a model or `encode` gives them.

    Returns:
      The sentence; what `encode` was given, up to case and repeated spaces.
    """
    return tokenizer.decode(_visible(ids), skip_special_tokens=False)


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """The pieces one by one, as labels of an alignment: `▁` stands for the space before.

    Args:
      tokenizer: of the language of the pieces.
      ids: piece ids, all of them shown, the special ones too.

    Returns:
      As many strings as ids.

    Raises:
      ValueError: an id is outside the vocabulary.
    """
    labels = []
    for i in map(int, ids):
        label = tokenizer.id_to_token(i) if i >= 0 else None
        if label is None:
            size = tokenizer.get_vocab_size()
            raise ValueError(f"ids holds {i}, outside the vocabulary of {size} pieces")
        labels.append(label)
    return labels


def _visible(ids: Sequence[int]) -> list[int]:
    until_eos = itertools.takewhile(lambda i: i != EOS, map(int, ids))
    return [i for i in until_eos if i not in (PAD, BOS)]
