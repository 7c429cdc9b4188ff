import subprocess
import sys

import pytest

from attn_jax.models import BOS, EOS, PAD, UNK
from experiments.data.tokens import (
    decode,
    encode,
    load_tokenizer,
    save_tokenizer,
    subwords,
    train_tokenizer,
)

SENTENCES = [
    "L'utilisateur n'a pas écrit le fichier httpd.conf.",
    "Choisissez l'onglet « Général », puis cliquez sur OK (Ctrl+S).",
    "Qu'est-ce que l'été ? C'est d'abord le 21 juin 2024 !",
    "Le fichier est-il déjà là ? Oui : dans /etc/apache2.",
] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, 120)


@pytest.mark.parametrize("sentence", SENTENCES[:4])
def test_decoding_gives_the_sentence_back_up_to_case(tokenizer, sentence):
    assert decode(tokenizer, encode(tokenizer, sentence)) == sentence.lower()


def test_case_stays_without_lowercase():
    cased = train_tokenizer(SENTENCES, 120, lowercase=False)
    assert decode(cased, encode(cased, SENTENCES[1])) == SENTENCES[1]


def test_repeated_space_is_one_space(tokenizer):
    ids = encode(tokenizer, "le fichier")
    assert encode(tokenizer, "  Le\t fichier\n") == ids


def test_decomposed_accents_are_composed(tokenizer):
    assert encode(tokenizer, "e\u0301te\u0301") == encode(tokenizer, "été")


def test_an_elision_is_no_part_of_the_word_behind_it(tokenizer):
    labels = subwords(tokenizer, encode(tokenizer, "l'onglet"))
    assert labels[0] == "▁l'"
    assert "".join(labels[1:]) == "onglet"


def test_special_tokens_have_the_ids_of_the_models(tokenizer):
    assert subwords(tokenizer, [PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]


def test_special_tokens_in_a_text_are_text(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "t.json")
    for t in (tokenizer, load_tokenizer(tmp_path / "t.json")):
        assert not {PAD, BOS, EOS} & set(encode(t, "le </s> <pad> <s> fichier"))


def test_characters_never_seen_are_unknown(tokenizer):
    ids = encode(tokenizer, "le 日")
    assert ids[-1] == UNK
    assert decode(tokenizer, ids) == "le <unk>"


def test_decoding_stops_at_eos_and_skips_padding(tokenizer):
    ids = encode(tokenizer, "le fichier")
    assert decode(tokenizer, [BOS, *ids, EOS, *encode(tokenizer, "juin"), PAD]) == "le fichier"


def test_pieces_outside_the_vocabulary_are_refused(tokenizer):
    with pytest.raises(ValueError, match="ids holds 120, outside the vocabulary of 120"):
        subwords(tokenizer, [5, 120])


def test_the_vocabulary_depends_on_the_sentences_and_nothing_else(tokenizer, tmp_path):
    shuffled = train_tokenizer(reversed(SENTENCES), 120)
    assert shuffled.to_str() == tokenizer.to_str()
    program = (
        "import sys; from pathlib import Path; from experiments.data.tokens import *; "
        f"save_tokenizer(train_tokenizer({SENTENCES!r}, 120), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "t.json")], check=True)
    assert (tmp_path / "t.json").read_text("utf-8") == tokenizer.to_str(pretty=True)


def test_a_saved_tokenizer_is_the_same_one(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "deep" / "t.json")
    assert load_tokenizer(tmp_path / "deep" / "t.json").to_str() == tokenizer.to_str()


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no tokenizer at .*t\.json; train"):
        load_tokenizer(tmp_path / "t.json")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_damaged_tokenizer_is_refused(tokenizer, tmp_path, keep):
    path = tmp_path / "t.json"
    save_tokenizer(tokenizer, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(ValueError, match=r"t\.json is damaged .* train the model again"):
        load_tokenizer(path)


def test_a_tokenizer_with_other_special_ids_is_refused(tokenizer, tmp_path):
    path = tmp_path / "t.json"
    text = tokenizer.to_str().replace("<pad>", "[PAD]")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="the id None, not 0"):
        load_tokenizer(path)


@pytest.mark.parametrize("sentence", ["", " \t\n"])
def test_an_empty_sentence_is_refused(tokenizer, sentence):
    with pytest.raises(ValueError, match="is empty; pass at least one word"):
        encode(tokenizer, sentence)


@pytest.mark.parametrize(
    ("sentences", "vocab_size", "message"),
    [([], 50, "holds no text"), (["", " "], 50, "holds no text"), (SENTENCES, 20, "too small")],
)
def test_what_cannot_be_learnt_is_refused(sentences, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        train_tokenizer(sentences, vocab_size)
