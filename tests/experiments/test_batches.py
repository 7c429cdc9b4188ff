import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from attn_jax.models import EOS, PAD
from experiments.data.batches import (
    Example,
    choose_shapes,
    encode_one,
    encode_pairs,
    evaluation_batches,
    pad,
    training_batches,
)
from experiments.data.corpora import Pair
from experiments.data.tokens import encode, train_tokenizer

SHAPES = [(4, 6), (9, 10), (14, 15)]


def sentences(count, longest):
    """Examples whose first id on either side is their own number, so that rows can be followed."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, longest, size=(count, 2))
    return [
        Example([100 + n] + [7] * (int(S) - 1), [100 + n] + [8] * (int(T) - 1) + [EOS])
        for n, (S, T) in enumerate(lengths)
    ]


EXAMPLES = sentences(101, 14)


def rows(batches):
    """The numbers of the examples in the batches, in order."""
    return [int(number) - 100 for batch in batches for number in batch.source[:, 0]]


def batches_of(dataset, count):
    iterator = iter(dataset)
    return [next(iterator) for _ in range(count)]


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a, b)
        for x, y in zip(left, right, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def epoch_length(batch_size):
    fits = [
        next(s for s in SHAPES if len(e.source) <= s[0] and len(e.target) <= s[1]) for e in EXAMPLES
    ]
    return sum(fits.count(shape) // batch_size for shape in SHAPES)


def test_batch_examples_contain_their_sentences_and_masks_mark_them():
    batch = pad([Example([5, 6, 7], [8, EOS]), Example([9], [4, 3, EOS])], (4, 3))
    np.testing.assert_array_equal(batch.source, [[5, 6, 7, PAD], [9, PAD, PAD, PAD]])
    np.testing.assert_array_equal(batch.source_mask, [[1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(batch.target, [[8, EOS, PAD], [4, 3, EOS]])
    np.testing.assert_array_equal(batch.target_mask, [[1, 1, 0], [1, 1, 1]])
    assert (batch.source.dtype, batch.source_mask.dtype) == (np.int32, np.bool_)


def test_every_training_batch_is_full_and_has_one_of_the_shapes():
    dataset = training_batches(EXAMPLES, batch_size=5, shapes=SHAPES, seed=3)
    batches = batches_of(dataset, 40)
    found = {(batch.source.shape, batch.target.shape) for batch in batches}
    assert found == {((5, S), (5, T)) for S, T in SHAPES}
    assert all(batch.source_mask.any(1).all() for batch in batches)


def test_an_epoch_shows_no_example_twice_and_the_next_one_differs():
    epoch = epoch_length(5)
    numbers = rows(
        batches_of(training_batches(EXAMPLES, batch_size=5, shapes=SHAPES, seed=3), 2 * epoch)
    )
    first, second = numbers[: 5 * epoch], numbers[5 * epoch :]
    assert len(set(first)) == len(first) > 85
    assert len(set(second)) == len(second)
    assert first != second
    assert set(first) != set(second)


def test_batches_are_shuffled_across_shapes():
    batches = batches_of(
        training_batches(EXAMPLES, batch_size=5, shapes=SHAPES, seed=3), epoch_length(5)
    )
    widths = [batch.source.shape[1] for batch in batches]
    changes = sum(a != b for a, b in itertools.pairwise(widths))
    assert changes > len(SHAPES)


def test_the_seed_decides_the_order():
    def start(seed):
        return batches_of(training_batches(EXAMPLES, batch_size=4, shapes=SHAPES, seed=seed), 9)

    assert same(start(1), start(1))
    assert not same(start(1), start(2))


def test_the_seed_decides_which_sentences_meet():
    def meetings(seed):
        dataset = training_batches(EXAMPLES, batch_size=4, shapes=SHAPES, seed=seed)
        return {frozenset(rows([batch])) for batch in batches_of(dataset, epoch_length(4))}

    assert len(meetings(1) & meetings(7)) < 3


def test_a_state_set_in_another_process_gives_the_continuation():
    iterator = iter(training_batches(EXAMPLES, batch_size=4, shapes=SHAPES, seed=6))
    for _ in range(epoch_length(4) - 3):  # so that the continuation runs into the next epoch
        next(iterator)
    state = iterator.get_state()
    expected = rows(next(iterator) for _ in range(7))
    program = (
        "import json, sys; from experiments.data.batches import *\n"
        f"examples = [Example(*e) for e in {[tuple(e) for e in EXAMPLES]!r}]\n"
        f"it = iter(training_batches(examples, batch_size=4, shapes={SHAPES!r}, seed=6))\n"
        f"it.set_state(json.loads({json.dumps(state)!r}))\n"
        "print([int(n) - 100 for _ in range(7) for n in next(it).source[:, 0]])"
    )
    command = [sys.executable, "-c", program]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(output) == expected


def test_a_bucket_too_small_for_a_batch_is_served_in_a_larger_shape():
    short, middle, long = ([Example([n] * S, [n, EOS])] for n, S in ((11, 2), (12, 7), (13, 12)))
    examples = [*short, *middle, *long * 6]
    batches = batches_of(training_batches(examples, batch_size=4, shapes=SHAPES, seed=0), 30)
    assert {batch.source.shape for batch in batches} == {(4, 14)}
    assert {int(n) for batch in batches for n in batch.source[:, 0]} == {11, 12, 13}


def test_a_long_bucket_too_small_takes_the_next_smaller_one_with_it():
    short, long = [Example([11] * 2, [3, EOS])], [Example([13] * 12, [3, EOS])]
    batches = batches_of(
        training_batches(short * 6 + long, batch_size=4, shapes=SHAPES, seed=0), 20
    )
    assert {batch.source.shape for batch in batches} == {(4, 14)}
    assert {int(n) for batch in batches for n in batch.source[:, 0]} == {11, 13}


def test_evaluation_batches_have_every_example_once_with_its_index():
    found = evaluation_batches(EXAMPLES, batch_size=8, shapes=SHAPES)
    index = np.concatenate([batch.index for batch in found])
    numbers = np.array(rows(batch.batch for batch in found))
    np.testing.assert_array_equal(np.sort(index[index >= 0]), np.arange(len(EXAMPLES)))
    np.testing.assert_array_equal(numbers[index >= 0], index[index >= 0])


def test_surplus_rows_of_an_evaluation_have_no_target():
    found = evaluation_batches(EXAMPLES[:3], batch_size=8, shapes=SHAPES[-1:])
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].index, [0, 1, 2, -1, -1, -1, -1, -1])
    assert not found[0].batch.target_mask[3:].any()
    assert found[0].batch.source_mask[3:].any(1).all()  # an empty source would be no sentence


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_chosen_shapes_grow_and_hold_every_example(count):
    shapes = choose_shapes(EXAMPLES, count)
    assert len(shapes) <= count
    assert shapes == sorted(shapes)
    assert evaluation_batches(EXAMPLES, batch_size=8, shapes=shapes)


def padded(shapes):
    found = evaluation_batches(EXAMPLES, batch_size=1, shapes=shapes)
    return sum(batch.batch.source.size + batch.batch.target.size for batch in found)


def test_chosen_shapes_need_the_least_padding():
    ladder = choose_shapes(EXAMPLES, 20)
    best = min(padded([a, b, ladder[-1]]) for a in ladder for b in ladder if a < b < ladder[-1])
    assert padded(choose_shapes(EXAMPLES, 3)) == best
    assert padded(choose_shapes(EXAMPLES, 2)) > best


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["un deux trois quatre"] * 4, 60)


def test_pairs_too_long_for_the_model_are_counted(tokenizer):
    pairs = [Pair("un", "deux", "p"), Pair("un " * 9, "deux", "p"), Pair("un", "deux " * 9, "p")]
    examples, dropped = encode_pairs(pairs, tokenizer, tokenizer, max_source=5, max_target=5)
    assert dropped == 2
    assert examples == [(encode(tokenizer, "un"), [*encode(tokenizer, "deux"), EOS])]


def test_the_longest_target_counts_its_eos(tokenizer):
    pairs, length = [Pair("un", "deux trois", "p")], len(encode(tokenizer, "deux trois"))
    limits = {"max_source": 5, "max_target": length}
    assert encode_pairs(pairs, tokenizer, tokenizer, **limits).dropped == 1
    limits["max_target"] += 1
    assert encode_pairs(pairs, tokenizer, tokenizer, **limits).dropped == 0


def test_a_sentence_too_long_to_translate_is_refused_with_a_remedy(tokenizer):
    message = "sentence has 8 tokens, the model allows 7; split it"
    with pytest.raises(ValueError, match=message):
        encode_one(tokenizer, "un " * 8, max_length=7)
    assert len(encode_one(tokenizer, "un " * 8, max_length=8)) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 102}, "101 examples cannot fill one batch of batch_size=102"),
        ({"shapes": []}, "shapes="),
        ({"shapes": [(9, 9), (14, 8)]}, "must grow in both lengths"),
        ({"shapes": [(14, 9)]}, "the largest shape is"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    settings = {"batch_size": 4, "shapes": SHAPES, "seed": 0, **arguments}
    with pytest.raises(ValueError, match=message):
        training_batches(EXAMPLES, **settings)


def test_limits_and_counts_must_be_positive(tokenizer):
    with pytest.raises(ValueError, match="max_target=0"):
        encode_pairs([], tokenizer, tokenizer, max_source=1, max_target=0)
    with pytest.raises(ValueError, match="count=0"):
        choose_shapes(EXAMPLES, 0)
