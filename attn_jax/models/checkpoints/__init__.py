"""Loading and saving a `GPT` in Hugging Face's format: config.json and safetensors."""

from attn_jax.models.checkpoints._load import load_hf as load_hf
from attn_jax.models.checkpoints._save import save_hf as save_hf
