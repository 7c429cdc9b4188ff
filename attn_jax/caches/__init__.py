"""What a decoder has read so far: keys and values of many sequences, state in and state out.

A cache is a frozen pytree that `jit`, `scan` and donation take as it is. It is given the next keys
and values, and gives back itself and what may be read, with the position of every row, so that
causal masks and windows are right whatever stands where. It never overwrites what is needed: where
there is no room it says so.
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
