"""Writes rotary_from_transformers.json: Hugging Face's frequencies and rotations (needs torch).

PYTHONPATH=<transformers 5.24, torch 2.13> python tests/data/rotary_from_transformers.py
"""

import json
from pathlib import Path

import torch
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.cohere import modeling_cohere
from transformers.models.llama import modeling_llama

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
GPT_OSS = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
# Name: width of a head, base, scaling; the last two are Qwen2.5's and gpt-oss'.
MODELS = {
    "plain": (32, 10_000.0, {"rope_type": "default"}),
    "linear": (32, 10_000.0, {"rope_type": "linear", "factor": 4.0}),
    "llama3": (128, 500_000.0, LLAMA3),
    "yarn": (128, 1_000_000.0, YARN),
    "yarn, not truncated": (64, 150_000.0, GPT_OSS),
}


def config(head_dim: int, base: float, scaling: dict) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        rope_parameters={"rope_theta": base, **scaling},
    )


def frequencies(head_dim: int, base: float, scaling: dict) -> dict:
    settings = config(head_dim, base, scaling)
    if scaling["rope_type"] == "default":
        numbers, amplitude = modeling_llama.LlamaRotaryEmbedding(settings).inv_freq, 1.0
    else:
        numbers, amplitude = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](settings, "cpu")
    return {
        "head_dim": head_dim,
        "base": base,
        "scaling": scaling,
        "frequencies": numbers.tolist(),
        "amplitude": amplitude,
    }


def rotations() -> dict:
    """Llama turns halves, Cohere neighbours; one small YaRN, so that the amplitude counts."""
    settings = config(8, 100.0, YARN | {"original_max_position_embeddings": 16})
    position = torch.tensor([[0, 3, 50]])
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 8)  # [B N T H]
    models = {
        "half": (modeling_llama, modeling_llama.LlamaRotaryEmbedding),
        "interleaved": (modeling_cohere, modeling_cohere.CohereRotaryEmbedding),
    }
    golden = {"position": position[0].tolist(), "x": x[0].transpose(0, 1).tolist()}
    for layout, (model, rotary) in models.items():
        turned, _ = model.apply_rotary_pos_emb(x, x, *rotary(settings)(x, position))
        golden[layout] = turned[0].transpose(0, 1).tolist()
    return golden


if __name__ == "__main__":
    golden = {
        "made by": f"{Path(__file__).name}, transformers {transformers.__version__}",
        **{name: frequencies(*model) for name, model in MODELS.items()},
        "rotations": rotations(),
    }
    lines = (f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in golden.items())
    Path(__file__).with_suffix(".json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
