"""Windows cover the text, the language model learns it, and mistakes are refused clearly."""

import gzip
import json
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from random_params import random_params

from attn_jax.models import DecoderConfig
from attn_jax.modules import Rotary
from experiments import lm
from experiments.data.text_files import read_text
from experiments.data.text_tokens import BytePairs, Characters
from experiments.data.texts import DATA_FOLDER, load_text
from experiments.data.windows import Windows, evaluation_windows, training_windows
from experiments.measures import lm_scores
from experiments.reports.claims import claims_note
from experiments.systems.language_model import LanguageModel
from experiments.training.lm_settings import PRESETS, Settings
from experiments.training.task import Task, TrainConfig
from experiments.training.train import fit
from experiments.training.update import is_decayed

TEXT = "the whale, the white whale; and the sea that swallowed the ship.\n"
CONFIG = DecoderConfig(
    vocab_size=23, model_dim=12, num_layers=1, num_heads=3, num_kv_heads=1, max_length=7, norm="rms"
)


@pytest.fixture(scope="module")
def tiny():
    return LanguageModel.of(CONFIG)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@pytest.fixture(scope="module")
def stream():
    return Characters.of(TEXT).encode(TEXT * 40)


def test_the_last_tenth_of_the_text_validates_and_nothing_is_lost():
    text = load_text("moby_dick")
    assert text.train + text.validation == read_text(DATA_FOLDER / "moby_dick.txt.gz")
    assert (len(text.train), len(text.validation)) == (1_071_285, 119_032)
    assert "last 10 % (119,032) the validation split" in text.note
    assert text.train.startswith("CHAPTER 1. Loomings.\n\nCall me Ishmael.")


def test_ends_of_lines_are_alike_and_white_space_stays(tmp_path):
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress(b"  one\r\n\r\n\ttwo "))
    assert read_text(path) == "  one\n\n\ttwo "
    path.write_bytes(gzip.compress(b"caf\xe9"))
    with pytest.raises(ValueError, match=r"text.txt.gz: byte 3 \(0xe9\) is not UTF-8"):
        read_text(path)


def test_byte_pairs_give_any_text_back_in_fewer_ids_than_bytes():
    pairs = BytePairs.of(TEXT * 5, 280)
    strange = "  the\n\n whale — naïve\t鯨\n"
    assert [pairs.decode(pairs.encode(text)) for text in (strange, TEXT)] == [strange, TEXT]
    assert pairs.size == 280
    assert len(pairs.encode(TEXT)) < len(TEXT.encode()) / 2
    with pytest.raises(ValueError, match="vocab_size=255 must be at least 256"):
        BytePairs.of(TEXT, 255)


def test_the_alphabet_refuses_what_it_does_not_have():
    with pytest.raises(ValueError, match="'!z' is not among the 17 characters"):
        Characters.of(TEXT).encode("the zap!")


def test_an_epoch_has_every_window_once_in_another_order():
    stream = np.arange(100, 125, dtype=np.int32)
    batches = iter(training_windows(stream, length=4, batch_size=3, seed=1))
    epochs = [np.concatenate([next(batches).tokens for _ in range(7)]) for _ in range(2)]
    for rows in epochs:
        np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(5)[None, :])
        assert sorted(rows[:, 0]) == list(range(100, 121))
    assert epochs[0][:, 0].tolist() != epochs[1][:, 0].tolist()


def test_batches_resume_exactly_at_a_stored_state(stream):
    batches = iter(training_windows(stream, length=5, batch_size=3, seed=2))
    for _ in range(9):
        next(batches)
    state = json.loads(json.dumps(batches.get_state()))
    after = [next(batches).tokens for _ in range(4)]
    again = iter(training_windows(stream, length=5, batch_size=3, seed=2))
    again.set_state(state)
    for expected in after:
        np.testing.assert_array_equal(next(again).tokens, expected)


def test_every_validation_token_is_predicted_once():
    stream = np.arange(50, 75, dtype=np.int32)  # 24 to predict, in windows of 5: 4 are left out
    batches = evaluation_windows(stream, length=5, batch_size=3)
    predicted = np.concatenate([batch.tokens[:, 1:].ravel() for batch in batches])
    np.testing.assert_array_equal(predicted, stream[1:21])
    assert [len(batch.tokens) for batch in batches] == [3, 1]


def test_only_tokens_that_are_not_given_count(tiny, params):
    tokens = np.random.default_rng(0).integers(0, 23, (5, 7)).astype(np.int32)
    logits = jax.jit(lambda params, tokens: tiny.model(params)(tokens))(params, tokens[:, :-1])
    for given in (1, 4):
        learner = LanguageModel.of(CONFIG, given)
        chosen = jax.nn.log_softmax(logits)[
            np.arange(5)[:, None], np.arange(6)[None], tokens[:, 1:]
        ]
        loss, measured = jax.jit(partial(learner.loss, rng=None))(params, Windows(tokens))
        np.testing.assert_allclose(loss, -chosen[:, given - 1 :].mean(), rtol=1e-5)
        assert measured["tokens"] == 5 * (7 - given)


