"""GPT: published numbers of parameters, caches that change nothing, and the effect of options."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from attn_jax.models import GPT, DecoderConfig, generate
from attn_jax.modules import Rotary
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

B, T, P = 2, 11, 23
TINY = DecoderConfig(
    vocab_size=P, model_dim=12, num_layers=3, num_heads=4, hidden_dim=20, max_length=16
)
LLAMA = dataclasses.replace(
    TINY,
    num_kv_heads=2,
    head_dim=6,
    norm="rms",
    rotary=Rotary(),
    activation="silu",
    gated=True,
    use_bias=False,
    use_qkv_bias=False,
    windows=(3, None, 3),
)
GEMMA = dataclasses.replace(
    LLAMA,
    placement="both",
    qk_norm=True,
    scale=0.3,
    logits_soft_cap=2.0,
    final_soft_cap=3.0,
    embed_scale=3.5,
    is_tied=False,
)
CONFIGS = {"gpt2": TINY, "llama": LLAMA, "gemma": GEMMA}


def drawn(config, seed=0):
    """A model whose parameters all matter: norms and biases too."""
    model = GPT(config, rngs=nnx.Rngs(seed))
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)
    rngs = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [x + 0.2 * jax.random.normal(r, x.shape) for r, x in zip(rngs, leaves, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(tree, moved))


TOKENS = jax.random.randint(jax.random.key(3), (B, T), 0, P)


def parameters(config):
    state = nnx.state(nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0))))
    return sum(leaf.size for leaf in jax.tree.leaves(state))


def test_the_published_parameters_are_counted():
    assert parameters(DecoderConfig()) == 124_439_808  # GPT-2, small
    lecture = DecoderConfig(use_qkv_bias=False)  # Raschka, chapter 4
    assert parameters(lecture) == 124_412_160
    assert parameters(dataclasses.replace(lecture, is_tied=False)) == 163_009_536


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", ["contiguous", "sliding", "paged"])
def test_decoding_with_caches_equals_the_whole_text_at_once(name, kind):
    model = drawn(CONFIGS[name])
    whole = model(TOKENS)
    options = {"chunk": 2} if kind == "sliding" else {"page": 4} if kind == "paged" else {}
    caches, parts = model.init_caches(B, T, kind=kind, **options), []
    extend = nnx.jit(lambda model, tokens, caches: model.extend(tokens, caches))
    for start, end in ((0, 5), (5, 7), (7, 8), (8, 9), (9, 10), (10, 11)):
        hidden, caches = extend(model, TOKENS[:, start:end], caches)
        parts.append(model.readout(hidden))
    assert_close(jnp.concatenate(parts, axis=1), whole)
    assert jnp.array_equal(jnp.concatenate(parts, 1).argmax(-1), whole.argmax(-1))
    assert not any(cache.overflowed.any() for cache in caches)


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_on_either_side_changes_nothing(name):
    model = drawn(CONFIGS[name])
    is_real = jnp.array([[False] * 3 + [True] * 8, [True] * 9 + [False] * 2])
    hidden, caches = model.extend(TOKENS, model.init_caches(B, T), is_real=is_real)
    assert caches[0].lengths.tolist() == [8, 9]
    for row, real in enumerate(np.asarray(is_real)):
        alone = model.hidden(TOKENS[row : row + 1, real])
        assert_close(hidden[row : row + 1, real], alone)


@pytest.mark.parametrize("name", CONFIGS)
def test_no_token_attends_to_later_ones(name):
    model = drawn(CONFIGS[name])
    other = TOKENS.at[:, 6:].set((TOKENS[:, 6:] + 1) % P)
    assert jnp.array_equal(model(TOKENS)[:, :6], model(other)[:, :6])
    assert_differs(model(TOKENS)[:, 6:], model(other)[:, 6:])


CHANGES = {
    "window": {"windows": (2, None, 3)},
    "scale": {"scale": 0.5},
    "soft cap": {"logits_soft_cap": 0.5},
    "final soft cap": {"final_soft_cap": 1.0},
    "embed scale": {"embed_scale": 2.0},
    "base": {"rotary": Rotary(base=100.0)},
    "activation": {"activation": "gelu"},
    "norm": {"norm_eps": 0.5},
}


@pytest.mark.parametrize("option", CHANGES)
def test_each_option_counts(option):
    changed = dataclasses.replace(GEMMA, **CHANGES[option])
    state = nnx.state(drawn(GEMMA))
    model = GPT(changed, rngs=nnx.Rngs(0))
    nnx.update(model, state)
    assert_differs(model(TOKENS), drawn(GEMMA)(TOKENS))


def test_packed_documents_give_the_logits_of_separate_ones():
    model = drawn(LLAMA)
    documents = jnp.array([[0] * 4 + [1] * 7] * B)
    packed = model(TOKENS, mask=documents[:, None, :, None] == documents[:, None, None, :])
    assert_close(packed[:, 4:], model(TOKENS[:, 4:]))  # rotary positions depend on distances only
    assert_differs(packed[:, 4:], model(TOKENS)[:, 4:])


def test_dropout_needs_a_key_and_the_same_key_drops_the_same():
    model = drawn(dataclasses.replace(TINY, dropout_rate=0.3))
    calm, rng = model(TOKENS), jax.random.key(0)
    assert jnp.array_equal(calm, drawn(TINY)(TOKENS))
    assert jnp.array_equal(model(TOKENS, rng=rng), model(TOKENS, rng=rng))
    assert_differs(model(TOKENS, rng=rng), model(TOKENS, rng=jax.random.key(1)))


def test_hidden_units_of_the_feed_forward_are_never_dropped():
    """As in GPT-2: dropout of embeddings, attention weights and sub-layers' outputs."""
    model = drawn(dataclasses.replace(TINY, dropout_rate=0.9))
    for block in model.blocks:
        x = jax.random.normal(jax.random.key(5), (B, T, 12))
        calm = block.feed_forward(x)
        assert jnp.array_equal(block.feed_forward(x, rng=jax.random.key(0)), calm)
        assert_differs(block.attention(x, rng=jax.random.key(0)), block.attention(x))
        dropped = block.feed_forward_residual(x, block.feed_forward, rng=jax.random.key(0)) - x
        assert 0.8 < np.mean(np.asarray(dropped) == 0) < 0.97


