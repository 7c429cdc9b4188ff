"""The dense oracle equals the oracle in loops, and the criterion refuses planted mistakes."""

import numpy as np
import pytest

from tests.attention.test_generated_calls import LEARNED, assert_near, in_float32
from tests.helpers import oracle
from tests.helpers.dense_oracle import attention
from tests.helpers.generated_calls import (
    CONFIGURATIONS,
    DRAWS,
    MAGNITUDES,
    Configuration,
    Sizes,
    definition,
    draws,
)
from tests.helpers.tolerance import assert_close


def given_in_loops(given, unmasked, number):
    """The arguments of `oracle.attention` for one draw, example and head."""
    draw, b, n = number
    k = n // (given["query"].shape[-2] // given["key"].shape[-2])
    bias = np.broadcast_to(given.get("bias", 0.0), unmasked.shape)[draw, b, n]

    def change(logit, t, s):
        logit += bias[t, s]
        if "slope" in given:
            logit -= given["slope"][draw, 0, n] * given["distance"][draw, 0, t, s]
        if "table" in given:
            logit += given["table"][draw, 0, n, given["bucket"][draw, 0, t, s]]
        return given["cap"] * np.tanh(logit / given["cap"]) if "cap" in given else logit

    head = [given[x][draw, b, :, h] for x, h in (("query", n), ("key", k), ("value", k))]
    options = {"score_mod": change, "mask": unmasked[draw, b, n], "scale": given.get("scale")}
    return oracle.attention(*head, **options)


WITHOUT_SINKS = [c for c in CONFIGURATIONS if "sink" not in c.options and c.sizes.S < 64]


@pytest.mark.parametrize("configuration", WITHOUT_SINKS, ids=str)
def test_the_dense_oracle_equals_the_oracle_in_loops(configuration):
    given, unmasked = definition(configuration, draws(configuration))
    exact, _ = attention(given, unmasked)
    for number in ((0, 0, 0), (1, -1, -1), (2, 0, -1)):
        draw, b, n = number
        n %= configuration.sizes.N
        out, _, lse = given_in_loops(given, unmasked, (draw, b, n))
        assert_close(exact["out"][draw, b, :, n], out)
        assert_close(exact["lse"][draw, b, n], lse)


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_the_oracles_gradients_are_derivatives_of_its_results(configuration):
    given, unmasked = definition(configuration, draws(configuration))
    rng = np.random.default_rng(0)
    learned = [name for name in LEARNED if name in given]
    direction = {name: rng.normal(size=given[name].shape) for name in learned}

    def total(step):
        moved = {name: given[name] + step * direction[name] for name in learned}
        exact, _ = attention(given | moved, unmasked)
        finite = np.where(exact["lse"] > -np.inf, exact["lse"], 0)
        pairs = [(given["cotangent"], exact["out"]), (given.get("cotangent_lse", 0), finite)]
        return sum((c * x).reshape(DRAWS, -1).sum(axis=1) for c, x in pairs)

    exact, _ = attention(given, unmasked)
    slope = (total(1e-6) - total(-1e-6)) / 2e-6
    parts = [exact[f"d_{name}"] * direction[name] for name in learned]
    wanted = sum(part.reshape(DRAWS, -1).sum(axis=1) for part in parts)
    scale = sum(np.abs(part).reshape(DRAWS, -1).sum(axis=1) for part in parts)
    assert np.all(np.abs(slope - wanted) <= 1e-6 * (1 + scale))
    assert np.abs(wanted).max() > 0.1


SIZES = Sizes(1, 37, 41, 4, 2, 24, 5, tile=(8, 8))
OPTIONS = ("causal", "window", "bias", "cap")
ORDINARY = [draw for draw in range(DRAWS) if MAGNITUDES[draw % len(MAGNITUDES)] == 1]


def weights(given, unmasked):
    """[… N T S]: the output if the values are unit vectors."""
    *lead, S, K, _ = given["value"].shape
    eye = np.broadcast_to(np.eye(S)[:, None], (*lead, S, K, S))
    nothing = np.zeros((*given["query"].shape[:-1], S))
    return np.swapaxes(
        attention(given | {"value": eye, "cotangent": nothing}, unmasked)[0]["out"], -2, -3
    )


def with_one_more_key(given, unmasked):
    """Adds a key of zeros that every query attends to."""
    padded = {
        name: np.concatenate([given[name], np.zeros_like(given[name][:, :, :1])], axis=2)
        for name in ("key", "value")
    }
    bias = np.concatenate([given["bias"], np.zeros_like(given["bias"][..., :1])], axis=-1)
    more = np.concatenate([unmasked, np.ones_like(unmasked[..., :1])], axis=-1)
    found = attention(given | padded | {"bias": bias}, more)[0]
    return {name: found[name] for name in ("out", "d_query")}


def rounded(array, dtype="bfloat16"):
    return array.astype(dtype).astype(np.float64)