def test_the_evaluation_is_the_mean_over_all_tokens_however_they_are_batched(tiny, params):
    stream = np.random.default_rng(1).integers(0, 23, 60).astype(np.int32)
    losses = [
        tiny.evaluation(evaluation_windows(stream, length=7, batch_size=size))(params)
        for size in (8, 5)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_the_writer_uses_the_last_max_length_tokens(tiny, params):
    read = [3, 1, 4, 1, 5]
    model = jax.jit(tiny.model(params))
    written = tiny.writer(6, temperature=1e-5)(params, np.array(read, np.int32), jax.random.key(0))
    for _ in range(6):
        last = read[-CONFIG.max_length :]
        padded = jnp.array([last + [0] * (CONFIG.max_length - len(last))])
        read.append(int(model(padded)[0, len(last) - 1].argmax()))
    assert written.tolist() == read[5:]


def test_weight_decay_shrinks_matrices_and_tables_only():
    config = {"vocab_size": 5, "model_dim": 4, "num_layers": 1, "num_heads": 2, "qk_norm": True}
    init = LanguageModel.of(DecoderConfig(**config, max_length=3)).init
    decays = is_decayed(jax.eval_shape(init, jax.random.key(0)))
    names = {
        jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value"): decay
        for path, decay in jax.tree_util.tree_leaves_with_path(decays)
    }
    decayed = {name.split(".")[-1] for name, decay in names.items() if decay}
    assert decayed == {"table", "w_query", "w_key", "w_value", "w_out", "w_up", "w_down"}
    assert {name.split(".")[-1] for name, decay in names.items() if not decay} >= {
        *("scale", "bias", "b_query", "b_key", "b_value", "b_out", "b_up", "b_down")
    }


def test_the_loss_falls_on_a_tiny_text_far_below_counting(stream, tmp_path):
    config = TrainConfig(steps=120, batch_size=8, optimiser="adamw", learning_rate=0.02)
    sizes = {"vocab_size": 17, "model_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 12}
    learner = LanguageModel.of(DecoderConfig(**sizes, rotary=Rotary()))
    windows = training_windows(stream, length=12, batch_size=8, seed=0)
    result = fit(Task("tiny", {}, learner.init, learner.loss, windows), config, tmp_path)
    held_out = evaluation_windows(stream[:300], length=12, batch_size=25)
    counted = lm_scores.bigram_loss(stream, stream[:300], 17)
    assert learner.evaluation(held_out)(result.params) < 0.6 * counted


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tinyshakespeare.txt").write_text(TEXT * 30)
    return ["--preset", "smoke", "--corpus", "tinyshakespeare", "--data-dir", str(tmp_path)]


def test_the_experiment_runs_from_end_to_end(corpus, tmp_path, capsys):
    short = [
        "--sizes.num-layers",
        "1",
        "--train.steps",
        "4",
        "--train.warmup-steps",
        "1",
        "--train.validate-every",
        "2",
    ]
    assert lm.main([*corpus, *short]) == 0
    report = tmp_path / "runs" / "lm-tinyshakespeare-char-own-smoke" / "report"
    found = json.loads((report / "report.json").read_text())
    loss, bits = (found["scores"][-1][name] for name in ("loss", "bits_per_character"))
    assert bits == pytest.approx(loss / math.log(2))
    assert [len(sample) for sample in found["samples"]] == [60] * lm.SAMPLES
    assert len(found["curve"]["validation"]) == 2
    assert "the last 10 % (195) the validation split" in (report / "report.md").read_text()
    assert (report / "loss.png").stat().st_size > 5000
    said = capsys.readouterr().out
    assert "FAIL  its loss on the whole validation split is at most 1.80" in said
    assert claims_note("smoke") in said


def test_each_mistake_is_one_line_with_what_to_do(corpus, tmp_path):
    def refusal(*arguments):
        with pytest.raises(SystemExit) as error:
            lm.main([*corpus, *arguments])
        return str(error.value)

    assert "validation split has 195 tokens" in refusal("--sizes.max-length", "195")
    assert "lower it" in refusal("--train.batch-size", "2000")
    assert "'Z' is not among the 17 characters" in refusal("--prompt", "Z")
    (tmp_path / "tinyshakespeare.txt").unlink()
    assert "github.com/karpathy/char-rnn" in refusal()


def test_an_unknown_text_lists_the_texts_and_a_foreign_one_needs_a_folder():
    with pytest.raises(ValueError, match="choose one of moby_dick, tinyshakespeare"):
        load_text("ulysses")
    with pytest.raises(ValueError, match=r"not in the repository, so --data-dir"):
        load_text("tinyshakespeare")
    with pytest.raises(SystemExit):
        lm.main(["--corpus", "ulysses"])


@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {"sample_length": 0}, {"prompt": ""}])
def test_samples_that_cannot_be_are_refused(changes):
    with pytest.raises((ValueError, TypeCheckError), match="must be positive"):
        Settings(**changes)


def test_the_recipe_chooses_the_defaults():
    of = partial(lm.from_command_line)
    assert of(["--recipe", "nanogpt"]).train == PRESETS["nanogpt"]["quick"].train
    settings = of(["--tokens", "bpe", "--preset", "full"])
    assert (settings.preset, settings.name) == ("full", "lm-moby_dick-bpe-own-full")
    assert settings.model(9).rotary == Rotary()


def test_the_share_of_known_words_is_a_claim():
    settings = Settings(corpus="tinyshakespeare", recipe="nanogpt")
    scores = [lm_scores.Score.of("", loss, 1.0) for loss in (2.5, 1.89)]
    claims = lm.claims_of(settings, scores, ["x the white whale swallowed x"], TEXT)
    assert [claim.holds for claim in claims] == [True, True, False]
    claims = lm.claims_of(settings, scores[::-1], ["x the wite wale swallowed x"], TEXT)
    assert [claim.holds for claim in claims] == [False, False, False]
