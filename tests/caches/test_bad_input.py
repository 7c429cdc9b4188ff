"""Wrong arguments of caches and their methods: the error names the argument and the remedy."""

import jax.numpy as jnp
import pytest

import attn_jax
from attn_jax import caches
from tests.helpers.cache_cases import MAKE, WINDOW, B, H, K, L, V, tokens

QUERY, KEY, VALUE = tokens()
SOME = jnp.array([False, True, True])


def given(kind, *arrays):
    return lambda: MAKE[kind]().append(*arrays)


def attention(**options):
    return lambda: attn_jax.cached_attention(QUERY, given("contiguous", KEY, VALUE)()[1], **options)


MISTAKES = {
    "no capacity": (lambda: caches.contiguous(B, 0, K, H), r"capacity must be an int >= 1; got 0"),
    "no rows": (lambda: caches.paged(0, L, K, H), r"batch must be an int >= 1; got 0"),
    "no heads": (lambda: caches.contiguous(B, L, 0, H), r"num_kv_heads must be an int >= 1; got 0"),
    "no width": (lambda: caches.sliding(B, L, K, 0), r"head_dim must be an int >= 1; got 0"),
    "no value": (lambda: caches.contiguous(B, L, K, H, 0), r"value_dim must be an int >= 1; got 0"),
    "window below 0": (lambda: caches.sliding(B, -1, K, H), r"window must be two ints >= 0"),
    "no chunk": (lambda: caches.sliding(B, 3, K, H, chunk=0), r"chunk must be an int >= 1; got 0"),
    "no page": (lambda: caches.paged(B, L, K, H, page=0), r"page must be an int >= 1; got 0"),
    "no pages": (lambda: caches.paged(B, L, K, H, pages=0), r"pages must be an int >= 1; got 0"),
    "integers": (
        lambda: caches.contiguous(B, L, K, H, dtype=jnp.int8),
        r"dtype must be floating point; got int8; for eight bits pass int8=True",
    ),
    "other rows": (
        given("contiguous", KEY[:2], VALUE[:2]),
        r"key must have shape \[3, T, 2, 8\], as the cache has; got \[2, 12, 2, 8\]",
    ),
    "other heads": (given("paged", KEY[:, :, :1], VALUE), r"key must have shape \[3, T, 2, 8\]"),
    "no batch": (given("paged", KEY[0], VALUE[0]), r"key must have shape \[3, T, 2, 8\]"),
    "other width": (
        given("sliding", KEY, VALUE[..., :2]),
        r"value must have shape \[3, 12, 2, 5\], as the cache has; got \[3, 12, 2, 2\]",
    ),
    "other tokens": (
        given("contiguous", KEY, VALUE[:, :3]),
        r"value must have shape \[3, 12, 2, 5",
    ),
    "keys in numbers": (given("contiguous", KEY.astype(int), VALUE), r"key must be floating point"),
    "realness in numbers": (
        given("contiguous", KEY, VALUE, jnp.ones((B, L))),
        r"is_real must be bool; got float32",
    ),
    "realness of other tokens": (
        given("contiguous", KEY, VALUE, jnp.ones((B, 2), bool)),
        r"is_real must have one entry for each token, \[3, 12\]; got \[3, 2\]",
    ),
    "forward": (
        lambda: MAKE["contiguous"]().rewind(jnp.array([0, 1, 0])),
        r"lengths\[1\] must be between 0 and 0, the present length of batch example 1; got 1",
    ),
    "back by a fraction": (
        lambda: MAKE["sliding"]().rewind(jnp.zeros(B)),
        r"lengths must be integers; got float32",
    ),
    "back by fewer rows": (
        lambda: MAKE["paged"]().rewind(jnp.zeros(2, int)),
        r"lengths must have one entry for each batch example, \[3\]; got \[2\]",
    ),
    "a row that is none": (
        lambda: MAKE["paged"]().reorder(jnp.array([0, 1, 3])),
        r"source\[2\] must be between 0 and 2; got 3",
    ),
    "rows by number": (
        lambda: MAKE["sliding"]().reset(jnp.array([0, 1, 1])),
        r"examples must be bool; got int32",
    ),
    "more than there is": (
        lambda: MAKE["paged"]().share(0, SOME, 2),
        r"length must be between 0 and 0, the present length of batch example 0; got 2",
    ),
    "a source that is none": (
        lambda: MAKE["paged"]().share(3, SOME, 0),
        r"source must be a batch example between 0 and 2; got 3",
    ),
    "an array as a mask": (
        attention(mask=jnp.ones((L, L), bool)),
        r"mask must be a function of positions.*masks\.from_array",
    ),
    "no splits": (attention(splits=0), r"splits must be an int >= 1; got 0"),
    "heads that do not divide": (
        lambda: attn_jax.cached_attention(
            QUERY[:, :, :3], given("paged", KEY, VALUE)()[1], splits=2
        ),
        r"query heads \(3\) must be a multiple of key/value heads \(2\)",
    ),
}


@pytest.mark.usefixtures("no_type_hook")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_with_advice(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_value_width_is_the_keys_by_default():
    for cache in (
        caches.contiguous(B, L, K, H),
        caches.sliding(B, WINDOW, K, H),
        caches.paged(B, L, K, H),
    ):
        assert cache.value.shape[-1] == H != V
