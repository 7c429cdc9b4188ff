"""Score mods: functions of a logit and two positions, applied after the scale, before the mask.

The score mods here are frozen pytrees, so a trained slope or table is an ordinary leaf. Any Python
callable of a logit and two positions works as a score mod, too.
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
