import pytest

from experiments.data.words import detokenize, tokenize, words


def test_elisions_clitics_numbers_and_hyphens_are_tokens():
    text = "L’Aide n'est qu'aujourd'hui là; the user's right-click isn't 2.4."
    assert tokenize(text) == [
        *("l’", "aide", "n'", "est", "qu'", "aujourd'hui", "là", ";"),
        *("the", "user", "'s", "right-click", "isn", "'t", "2.4", "."),
    ]


def test_composed_and_decomposed_accents_are_the_same_word():
    assert tokenize("e\u0301te\u0301") == tokenize("été") == ["été"]


def test_punctuation_is_no_word():
    assert words('Choose "File" – Save & Exit…') == ["choose", "file", "save", "exit"]


@pytest.mark.parametrize(
    "text",
    [
        "l'objet (image, [texte]) n'est pas là.",
        'choisissez "ok" puis "fermer".',
        "attention : qu'est-ce que c'est ?",
    ],
)
def test_detokenize_undoes_tokenize(text):
    assert detokenize(tokenize(text)) == text
