import numpy as np
import pytest

from experiments.systems.lexicon import train_lexicon

PAIRS = [
    (source.split(), target.split())
    for source, target in [
        ("the house", "la maison"),
        ("the book", "le livre"),
        ("a book", "un livre"),
        ("a house", "une maison"),
        ("the small house", "la petite maison"),
        ("a small book", "un petit livre"),
        ("the book of the house", "le livre de la maison"),
    ]
]


def loops(pairs, iterations):
    """IBM model 1 with a NULL word, as Brown et al. write it: one loop a sum."""
    pairs = [(["NULL", *source], target) for source, target in pairs]
    targets = {word for _, target in pairs for word in target}
    table = {(s, t): 1 / len(targets) for source, ts in pairs for s in source for t in ts}
    history = []
    for _ in range(iterations + 1):
        counts = dict.fromkeys(table, 0.0)
        likelihood = 0.0
        for source, target in pairs:
            for t in target:
                total = sum(table[s, t] for s in source)
                likelihood += np.log(total / len(source))
                for s in source:
                    counts[s, t] += table[s, t] / total
        history.append(likelihood)
        sums = {s: sum(c for (a, _), c in counts.items() if a == s) for s, _ in table}
        last, table = table, {(s, t): c / sums[s] for (s, t), c in counts.items()}
    return last, history


def test_the_likelihood_is_that_of_the_loops():
    _, history = loops(PAIRS, 6)
    lexicon = train_lexicon(PAIRS, iterations=6)
    np.testing.assert_allclose(lexicon.log_likelihood, history, rtol=1e-12)


def test_the_best_word_is_that_of_the_loops():
    table, _ = loops(PAIRS, 6)
    lexicon = train_lexicon(PAIRS, iterations=6)
    for word, best in lexicon.table.items():
        assert table[word, best] == pytest.approx(
            max(p for (s, _), p in table.items() if s == word)
        )


@pytest.mark.parametrize("null_word", [True, False])
def test_the_likelihood_rises_in_every_iteration(null_word):
    history = train_lexicon(PAIRS, iterations=12, null_word=null_word).log_likelihood
    assert len(history) == 13
    assert np.all(np.diff(history) > 0)


def test_content_words_find_their_translation():
    lexicon = train_lexicon(PAIRS, iterations=20)
    assert lexicon.translate(["house", "book"]) == ["maison", "livre"]


def test_unknown_words_are_copied_in_place():
    lexicon = train_lexicon(PAIRS)
    assert lexicon.translate(["httpd.conf", "book", "!"]) == ["httpd.conf", "livre", "!"]


def test_one_to_one_gives_no_target_word_twice():
    pairs = [*PAIRS, (["tome"], ["livre"]), (["tome", "house"], ["livre", "maison"])]
    free = train_lexicon(pairs)
    assert free.translate(["book", "tome"]) == ["livre", "livre"]
    strict = train_lexicon(pairs, one_to_one=True)
    assert len(set(strict.table.values())) == len(strict.table)
    assert strict.translate(["book", "tome"]) == ["livre", "tome"]


def test_training_twice_gives_the_same_lexicon():
    assert train_lexicon(PAIRS) == train_lexicon(list(PAIRS))


@pytest.mark.parametrize(
    ("pairs", "iterations", "message"),
    [
        ([], 3, "pairs is empty"),
        ([(["a"], ["b"]), (["a"], [])], 3, "pair 1 has an empty side"),
        ([(["a"], ["b"])], 0, "iterations=0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(pairs, iterations, message):
    with pytest.raises(ValueError, match=message):
        train_lexicon(pairs, iterations=iterations)
