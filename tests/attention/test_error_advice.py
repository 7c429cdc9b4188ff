"""The advice in an error message works: a call changed as advised gives the right numbers.

The advice is an expression in the message; a test extracts and evaluates it.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax
from attn_jax import attend, block_mask, dot_product_attention, masks, score_mods
from attn_jax.modules import MultiHeadAttention
from tests.helpers.cases import B, H, K, N, S, T, V
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs, assert_equal

pytestmark = pytest.mark.usefixtures("no_type_hook")

SIZES = {"B": B, "N": N, "T": T, "S": S}
HEADS = draw(0, (B, T, N, H), (B, S, K, H), (B, S, K, V), dtype=jnp.float32)
ONE = draw(1, (T, H), (S, H), (S, V), dtype=jnp.float32)


def booleans(*shape):
    """A mask under which every query attends to key 2, and none to key 1."""
    drawn, last = np.random.default_rng(3).random(shape) < 0.6, np.arange(shape[-1])
    return jnp.asarray((drawn | (last == 2)) & (last != 1))


def advice(pattern, call, *args, error=ValueError, **options):
    """The part of the error message of a call that matches the group of a pattern."""
    with pytest.raises(error) as raised:
        call(*args, **options)
    found = re.search(pattern, str(raised.value))
    assert found, f"no {pattern!r} in {raised.value}"
    return found.group(1)


def followed(expression, **names):
    return eval(expression, {"jnp": jnp, "attn_jax": attn_jax, "S": S, "T": T, **names})


@pytest.mark.parametrize("letters", ["S", "B S", "T S", "N S", "B T S", "N T S", "B N S"])
@pytest.mark.parametrize("name", ["mask", "bias"])
def test_an_array_that_lacks_axes_gets_the_expression_that_adds_them(letters, name):
    shape = [SIZES[letter] for letter in letters.split()]
    array = booleans(*shape)
    array = array if name == "mask" else array.astype(jnp.float32)
    found = advice(
        rf"For \[{letters}\] write ({name}\[.*\])", dot_product_attention, *HEADS, **{name: array}
    )
    whole = jnp.expand_dims(array, [n for n, x in enumerate("BNTS") if x not in letters])
    whole = jnp.broadcast_to(whole, (B, N, T, S))
    out = dot_product_attention(*HEADS, **{name: followed(found, **{name: array})})
    assert_close(out, dot_product_attention(*HEADS, **{name: whole}))
    assert_differs(out, dot_product_attention(*HEADS))


@pytest.mark.parametrize(
    ("letters", "written"),
    [
        ("B S", "mask[:, None, None, :]"),
        ("T S", "mask[None, None]"),
        ("B T S", "mask[:, None]"),
        ("N T S", "mask[None]"),
    ],
)
def test_the_usual_masks_get_the_usual_expression(letters, written):
    mask = booleans(*(SIZES[letter] for letter in letters.split()))
    assert advice(r"write (.*)", dot_product_attention, *HEADS, mask=mask) == written


def test_if_sizes_are_equal_each_possible_expression_is_listed():
    x = jnp.zeros((3, 3, 2, 4))
    message = advice("(.*)", dot_product_attention, x, x, x, mask=booleans(3, 3))
    assert "For [B S] write mask[:, None, None, :]" in message
    assert "For [T S] write mask[None, None]" in message
    assert "[N S]" not in message


def test_an_array_that_fits_in_no_way_gets_no_expression():
    message = advice("(.*)", dot_product_attention, *HEADS, mask=booleans(B, S + 1))
    assert "its last axis must be S = 7" in message
    assert "write" not in message


def test_a_mask_of_keys_for_one_head_gets_the_expression_that_adds_its_axis():
    row = booleans(S)
    found = advice(r"write (mask.*)", attend, *ONE, mask=row)
    whole = jnp.broadcast_to(row, (T, S))
    assert_close(attend(*ONE, mask=followed(found, mask=row)), attend(*ONE, mask=whole))


def test_a_mask_of_queries_gets_the_expression_that_broadcasts_it():
    column = jnp.arange(T)[None, None, :, None] % 2 == 0
    found = advice(r"write (jnp.*)", dot_product_attention, *HEADS, mask=column)
    out = dot_product_attention(*HEADS, mask=followed(found, mask=column))
    assert_equal(jnp.any(out != 0, axis=(0, 2, 3)), jnp.arange(T) % 2 == 0)


@pytest.mark.parametrize(
    "call", [attend, attn_jax.attend_with_logsumexp, attn_jax.attention_weights]
)
def test_a_batch_for_one_head_gets_vmap_and_the_function_of_many_heads(call):
    arrays = draw(2, (B, T, H), (B, S, H), (B, S, V), dtype=jnp.float32)
    arrays = arrays[:2] if call is attn_jax.attention_weights else arrays
    found = advice(r"(jax\.vmap, or call attn_jax\.dot_product_attention),", call, *arrays)
    mapped = jax.vmap(attend)(*draw(2, (B, T, H), (B, S, H), (B, S, V), dtype=jnp.float32))
    one_head = advice(r"one head: (query\[.*\])\)", call, *arrays)
    arrays = draw(2, (B, T, H), (B, S, H), (B, S, V), dtype=jnp.float32)
    arrays = [followed(one_head, query=array) for array in arrays]
    assert_close(followed(found.split()[-1])(*arrays)[..., 0, :], mapped)


def test_a_batch_for_a_function_of_one_sequence_gets_vmap():
    batch = draw(4, (B, T, H), dtype=jnp.float32)[0]
    found = advice(r"by (jax\.vmap)", attn_jax.simplified_self_attention, batch)
    mapped = followed(found, jax=jax)(attn_jax.simplified_self_attention)(batch)
    assert_close(mapped[1], attn_jax.simplified_self_attention(batch[1]))


def test_an_additive_mask_for_one_head_becomes_a_score_mod():
    query, _, value = ONE[0], ONE[1], ONE[2][:T]
    (additive,) = draw(5, (T, T), dtype=jnp.float32)
    calls = (attend, attn_jax.attend_with_logsumexp)
    for call in calls:
        found = advice(
            r"score_mod=(.*)$", call, query, query, value, mask=additive, error=TypeError
        )
        assert "bias=" not in found
    out = attend(query, query, value, score_mod=followed(found, mask=additive))
    heads = (query[None, :, None], query[None, :, None], value[None, :, None])
    assert_close(out, dot_product_attention(*heads, bias=additive[None, None])[0, :, 0])


def test_an_additive_mask_for_many_heads_becomes_a_bias():
    (additive,) = draw(6, (B, 1, T, S), dtype=jnp.float32)
    name = advice(
        r"pass an additive mask as (\w+)=",
        dot_product_attention,
        *HEADS,
        mask=additive,
        error=TypeError,
    )
    mod = score_mods.dense_bias(additive)
    positions = {"query_position": jnp.arange(T)}
    assert_close(
        dot_product_attention(*HEADS, **{name: additive}),
        dot_product_attention(*HEADS, score_mod=mod, **positions),
    )


def test_an_additive_mask_for_a_layer_becomes_its_score_mod():
    (x,), (additive,) = (
        draw(7, (B, T, 6), dtype=jnp.float32),
        draw(8, (1, N, T, T), dtype=jnp.float32),
    )

    def layer(**options):
        return MultiHeadAttention(6, N, head_dim=H, **options, rngs=nnx.Rngs(0))

    for own in ({}, {"mask": masks.causal()}):
        found = advice(
            r"score_mod=(\S+) to the layer", layer(**own), x, mask=additive, error=TypeError
        )
    with_bias = layer(score_mod=followed(found, mask=additive))
    key, value = with_bias.project_memory(x)
    query = with_bias.project_query(x)
    heads = dot_product_attention(query, key, value, additive)
    assert_close(with_bias(x), jnp.einsum("BTNV,NVD->BTD", heads, with_bias.w_out[...]))


def test_an_array_as_a_mask_of_a_layer_gets_the_wrapper_of_its_kind():
    (bias,) = draw(9, (T, T), dtype=jnp.float32)

    def layer(**options):
        return MultiHeadAttention(6, N, head_dim=H, **options, rngs=nnx.Rngs(0))

    (x,) = draw(10, (B, T, 6), dtype=jnp.float32)
    mask = booleans(T, T)
    for name, array in (("mask", mask), ("score_mod", bias)):
        found = advice(r"array in (\S+)$", layer, error=TypeError, **{name: array})
        with_rule = layer(**{name: followed(found)(array)})
        assert_differs(with_rule(x), layer()(x))
    assert_close(layer(mask=masks.from_array(mask))(x), layer()(x, mask=mask[None, None]))


@pytest.mark.parametrize("name", ["query", "value", "mask", "bias"])
def test_a_nested_list_gets_the_call_that_makes_an_array(name):
    arguments = dict(zip(("query", "key", "value"), HEADS, strict=True))
    arguments |= {"mask": booleans(B, N, T, S)} if name == "mask" else {}
    arguments |= {"bias": jnp.ones((B, N, T, S))} if name == "bias" else {}
    array = arguments[name]
    found = advice(
        rf"{name} must be an array; got list; write (.*)",
        *(dot_product_attention,),
        **arguments | {name: np.asarray(array).tolist()},
        error=TypeError,
    )
    nested = followed(found, **{name: np.asarray(array).tolist()})
    assert_close(
        dot_product_attention(**arguments | {name: nested}), dot_product_attention(**arguments)
    )


def test_a_nested_list_for_one_head_gets_the_call_that_makes_an_array():
    nested = [[1.0, 2.0], [3.0, 4.0, 5.0]]  # ragged: it has no shape
    for call in (attend, attn_jax.attention_weights):
        arrays = (nested, *ONE[1:]) if call is attend else (nested, ONE[1])
        assert advice(r"(query must be an array; got list)", call, *arrays, error=TypeError)


def test_queries_without_positions_get_those_at_the_end():
    found = advice(
        r"query_position=(.*), key_position", dot_product_attention, *HEADS, is_causal=True
    )
    place = {"query_position": followed(found), "key_position": jnp.arange(S)}
    out = dot_product_attention(*HEADS, is_causal=True, **place)
    whole = jnp.arange(S)[None, :] <= jnp.arange(S - T, S)[:, None]
    assert_close(out, dot_product_attention(*HEADS, mask=whole[None, None]))


def test_a_block_mask_with_another_rule_gets_a_block_mask_of_both():
    rule = masks.sliding_window(2, 2)
    arrays = [HEADS[0], *(array[:, :T] for array in HEADS[1:])]
    block = block_mask(rule, T, T)
    found = advice(
        r"together, (attn_jax.*\))", dot_product_attention, *arrays, mask=block, is_causal=True
    )
    both = eval(found, {"attn_jax": attn_jax, "rule": rule, "T": T, "S": T})
    out = dot_product_attention(*arrays, mask=both)
    assert_close(out, dot_product_attention(*arrays, mask=rule, is_causal=True))


def test_a_block_mask_of_another_size_gets_the_right_size():
    rule = masks.key_padding(3)
    found = advice(r"of the rule, (attn_jax.*\))", attend, *ONE, mask=block_mask(rule, S, T))
    assert_close(attend(*ONE, mask=followed(found, rule=rule)), attend(*ONE, mask=rule))


@pytest.mark.parametrize("batch", [(), (B,)])
def test_the_axis_order_of_torch_gets_the_swapaxes_call(batch):
    arrays = draw(11, *[(*batch, 3, 16, H)] * 3, dtype=jnp.float32)
    with pytest.warns(UserWarning, match="swapaxes") as warned:
        dot_product_attention(*arrays)
    found = re.search(r"write query(\.swapaxes\(.*?\))", str(warned[0].message))
    assert found
    turned = [followed(f"array{found.group(1)}", array=array) for array in arrays]
    assert turned[0].shape == (*batch, 16, 3, H)