def test_more_tokens_than_learned_positions_are_refused():
    long = jnp.zeros((1, 17), jnp.int32)
    for call in (drawn(TINY), drawn(TINY).hidden):
        with pytest.raises(ValueError, match=r"tokens has 17 positions, .* has 16 learned"):
            call(long)
    with pytest.raises(ValueError, match=r"tokens has 17 positions, .* has 16 learned"):
        jax.eval_shape(drawn(TINY), long)
    model = drawn(dataclasses.replace(TINY, windows=(3, 3, 3)))
    with pytest.raises(ValueError, match=r"tokens has 17 positions, .* has 16 learned"):
        model.extend(long, model.init_caches(1, 16, kind="sliding", chunk=17))


def test_positions_may_restart_and_rotary_positions_have_no_limit():
    packed = jnp.tile(TOKENS[:, :9], (1, 2))
    position = jnp.tile(jnp.arange(9, dtype=jnp.int32), 2)[None].repeat(B, 0)
    documents = jnp.repeat(jnp.arange(2), 9)
    mask = documents[None, None, :, None] == documents[None, None, None, :]
    model = drawn(TINY)
    logits = model(packed, mask=mask, position=position)
    assert_close(logits[:, 9:], model(TOKENS[:, :9]))
    assert not jnp.isnan(drawn(LLAMA)(packed)).any()


def test_every_parameter_has_a_gradient():
    graph, state = nnx.split(drawn(GEMMA))

    def loss(state):
        return jnp.sum(nnx.merge(graph, state)(TOKENS) ** 2)

    for path, gradient in nnx.to_flat_state(jax.grad(loss)(state)):
        assert jnp.any(gradient[...] != 0), path


