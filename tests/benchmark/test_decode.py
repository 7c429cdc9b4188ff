"""The benchmark of decoding: medians, ratios, and the message if a package is missing."""

import importlib.util

import pytest
from flax import nnx

from attn_jax.benchmark import decode
from attn_jax.benchmark.decode import Run
from attn_jax.models import GPT, DecoderConfig, generate


def test_ratios_are_of_runs_in_the_same_round(capsys):
    ours = [Run([0] * 11, 1.0, 1.0), Run([0] * 11, 2.0, 2.0), Run([0] * 11, 3.0, 4.0)]
    theirs = [Run([0] * 11, 2.0, 3.0), Run([0] * 11, 2.0, 2.0), Run([0] * 11, 6.0, 8.0)]
    decode.report({"attn_jax": ours, "transformers": theirs})
    out = capsys.readouterr().out
    assert "attn_jax      prompt  2.000 s, then    5.0 tokens/s" in out
    assert "transformers  prompt  2.000 s, then    3.3 tokens/s" in out
    assert "tokens a second: 2.00x transformers (1.00-3.00 in 3 rounds)" in out
    assert "prefill: 2.00x transformers (1.00-2.00 in 3 rounds)" in out


def test_our_runner_says_what_generate_says(monkeypatch):
    monkeypatch.setattr(decode, "NEW", 5)
    model = GPT(DecoderConfig(7, 8, 1, 2, max_length=16), rngs=nnx.Rngs(0))
    run = decode.ours(model)([3, 1, 4])
    assert run.tokens == generate(model, [[3, 1, 4]], max_new_tokens=5).tokens[0]
    assert run.prompt_seconds > 0 < run.seconds
    assert run.tokens_per_second == pytest.approx(4 / run.seconds)


def test_what_is_missing_is_named(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find(name)
    )
    assert decode.main() == 2
    assert "pip install torch" in capsys.readouterr().out
