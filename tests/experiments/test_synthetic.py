"""The synthetic tasks have the documented sources and targets."""

import itertools

import numpy as np
import pytest

from experiments.data.grammar_trees import NOUNS
from experiments.data.synthetic import agreements, backwards, copies, digit_copies, digits

UVA_FIRST_ROW = [0, 7, 6, 4, 4, 8, 0, 6, 2, 0, 5, 9, 7, 7, 7, 7]


def test_the_first_row_of_digits_is_the_published_one():
    assert digits(50_000).shape == (50_000, 16)
    assert digits(50_000)[0].tolist() == UVA_FIRST_ROW
    assert (digits(3) == digits(50_000)[:3]).all()


def test_digit_copies_are_the_beginnings_of_rows():
    items = digit_copies(digits(3), (16, 5))
    assert items[0].source == items[0].target == tuple(map(str, UVA_FIRST_ROW))
    assert [item.size for item in items] == [16, 5, 16]
    assert items[1].source == tuple(str(digit) for digit in digits(2)[1, :5])


def test_copies_have_every_length_and_no_symbol_twice():
    items = copies(np.random.default_rng(0), 60, range(1, 7), symbols=9)
    assert [item.size for item in items] == list(range(1, 7)) * 10
    for item in items:
        assert item.target == item.source
        assert len(set(item.source)) == item.size
    assert len({word for item in items for word in item.source}) == 9


def test_backwards_turns_the_target_and_nothing_else():
    forth = copies(np.random.default_rng(0), 5, (4, 6), symbols=8)
    back = backwards(forth)
    assert [item.source for item in back] == [item.source for item in forth]
    assert all(item.target == item.source[::-1] != item.source for item in back)


def test_a_length_beyond_the_alphabet_is_refused():
    with pytest.raises(ValueError, match="need as many symbols, got 5"):
        copies(np.random.default_rng(0), 1, (3, 6), symbols=5)


def test_agreement_asks_for_the_participle_of_the_first_noun():
    feminine = {noun.english: noun.feminine for noun in NOUNS}
    items = agreements(np.random.default_rng(0), 300, (0, 1, 3))
    answers = set()
    for item in items:
        subject = next(word for word in item.source if word in feminine)
        auxiliary, participle = item.target
        assert auxiliary == "est"
        assert participle.endswith("e") == feminine[subject]
        answers.add(participle)
    assert len(answers) == 8  # four verbs, two genders


def test_agreement_is_across_other_nouns_of_either_gender():
    feminine = {noun.english: noun.feminine for noun in NOUNS}
    items = agreements(np.random.default_rng(1), 300, (2,))
    pairs = set()
    for item in items:
        first, *others = [feminine[word] for word in item.source if word in feminine]
        pairs |= set(itertools.product([first], others))
        assert item.source.count("that") + item.source.count("which") == item.size == 2
    assert pairs == set(itertools.product([True, False], repeat=2))


@pytest.mark.parametrize("draw", [copies, agreements])
def test_the_same_seed_asks_the_same(draw):
    options = {"symbols": 9} if draw is copies else {}
    first, second, other = (draw(np.random.default_rng(s), 9, (1, 2), **options) for s in (3, 3, 4))
    assert first == second != other