def logits(given, unmasked):
    with np.errstate(divide="ignore"):
        logit = np.log(weights(given, unmasked)) + attention(given, unmasked)[0]["lse"][..., None]
    return np.where(unmasked, logit, 0)


def product(weights, given):
    value = np.repeat(given["value"], weights.shape[2] // given["value"].shape[-2], axis=-2)
    return np.einsum("dbnts,dbsnv->dbtnv", weights, value)


def with_mask(change):
    """A mistake in the mask."""
    return lambda given, unmasked: attention(given, change(unmasked))[0]


def seen_at(offset, given, unmasked, shift):
    """Every query also attends to the key `offset` rows later, with `shift` added to the logit."""
    t, s = np.indices(unmasked.shape[-2:])
    leak = (s == t + offset) & ~unmasked & unmasked.any(axis=-1, keepdims=True)
    return attention(given | {"bias": given["bias"] + shift * leak}, unmasked | leak)[0]


def without_one_key(unmasked):
    return unmasked & (np.arange(unmasked.shape[-1]) != 20)


MISTAKES = {
    "one future key": (lambda g, r: seen_at(8, g, r, 0), "out"),
    "one future key with little weight": (lambda g, r: seen_at(8, g, r, -7), "out"),
    "one key dropped": (with_mask(without_one_key), "out"),
    "a key of zeros leaks": (with_one_more_key, "out"),
    "scale by H + 1": (lambda g, r: attention(g | {"scale": 25**-0.5}, r)[0], "out"),
    "cap ignored": (lambda g, r: attention(g | {"cap": 1e6}, r)[0], "out"),
    "heads in another order": (
        lambda g, r: attention(g | {"key": g["key"][..., ::-1, :]}, r)[0],
        "out",
    ),
    "weights in bfloat16": (lambda g, r: {"out": product(rounded(weights(g, r)), g)}, "out"),
    "logits in bfloat16": (
        lambda g, r: attention(
            {n: a for n, a in g.items() if n != "cap"}
            | {"query": 0 * g["query"], "bias": rounded(logits(g, r))},
            r,
        )[0],
        "out",
    ),
    "lse in bfloat16": (lambda g, r: {"lse": rounded(attention(g, r)[0]["lse"])}, "lse"),
    "lse in base 2": (lambda g, r: {"lse": attention(g, r)[0]["lse"] / np.log(2)}, "lse"),
    "d_query not scaled": (
        lambda g, r: {"d_query": attention(g, r)[0]["d_query"] * 24**0.5},
        "d_query",
    ),
    "d_key scaled twice": (lambda g, r: {"d_key": attention(g, r)[0]["d_key"] / 24**0.5}, "d_key"),
    "d_bias in bfloat16": (
        lambda g, r: {"d_bias": rounded(attention(g, r)[0]["d_bias"])},
        "d_bias",
    ),
    "cotangent in bfloat16": (
        lambda g, r: attention(g | {"cotangent": rounded(g["cotangent"])}, r)[0],
        "d_value",
    ),
    "last row copies the one before": (
        lambda g, r: {"out": attention(g, r)[0]["out"][:, :, [*range(36), 35]]},
        "out",
    ),
}


def sample(dtype="float32"):
    """A call of ordinary size, its draws and its unmasked pairs."""
    arrays = draws(Configuration(SIZES, dtype, OPTIONS))
    given, unmasked = definition(Configuration(SIZES, dtype, OPTIONS), arrays)
    return given, unmasked


def one(given, only):
    """One draw of a call; caps and scales are shared by all draws."""
    return {n: a[only] if isinstance(a, np.ndarray) else a for n, a in given.items()}


def test_the_criterion_accepts_a_naive_implementation():
    given, unmasked = sample()
    naive, _ = attention(in_float32(given), unmasked)
    assert_near(
        {n: a for n, a in naive.items() if n != "greatest_logit"}, given, unmasked, "float32"
    )


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_criterion_refuses_a_mistake_in_every_draw(mistake):
    change, name = MISTAKES[mistake]
    given, unmasked = sample()
    wrong = change(given, unmasked)[name].astype(np.float32)
    for draw in ORDINARY:
        with pytest.raises(AssertionError, match=f"{name}: error"):
            assert_near(
                {name: wrong[draw : draw + 1]},
                one(given, draw),
                unmasked[draw : draw + 1],
                "float32",
            )


SPOILT = {
    "NaN": (np.nan, "not finite"),
    "infinity": (np.inf, "not finite"),
    "a little where nothing is read": (1e-30, "exactly 0"),
}


@pytest.mark.parametrize(("number", "message"), SPOILT.values(), ids=SPOILT)
def test_the_criterion_refuses_one_wrong_number(number, message):
    given, unmasked = sample()
    unmasked = unmasked & (np.arange(SIZES.T) != 3)[:, None]
    out = attention(in_float32(given), unmasked)[0]["out"]
    assert not out[:, :, 3].any()
    out[0, 0, 3, 1, 2] = number
    with pytest.raises(AssertionError, match=message):
        assert_near({"out": out}, given, unmasked, "float32")
