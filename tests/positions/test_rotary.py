"""Rotary positions: the papers' formulas in float64, identities, and Hugging Face's numbers."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_jax import positions
from attn_jax.positions import LinearScaling, Llama3Scaling, YarnScaling
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal, assert_within

B, T, N, H = 2, 5, 3, 8
LAYOUTS = ("half", "interleaved")
LLAMA3 = Llama3Scaling(8.0, 1.0, 4.0, 8192)
YARN = YarnScaling(4.0, 32768)
GOLDEN = json.loads(
    (Path(__file__).parents[1] / "data" / "rotary_from_transformers.json").read_text()
)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def paper(x, position, frequencies, layout):
    """Each pair as a complex number, turned by e^(i m θ): RoFormer, eq. 12, in float64."""
    out, R = np.array(x, np.float64), len(frequencies)
    for index in np.ndindex(*x.shape[:-1]):
        m = np.broadcast_to(position, x.shape[:-2])[index[:-1]]
        for r in range(R):
            a, b = (r, R + r) if layout == "half" else (2 * r, 2 * r + 1)
            pair = complex(x[index][a], x[index][b])
            turned = pair * complex(math.cos(m * frequencies[r]), math.sin(m * frequencies[r]))
            out[index][a], out[index][b] = turned.real, turned.imag
    return out


def heads(seed=0, *, tokens=T, dtype=jnp.float32):
    return draw(seed, (B, tokens, N, H), dtype=dtype)[0]


def somewhere(seed=0, shape=(B, T)):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 1000, shape), jnp.int32)


def test_frequencies_are_geometric(x64):
    expected = np.array([math.exp(-2 * r / 6 * math.log(500.0)) for r in range(3)])
    assert_close(positions.rotary_frequencies(6, base=500.0), expected)


@pytest.mark.parametrize("dim", [H, H - 4])
@every_layout
def test_the_rotation_is_the_papers(layout, dim, x64):
    x, position = heads(dtype=jnp.float64), somewhere()
    frequencies = positions.rotary_frequencies(dim)
    out = positions.rotary(x, position, frequencies, layout=layout)
    assert_close(out, paper(x, position, np.asarray(frequencies), layout))


@pytest.mark.parametrize("shape", [(T,), (1, T), (B, T)])
def test_positions_may_be_shared_by_a_batch(shape, x64):
    x, position = heads(dtype=jnp.float64), somewhere(1, shape)
    frequencies = positions.rotary_frequencies(H)
    out = positions.rotary(x, position, frequencies)
    assert_close(out, paper(x, position, np.asarray(frequencies), "half"))


def test_one_example_needs_no_batch_axis():
    x, position = heads()[0], somewhere(2, (T,))
    frequencies = positions.rotary_frequencies(H)
    alone = positions.rotary(x, position, frequencies)
    assert_equal(alone, positions.rotary(x[None], position, frequencies)[0])


@every_layout
def test_logits_depend_on_the_distance_alone(layout, x64):
    query, key = heads(3, dtype=jnp.float64), heads(4, dtype=jnp.float64)
    frequencies = positions.rotary_frequencies(H)

    def logits(start):
        place = start + jnp.arange(T)
        turned = (positions.rotary(x, place, frequencies, layout=layout) for x in (query, key))
        return jnp.einsum("BTNH,BSNH->BNTS", *turned)

    assert_within(logits(0), logits(900), atol=1e-9)
    assert_differs(logits(0), jnp.einsum("BTNH,BSNH->BNTS", query, key))


@every_layout
def test_rotation_keeps_norms(layout, x64):
    x = heads(5, dtype=jnp.float64)
    out = positions.rotary(x, somewhere(), positions.rotary_frequencies(H), layout=layout)
    assert_close(jnp.linalg.norm(out, axis=-1), jnp.linalg.norm(x, axis=-1))
    assert_differs(out, x)


@every_layout
def test_position_zero_changes_nothing(layout):
    x, frequencies = heads(6), positions.rotary_frequencies(H)
    assert_equal(positions.rotary(x, jnp.zeros(T, jnp.int32), frequencies, layout=layout), x)


@pytest.mark.parametrize("R", [H // 2, 1])
def test_the_layouts_differ_only_in_the_order_of_features(R):
    x, position = heads(7), somewhere()
    frequencies = positions.rotary_frequencies(2 * R)
    order = np.concatenate([np.arange(2 * R).reshape(R, 2).T.ravel(), np.arange(2 * R, H)])
    interleaved = positions.rotary(x, position, frequencies, layout="interleaved")
    half = positions.rotary(x[..., order], position, frequencies, layout="half")
    assert_equal(half, interleaved[..., order])


def test_rotations_add_up(x64):
    x, frequencies = heads(8, dtype=jnp.float64), positions.rotary_frequencies(H)
    twice = positions.rotary(
        positions.rotary(x, somewhere(1), frequencies), somewhere(2), frequencies
    )
    assert_within(twice, positions.rotary(x, somewhere(1) + somewhere(2), frequencies), atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_features_are_rotated_in_float32_and_rounded_once(dtype):
    x, position = heads(9, dtype=dtype), somewhere()
    frequencies = positions.rotary_frequencies(H)
    wide = positions.rotary(x.astype(jnp.float32), position, frequencies)
    assert_equal(positions.rotary(x, position, frequencies), wide.astype(dtype))


def test_the_amplitude_multiplies_the_rotated_features_only():
    x, position = heads(10), somewhere()
    frequencies = positions.rotary_frequencies(4)
    louder = positions.rotary(x, position, frequencies, amplitude=1.5)
    plain = positions.rotary(x, position, frequencies)
    assert_close(louder[..., :4], 1.5 * plain[..., :4])
    assert_equal(louder[..., 4:], x[..., 4:])


def test_it_runs_under_jit_vmap_and_grad():
    x, position = heads(11), somewhere()
    frequencies = positions.rotary_frequencies(H)
    expected = positions.rotary(x, position, frequencies)
    over_heads = jax.vmap(
        lambda x: positions.rotary(x[:, :, None], position, frequencies)[:, :, 0], 2, 2
    )
    assert_close(jax.jit(over_heads)(x), expected)
    # The transpose of a rotation is its inverse.
    _, transpose = jax.vjp(lambda x: positions.rotary(x, position, frequencies), x)
    assert_close(transpose(expected)[0], x, gradient=True)


def test_llama3_squeezes_long_waves_keeps_short_ones_and_mixes_between(x64):
    def card(frequency):
        length = 2 * math.pi / frequency
        if length < 8192 / 4:
            return frequency
        if length > 8192 / 1:
            return frequency / 8
        smooth = (8192 / length - 1) / (4 - 1)
        return (1 - smooth) * frequency / 8 + smooth * frequency

    plain = np.asarray(positions.rotary_frequencies(128, base=500_000.0))
    scaled = positions.rotary_frequencies(128, base=500_000.0, scaling=LLAMA3)
    assert_close(scaled, np.array([card(frequency) for frequency in plain]))
    assert {round(ratio, 6) for ratio in np.asarray(scaled) / plain} > {1.0, 0.125}


def test_yarn_ramps_over_the_waves_between_its_two_numbers_of_turns(x64):
    dim, base = 128, 1_000_000.0
    at = [dim * math.log(32768 / (turns * 2 * math.pi)) / (2 * math.log(base)) for turns in (32, 1)]
    low, high = math.floor(at[0]), math.ceil(at[1])
    plain = np.asarray(positions.rotary_frequencies(dim, base=base))
    ramp = [min(max((r - low) / (high - low), 0.0), 1.0) for r in range(dim // 2)]
    expected = [f * (1 - g) + f / 4 * g for f, g in zip(plain, ramp, strict=True)]
    assert_close(positions.rotary_frequencies(dim, base=base, scaling=YARN), np.array(expected))
    assert 0 < low < high < dim // 2


def test_yarns_amplitude_is_the_papers_or_what_a_checkpoint_names():
    assert YarnScaling(16.0, 4096).amplitude == pytest.approx(0.1 * math.log(16) + 1, abs=1e-15)
    assert YarnScaling(16.0, 4096, attention_factor=1.0).amplitude == 1.0
    assert LinearScaling(3.0).amplitude == LLAMA3.amplitude == 1.0


@pytest.mark.parametrize(
    "scaling", [LinearScaling(1.0), Llama3Scaling(1.0, 1.0, 4.0, 64), YarnScaling(1.0, 64)]
)
def test_a_factor_of_one_changes_nothing(scaling, x64):
    plain = positions.rotary_frequencies(16)
    assert_close(positions.rotary_frequencies(16, scaling=scaling), plain)
    assert scaling.amplitude == 1.0


@pytest.mark.parametrize("length", [3, 10**9])
def test_a_ramp_outside_of_all_waves_is_a_step(length):
    """All wavelengths are longer than three positions, and all are shorter than 10⁹."""
    plain = positions.rotary_frequencies(16, base=100.0)
    scaled = positions.rotary_frequencies(16, base=100.0, scaling=YarnScaling(4.0, length))
    assert_close(scaled[1:], plain[1:] / 4 if length == 3 else plain[1:])


def as_scaling(settings):
    kinds = {
        "default": lambda **_: None,
        "linear": LinearScaling,
        "llama3": Llama3Scaling,
        "yarn": YarnScaling,
    }
    options = {name.replace("max_position_embeddings", "length"): x for name, x in settings.items()}
    return kinds[options.pop("rope_type")](**options)


@pytest.mark.parametrize("name", [n for n, entry in GOLDEN.items() if "frequencies" in entry])
def test_frequencies_are_those_of_transformers(name):
    golden = GOLDEN[name]
    scaling = as_scaling(golden["scaling"])
    ours = positions.rotary_frequencies(golden["head_dim"], base=golden["base"], scaling=scaling)
    # Theirs are powers in float32.
    np.testing.assert_allclose(ours, np.float32(golden["frequencies"]), rtol=2e-6)
    assert (1.0 if scaling is None else scaling.amplitude) == pytest.approx(golden["amplitude"])


@every_layout
def test_rotations_are_those_of_transformers(layout):
    golden = GOLDEN["rotations"]
    scaling = YarnScaling(4.0, 16)
    frequencies = positions.rotary_frequencies(8, base=100.0, scaling=scaling)
    x, position = jnp.asarray(golden["x"], jnp.float32), jnp.asarray(golden["position"])
    turned = positions.rotary(x, position, frequencies, layout=layout, amplitude=scaling.amplitude)
    assert_within(turned, np.float32(golden[layout]), atol=2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: positions.rotary_frequencies(3), "dim must be even"),
        (lambda: positions.rotary_frequencies(0), "dim must be even"),
        (lambda: positions.rotary_frequencies(4, base=1.0), "base"),
        (lambda: LinearScaling(0.5), "factor"),
        (lambda: YarnScaling(math.inf, 64), "factor"),
        (lambda: YarnScaling(2.0, 0), "original_length"),
        (lambda: YarnScaling(2.0, 64, beta_fast=1.0, beta_slow=1.0), "beta_slow"),
        (lambda: Llama3Scaling(8.0, 4.0, 4.0, 64), "low_freq_factor"),
        (lambda: rotate(layout="halves"), "layout"),
        (lambda: rotate(dim=H + 2), "frequencies rotate 10 features"),
        (lambda: rotate(position=jnp.arange(T + 1)), "position must be"),
        (lambda: rotate(position=jnp.zeros((3, T), jnp.int32)), "position must be"),
        (lambda: rotate(position=jnp.zeros(T)), "position must be integers"),
        (lambda: rotate(x=jnp.zeros((B, T, N, H), jnp.int32)), "x must be floating"),
    ],
)
def test_wrong_sizes_are_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message.split()[0]) as error:
        call()
    assert message in str(error.value) or "Type-check" in str(error.value)


def rotate(*, x=None, position=None, dim=H, layout="half"):
    x = heads() if x is None else x
    position = jnp.arange(T) if position is None else position
    return positions.rotary(x, position, positions.rotary_frequencies(dim), layout=layout)
