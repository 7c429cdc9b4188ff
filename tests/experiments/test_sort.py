"""The sorting experiment holds questions out, counts correct answers, and measures its heads."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from random_params import random_params
from smoke_runs import TEST_RUN

from attn_jax.models import GPT, DecoderConfig
from attn_jax.modules import Rotary
from experiments import sort
from experiments.measures.heads import HeadStatistics, all_head_statistics, head_weights
from experiments.reports.sort_report import observation
from experiments.systems.language_model import LanguageModel

QUICK = sort.PRESETS["quick"]
CONFIG = DecoderConfig(
    vocab_size=4, model_dim=15, num_layers=2, num_heads=3, head_dim=7, max_length=10
)


@pytest.fixture(scope="module")
def model():
    return LanguageModel.of(CONFIG).model(random_params(CONFIG))


def test_every_question_is_there_once_and_a_quarter_is_held_out():
    data = sort.make_data(QUICK)
    rows = np.concatenate([data.train, data.held_out])
    assert sorted(map(tuple, rows[:, :6])) == [*itertools.product(range(3), repeat=6)]
    assert (len(data.train), len(data.held_out)) == (547, 182)
    assert all(sorted(row[:6]) == row[6:].tolist() for row in rows)


def test_another_seed_holds_other_questions_out():
    first, second = (
        sort.make_data(dataclasses.replace(QUICK, train=dataclasses.replace(QUICK.train, seed=s)))
        for s in (0, 1)
    )
    assert not np.array_equal(first.held_out, second.held_out)


def test_the_batches_are_questions_that_are_not_held_out():
    data = sort.make_data(QUICK)
    network = LanguageModel.of(QUICK.model, given=QUICK.length)
    batches = iter(sort.training_task(QUICK, data, network).dataset)
    seen = {tuple(row) for _ in range(8) for row in next(batches).tokens.tolist()}
    assert seen <= set(map(tuple, data.train.tolist()))
    assert len(seen) == 8 * 64  # of 547: none twice in an epoch


def test_the_weights_of_the_heads_are_those_of_the_layers(model):
    @jax.jit
    def both(tokens):
        x = model.embedding(tokens) + model.position(jnp.arange(6))
        for block, weights in zip(model.blocks, head_weights(model, tokens), strict=True):
            attention, entered = block.attention, block.attention_residual.enter(x)
            _, value = attention.project_memory(entered)
            out = jnp.einsum("NTS,SNV,NVD->TD", weights, value, attention.w_out[...])
            pairs.append((out + attention.b_out[...][None], attention(entered)))
            x = block(x)
        return pairs

    pairs = []
    for ours, expected in both(jnp.array([2, 0, 3, 1, 1, 0])):
        np.testing.assert_allclose(ours, expected, atol=2e-5)


def test_weights_of_rotary_heads_are_refused():
    config = dataclasses.replace(CONFIG, rotary=Rotary(), head_dim=8, num_layers=1)
    turning = nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="rotary positions"):
        head_weights(turning, jnp.array([1, 2]))


def test_shares_of_a_head_sum_to_one_and_uniform_weights_have_the_largest_entropy(model):
    rows = np.array([[2, 0, 1, 0, 1, 2], [3, 3, 0, 0, 3, 3]], np.int32)
    found = all_head_statistics(model, rows)
    assert [head.name for head in found[:4]][-1] == "layer 2, head 1"
    assert len(found) == 2 * 3 + 1
    for head in found:
        parts = (head.next_letter, head.last_letter, head.other_letters, head.answer)
        assert sum(parts) == pytest.approx(1, abs=1e-5)
        assert head.entropy <= found[-1].entropy + 1e-6
    assert found[-1].entropy == pytest.approx(np.log2([3, 4, 5]).mean())


def test_the_heads_that_stand_out_are_named():
    rows = [("a", 2.0, 0.2), ("b", 1.0, 0.3), ("c", 3.0, 0.5), ("even", 0.1, 0.9)]
    heads = [HeadStatistics(name, bits, share, 0.0, 0.0, 1 - share) for name, bits, share in rows]
    assert "most weight on the next letter is c" in observation(heads)
    assert "The sharpest head is b: 1.00 bits, an effective number of 2.0 tokens" in observation(
        heads
    )


def test_the_question_that_is_shown_has_its_letters_equally_often():
    questions = np.array([[0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 1, 0]])
    assert sort.most_balanced(questions, 2) == 1


def test_claims_count_what_is_right():
    counts = {"trained on": 5, "held out": 2}
    assert all(claim.holds for claim in sort.claims_of(counts, counts))
    by_heart = sort.claims_of({"trained on": 5, "held out": 1}, counts)
    assert [(claim.measured, claim.holds) for claim in by_heart] == [
        ("6 of 7", False),
        ("1 of 2", False),
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"letters": 1}, "letters=1 must be from 2 to 10"),
        ({"length": 11}, "length=11 must be at least 2, and letters"),
        ({"held_out": 1.0}, "held_out=1.0 must be above 0 and below 1"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(QUICK, **changes)


def test_too_few_questions_for_a_batch_are_refused():
    with pytest.raises(
        ValueError, match=r"6 questions cannot fill one batch of 64; lower --train\.batch-size"
    ):
        sort.make_data(dataclasses.replace(QUICK, letters=2, length=3))


def test_the_experiment_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    short = ["--train.steps", "4", "--train.warmup-steps", "1", "--num-layers", "1"]
    assert sort.main(["--preset", "smoke", *short]) == 0
    report = tmp_path / "runs" / "sort-smoke" / "report"
    found = json.loads((report / "report.json").read_text())
    assert found["inputs"] == {"all": 81, "trained on": 61, "held out": 20}
    assert list(found["heads"]) == ["layer 1, head 1", "layer 1, head 2"]
    assert (report / "heads.png").stat().st_size > 5000
    assert TEST_RUN in (report / "report.md").read_text()
    masked = np.array(found["heads"]["layer 1, head 1"]["masked"])
    assert masked.tolist() == [[False] * (4 + i) + [True] * (3 - i) for i in range(4)]
    assert "## Attention weights of each head" in (report / "report.md").read_text()
    assert "FAIL  it sorts all possible inputs" in capsys.readouterr().out