def test_it_computes_in_the_dtype_of_its_parameters():
    model = GPT(LLAMA, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert model(TOKENS).dtype == jnp.bfloat16
    assert model.init_caches(B, T)[0].key.dtype == jnp.bfloat16


MISTAKES = {
    "no heads": ({"num_heads": 0}, r"num_heads must be a whole number, at least 1; got 0"),
    "half a layer": ({"num_layers": 1.5}, r"num_layers must be a whole number, at least 1; got 1"),
    "heads that do not divide": (
        {"num_heads": 5},
        r"num_heads=5 must divide model_dim=12; pass head_dim to choose it freely",
    ),
    "groups that do not divide": ({"num_kv_heads": 3}, r"num_kv_heads=3 must divide num_heads=4"),
    "more keys than queries": ({"num_kv_heads": 8}, r"num_kv_heads=8 must divide num_heads=4"),
    "half a rotation": ({"rotary": Rotary(), "head_dim": 5}, r"head_dim=5 gives an odd number"),
    "norm": ({"norm": "batch"}, r"norm='batch' is unknown; choose from 'layer', 'rms'"),
    "activation": ({"activation": "tanh"}, r"activation='tanh' is unknown; choose from 'relu', "),
    "windows for other layers": ({"windows": (1,)}, r"windows must have one entry a layer, 3; got"),
    "one window": ({"windows": 4}, r"windows must be a tuple with one entry a layer, .*; got 4"),
    "a window to the right": (
        {"windows": (None, -1, 2)},
        r"windows\[1\] must be None or a whole number of other positions, at least 0; got -1",
    ),
    "a window in a word": ({"windows": (None, 2, "all")}, r"windows\[2\] must be None .*'all'"),
    "a cap of nothing": ({"logits_soft_cap": 0.0}, r"logits_soft_cap must be a finite number > 0"),
    "a scale of nothing": ({"scale": 0.0}, r"scale must be a finite number > 0; got 0"),
    "no epsilon": ({"norm_eps": float("nan")}, r"norm_eps must be a finite number > 0; got nan"),
    "all is dropped": ({"dropout_rate": 1.0}, r"dropout_rate must be a number in \[0, 1\); got 1"),
    "less than nothing is dropped": ({"dropout_rate": -0.1}, r"dropout_rate must be a number in"),
    "placement": ({"placement": "post"}, r"placement='post' is unknown; choose from 'pre', 'both'"),
}


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_choices_that_make_no_model_are_refused(mistake):
    choices, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **choices)


@pytest.mark.usefixtures("no_type_hook")
def test_caches_that_cannot_be_are_refused():
    model = drawn(TINY)
    with pytest.raises(ValueError, match=r"capacity=17 is more than the 16 positions"):
        model.init_caches(B, 17)
    with pytest.raises(ValueError, match=r"kind='ring' is unknown; choose contiguous"):
        model.init_caches(B, 4, kind="ring")


def test_embeddings_are_dropped_in_training_and_nowhere_else():
    model = GPT(dataclasses.replace(LLAMA, dropout_rate=0.25), rngs=nnx.Rngs(0))
    for block in model.blocks:  # sub-layers of output 0: only the embeddings are left
        for last in (block.attention.w_out, block.feed_forward.w_down):
            last[...] = jnp.zeros_like(last[...])
    first, again, other = (model.hidden(TOKENS, rng=jax.random.key(seed)) for seed in (1, 1, 2))
    assert 0.15 < float((first == 0).mean()) < 0.35
    assert_equal(first, again)
    assert ((first == 0) != (other == 0)).any()
    kept = jnp.where(first == 0, 0, model.embedding(TOKENS) / 0.75)
    assert_close(first, model.norm(kept))
    assert model.hidden(TOKENS).all()


def test_a_text_beyond_those_in_training_makes_one_warning():
    config = dataclasses.replace(LLAMA, max_length=9, num_layers=1, windows=None)
    model = GPT(config, rngs=nnx.Rngs(0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(TOKENS[:, :9])
        generate(model, [[1, 2, 3]], max_new_tokens=6)
    with pytest.warns(UserWarning, match="may have 12 tokens, .* trained on at most 9"):
        generate(model, [[1, 2, 3]], max_new_tokens=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(TOKENS)
