"""What happens to a logit between score and mask: a function of the logit and two positions.

The ones here are frozen pytrees, so what they learn (a slope, a table) is an ordinary leaf. Any
Python callable of a logit and two positions serves as well.
"""

from attn_jax.score_mods._alibi import alibi as alibi
from attn_jax.score_mods._alibi import alibi_slopes as alibi_slopes
from attn_jax.score_mods._bias import dense_bias as dense_bias
from attn_jax.score_mods._bias import relative_bias as relative_bias
from attn_jax.score_mods._bias import relative_bucket as relative_bucket
from attn_jax.score_mods._score_mod import ScoreMod as ScoreMod
from attn_jax.score_mods._score_mod import ScoreModFunction as ScoreModFunction
from attn_jax.score_mods._score_mod import as_pytree as as_pytree
from attn_jax.score_mods._score_mod import is_aligned as is_aligned
from attn_jax.score_mods._soft_cap import soft_cap as soft_cap
