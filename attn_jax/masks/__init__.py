"""Masks: which keys each query may attend to, as functions that compose with `&`, `|` and `~`.

A mask is a function of one query position and one key position; True means that the query may
attend to the key. The masks here are frozen pytrees, so an array inside (a length, document ids) is
an ordinary leaf: it can be traced, mapped and sharded. Any Python callable of two positions works
as a mask, too.
"""

from attn_jax.masks._as_pytree import as_pytree as as_pytree
from attn_jax.masks._evaluate import MaskFunction as MaskFunction
from attn_jax.masks._evaluate import Position as Position
from attn_jax.masks._evaluate import draw as draw
from attn_jax.masks._evaluate import evaluate as evaluate
from attn_jax.masks._listed import from_array as from_array
from attn_jax.masks._listed import segments as segments
from attn_jax.masks._mask import Mask as Mask
from attn_jax.masks._mask import is_aligned as is_aligned
from attn_jax.masks._positional import causal as causal
from attn_jax.masks._positional import dilated as dilated
from attn_jax.masks._positional import key_padding as key_padding
from attn_jax.masks._positional import prefix as prefix
from attn_jax.masks._positional import sliding_window as sliding_window
