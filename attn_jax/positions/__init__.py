"""Position encodings: vectors added to embeddings, or rotations of queries and keys (RoPE)."""

from attn_jax.positions._absolute import learned as learned
from attn_jax.positions._absolute import sinusoidal as sinusoidal
from attn_jax.positions._rotary import Layout as Layout
from attn_jax.positions._rotary import rotary as rotary
from attn_jax.positions._rotary import rotary_frequencies as rotary_frequencies
from attn_jax.positions._scaling import LinearScaling as LinearScaling
from attn_jax.positions._scaling import Llama3Scaling as Llama3Scaling
from attn_jax.positions._scaling import RotaryScaling as RotaryScaling
from attn_jax.positions._scaling import YarnScaling as YarnScaling
