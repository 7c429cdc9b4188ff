"""What a terminal and a notebook show of masks, score mods, caches and explanations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import attn_jax
from attn_jax import caches, masks, score_mods
from attn_jax._base import describe
from attn_jax._base.describe import describe_call, in_short
from attn_jax._base.notebook import drawing, sentence, table
from tests.helpers.viewer_pages import Page

B, K, H, V = 3, 2, 5, 4
LONG = 2**20


def filled(cache, *counts):
    """The cache with so many tokens in each batch example."""
    T = max(counts)
    is_real = jnp.arange(T)[None, :] < jnp.array(counts)[:, None]
    arrays = jnp.ones((len(counts), T, K, H)), jnp.ones((len(counts), T, K, V))
    return cache.append(*arrays, is_real)[0]


def contiguous(*counts, **options):
    return filled(caches.contiguous(len(counts), 8, K, H, V, **options), *counts)


def double(logit, i, j):
    return 2 * logit


def later(i, j):
    return i < j


SHOWN = {
    "mask": lambda: masks.causal() & later,
    "segments": lambda: masks.segments(jnp.array([4, 4, 7])),
    "traced mask": lambda: masks.as_pytree(lambda i, j: i < j) | masks.causal(),
    "mask of a batch": lambda: masks.key_padding(jnp.array([3, 4])),
    "block mask": lambda: attn_jax.block_mask(masks.causal(), 6, 6, tile=(2, 2)),
    "score mod": lambda: double >> score_mods.alibi(0.5),
    "score mod of a batch": lambda: score_mods.alibi(jnp.ones(6)),
    "contiguous": lambda: contiguous(3, 0, 8),
    "sliding": lambda: filled(caches.sliding(B, 2, K, H, V, chunk=7), 3, 0, 6),
    "paged": lambda: filled(caches.paged(B, 8, K, H, V, page=2, pages=9), 3, 0, 6),
    "explanation": lambda: attn_jax.explain(*[jnp.zeros((6, 3))] * 3),
    "mechanism": lambda: attn_jax.lineage["self-attention"],
}


def html_of(node):
    return node._repr_html_()


def traced_html(function, *arguments):
    """The HTML of what a function returns, made while `jit` traces the function."""
    texts = []
    jax.jit(lambda *arrays: texts.append(html_of(function(*arrays))))(*arguments)
    return texts[0]


@pytest.mark.parametrize("name", SHOWN)
def test_html_is_small_and_has_no_script_colour_or_address_to_load(name):
    text = html_of(SHOWN[name]())
    page = Page(text)
    tags = {tag for tag, _ in page.tags}
    assert tags <= {"p", "code", "pre", "table", "tr", "th", "td"}
    assert {key for _, attributes in page.tags for key in attributes} <= {"style", "scope"}
    assert not re.search("color|background|url", text)
    assert len(text) < 6_000


@pytest.mark.parametrize("name", sorted(SHOWN.keys() - {"explanation"}))
def test_repr_is_one_line_without_entries_of_arrays(name):
    text = repr(SHOWN[name]())
    assert "\n" not in text
    assert "Array(" not in text
    assert len(text) < 160


def test_text_is_escaped():
    nasty = "<b>&\"'"
    escaped = "&lt;b&gt;&amp;&quot;&#x27;"
    for text in (table(nasty, [(nasty, nasty)], [nasty]), drawing(nasty, [nasty], nasty)):
        assert nasty not in text
        assert text.count(escaped) >= 3
    assert sentence(nasty, nasty).count(escaped) == 2


def test_a_mask_is_drawn_as_large_as_its_arrays():
    [drawn] = Page(html_of(masks.segments(jnp.array([4, 4, 7])))).texts["pre"]
    assert drawn == "■■·\n■■·\n··■"
    [drawn] = Page(html_of(masks.causal())).texts["pre"]
    assert drawn.splitlines()[1] == "■■" + "·" * 22
    long = masks.segments(jnp.zeros(LONG, jnp.int32))
    assert Page(html_of(long)).texts["pre"] == ["\n".join(["■" * 24] * 24)]


def test_rows_and_columns_of_a_drawing_are_counted_apart():
    [drawn] = Page(html_of(masks.from_array(np.tri(3, 20, 17, bool)))).texts["pre"]
    assert drawn == "\n".join(["■" * n + "·" * (20 - n) for n in (18, 19, 20)])
    shared = masks.from_array(np.array([[True, False, True, True, False]]))
    assert Page(html_of(shared)).texts["pre"] == ["\n".join(["■·■■·"] * 5)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: masks.segments(jnp.array([4, 4, 7])) & masks.causal(),
        lambda: score_mods.alibi(jnp.array(0.5)) >> score_mods.soft_cap(jnp.array(30.0)),
        SHOWN["contiguous"],
        SHOWN["sliding"],
        SHOWN["paged"],
    ],
    ids=["mask", "score mod", "contiguous", "sliding", "paged"],
)
def test_what_was_donated_is_described(make):
    rule = make()
    for leaf in jax.tree.leaves(rule):
        leaf.delete()
    for text in (repr(rule), str(rule), html_of(rule)):
        assert text


def test_a_captured_random_key_is_described_by_its_type():
    assert in_short(jax.random.key(0)) == "key<fry>[]"


def test_an_array_is_described_without_being_copied(monkeypatch):
    monkeypatch.setattr(describe, "read_array", lambda _: pytest.fail("the array was read"))
    assert in_short(jnp.zeros((3, 5))) == "float32[3, 5]"


@pytest.mark.usefixtures("no_type_hook")
def test_a_cache_of_numpy_arrays_has_arrays():
    assert "5 of 8" in html_of(jax.device_get(contiguous(3, 5, 8)))


def test_the_tiles_of_a_million_tokens_are_drawn_in_64_lines():
    block = attn_jax.block_mask(masks.causal(), LONG, LONG, tile=(4096, 4096))
    name, *lines = str(block).splitlines()
    assert name == f"{block!r}: 50% empty; 4×4 tiles a character"
    assert lines == ["■" * i + "▒" + "·" * (63 - i) for i in range(64)]
    assert Page(html_of(block)).texts["pre"] == ["\n".join(lines)]
    assert "4×4 tiles, ▒ if they differ" in html_of(block)


def test_tiles_of_a_group_that_are_all_partial_are_drawn_as_partial():
    i, j = np.ogrid[:130, :10]
    mask = masks.from_array((i + j) % 2 == 0)
    block = attn_jax.block_mask(mask, 130, 10, tile=(2, 2))
    _, *lines = str(block).splitlines()
    assert lines == ["▒▒▒"] * 33


def test_a_score_mod_shows_what_becomes_of_some_logits():
    mod = double >> score_mods.alibi(0.5) >> score_mods.soft_cap(jnp.float32(30.0))
    cells = Page(html_of(mod)).texts["td"]
    expected = [
        30 * np.tanh((2 * logit - step / 2) / 30)
        for step in (0, 1, 2, 4, 8, 16)
        for logit in (-10, 0, 1, 10, 100)
    ]
    np.testing.assert_allclose([float(cell) for cell in cells], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "mod",
    [
        score_mods.dense_bias(jnp.zeros((4, 5))),
        score_mods.alibi(jnp.ones(6)),
        score_mods.relative_bias(np.zeros((3, 32), np.float32), bidirectional=False),
    ],
    ids=repr,
)
def test_a_score_mod_of_rows_or_heads_shows_no_numbers(mod):
    assert "from positions alone" in html_of(mod)
    assert "td" not in Page(html_of(mod)).texts


def test_a_cache_lists_the_tokens_of_each_batch_example():
    cache = contiguous(3, 0, 8)
    sizes = "num_kv_heads=2, head_dim=5, value_dim=4, dtype=float32"
    assert repr(cache) == f"Contiguous(lengths=[3, 0, 8], capacity=8, {sizes})"
    cells = Page(html_of(cache)).texts["td"]
    bars = ["■■■■■■··········", "················", "■■■■■■■■■■■■■■■■"]
    counts = ["3 of 8", "0 of 8", "8 of 8"]
    per_example = [text for pair in zip(counts, bars, strict=True) for text in pair]
    assert cells == [*per_example, f"{3 * 8 * K * (H + V) * 4 + 3 * 4 + 3:,} bytes"]


def test_each_kind_of_cache_names_its_sizes():
    sizes = "num_kv_heads=2, head_dim=5, value_dim=4"
    assert repr(SHOWN["sliding"]()) == (
        f"Sliding(lengths=[3, 0, 6], window=2, chunk=7, {sizes}, dtype=float32)"
    )
    assert repr(SHOWN["paged"]()) == (
        f"Paged(lengths=[3, 0, 6], capacity=8, page=2, pages=9, free=4, {sizes}, dtype=float32)"
    )
    assert repr(contiguous(1, int8=True)) == (
        f"Contiguous(lengths=[1], capacity=8, {sizes}, dtype=int8)"
    )


def test_an_overflow_flag_that_is_set_is_shown():
    ones = [jnp.ones((2, 9, K, width)) for width in (H, V)]
    is_real = jnp.arange(9)[None, :] < jnp.array([[9], [2]])
    empty = caches.contiguous(2, 8, K, H, V)
    cache = jax.jit(lambda cache: cache.append(*ones, is_real)[0])(empty)
    assert repr(cache).endswith(", overflowed=[True, False])")
    assert "set" in Page(html_of(cache)).texts["td"]


def test_a_large_batch_is_cut():
    cache = contiguous(*range(8), *range(8), *range(8))
    assert "lengths=[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, … 24 in all]" in repr(cache)
    assert "8 more" in Page(html_of(cache)).texts["th"]
    assert "0 to 7" in Page(html_of(cache)).texts["td"]


def test_caches_without_known_lengths_show_dtype_and_shape():
    cache = contiguous(3, 0, 8)
    layers = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), cache)
    assert "lengths=int32[2, 3], capacity=8" in repr(layers)
    assert "int32[2, 3]; shown outside of jit, for one layer" in html_of(layers)
    shapes = "key=float32[3, 2, 8, 5], value=float32[3, 2, 8, 4], lengths=int32[3]"
    assert repr(jax.eval_shape(lambda: cache)) == f"Contiguous({shapes}, overflowed=bool[3])"
    jax.jit(lambda cache: cache, donate_argnums=0)(cache)
    assert "lengths=deleted int32[3]" in repr(cache)
    assert "deleted int32[3]" in html_of(cache)


@pytest.mark.parametrize("leaf", [0, None])
def test_trees_of_the_structure_of_a_cache_or_block_mask_are_described(leaf):
    cache = jax.tree.map(lambda _: leaf, contiguous(3, 0, 8))
    assert repr(cache) == f"Contiguous(key={leaf}, value={leaf}, lengths={leaf}, overflowed={leaf})"
    assert "no arrays" in html_of(cache)
    block = jax.tree.map(lambda _: leaf, SHOWN["block mask"]())
    assert str(block) == repr(block) == "BlockMask(causal(), 6, 6, tile=(2, 2))"
    assert "outside of jit" in html_of(block)


def test_html_made_while_tracing_says_so():
    x = jnp.float32(2)
    assert "outside of jit" in traced_html(lambda x: masks.key_padding(x.astype(int)), x)
    assert "outside of jit" in traced_html(
        lambda x: masks.causal() & (lambda i, j: j < x.astype(int)), x
    )
    assert "outside of jit" in traced_html(score_mods.alibi, x)
    built = SHOWN["block mask"]()
    assert "outside of jit" in traced_html(lambda block: block, built)
    assert "int32[3]; shown outside of jit" in traced_html(lambda c: c, contiguous(3, 0, 8))


def test_an_explanation_is_the_same_table_in_a_terminal_and_in_a_notebook():
    explanation = SHOWN["explanation"]()
    assert repr(explanation) == str(explanation)
    page = Page(html_of(explanation))
    names = [line.split()[0] for line in str(explanation).splitlines() if line[0] != " "]
    assert page.texts["th"] == names
    joined = " ".join(str(explanation).split())
    assert all(cell in joined for cell in page.texts["td"])


def test_arrays_are_described_by_dtype_and_shape():
    values = {"a": jnp.int32(3), "b": np.zeros((2, 5)), "c": (1, jnp.ones(4)), "d": "x", "e": None}
    assert describe_call("f", values) == "f(a=3, b=float64[2, 5], c=(1, float32[4]), d='x', e=None)"
    assert in_short(np.float32(0.5)) == "0.5"


def test_a_traced_function_shows_what_it_captured():
    bound = jnp.array([1, 2])
    mask = masks.as_pytree(lambda i, j: i < bound[0] + bound[1] + j)
    assert repr(mask) == "<traced function of (int32[2])>"
    assert repr(masks.as_pytree(later)) == "<traced function>"
    assert repr(masks.causal() & later) == "(causal() & later)"
