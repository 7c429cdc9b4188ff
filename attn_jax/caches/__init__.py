"""Caches of keys and values for decoding: frozen pytrees that are passed in and returned.

`append` takes the keys and values of the next tokens. It returns the updated cache, and as `Held`
what the queries of these tokens may attend to, with the position of every key and query; so causal
masks and windows are right in whatever order keys are stored. `cached_attention` computes that
attention. Caches work under `jit`, `scan` and donation. A token that has no room never overwrites
another one: it raises an error, or sets a flag under `jit`.
"""

from attn_jax.caches._cache import UNUSED as UNUSED
from attn_jax.caches._cache import Cache as Cache
from attn_jax.caches._cache import CacheOverflow as CacheOverflow
from attn_jax.caches._cache import Held as Held
from attn_jax.caches._contiguous import Contiguous as Contiguous
from attn_jax.caches._contiguous import contiguous as contiguous
from attn_jax.caches._paged import Paged as Paged
from attn_jax.caches._paged import paged as paged
from attn_jax.caches._sliding import Sliding as Sliding
from attn_jax.caches._sliding import sliding as sliding
