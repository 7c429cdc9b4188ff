"""Tiny random checkpoints of each family, as `transformers` writes them, and what it makes of them.

    python tests/data/hf/make_checkpoints.py      # needs torch and transformers; nothing else does
    python tests/data/hf/make_checkpoints.py qwen3_windows defaults      # these alone

Each folder gets config.json, model.safetensors, and expected.npz: `tokens`, their `logits` in
float32, and `greedy`, the tokens with what the library says next. defaults.json has settings that
leave much out, and what the library fills in.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SIZES = {"vocab_size": 61, "max_position_embeddings": 40, "num_hidden_layers": 3}
LLAMA = {
    **SIZES,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
PLAIN = {"rope_type": "default", "rope_theta": 1_000.0}
FAMILIES = {
    "gpt2": (
        "GPT2",
        {"vocab_size": 61, "n_positions": 40, "n_embd": 24, "n_layer": 3, "n_head": 4},
    ),
    "llama": ("Llama", {**LLAMA, "rope_parameters": SCALED}),
    "mistral": (
        "Mistral",
        {**LLAMA, "head_dim": 10, "sliding_window": 5, "rope_parameters": PLAIN},
    ),
    "qwen3": (
        "Qwen3",
        {**LLAMA, "head_dim": 8, "tie_word_embeddings": True, "rope_parameters": PLAIN},
    ),
    "qwen3_windows": (
        "Qwen3",
        {
            **LLAMA,
            "head_dim": 8,
            "use_sliding_window": True,
            "sliding_window": 5,
            "max_window_layers": 1,
            "rope_parameters": PLAIN,
        },
    ),
    "gemma2": (
        "Gemma2",
        {
            **LLAMA,
            "head_dim": 8,
            "query_pre_attn_scalar": 7,
            "sliding_window": 5,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 4.0,
            "tie_word_embeddings": True,
            "rope_parameters": PLAIN,
        },
    ),
}

LINEAR = {"type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": None}
SPARSE = (
    ("gpt2", {}),
    ("gpt2", {"n_embd": 48, "n_inner": None}),
    ("llama", {}),
    ("llama", {"num_attention_heads": 8, "num_key_value_heads": None, "head_dim": None}),
    ("llama", {"rope_theta": 500.0, "rope_scaling": LINEAR}),
    ("llama", {"rope_theta": 500.0, "rope_parameters": {"rope_type": "default"}}),
    ("llama", {"rope_theta": 500.0, "rope_parameters": PLAIN}),
    ("llama", {"rope_scaling": LINEAR, "rope_parameters": PLAIN}),
    ("llama", {"max_position_embeddings": 640, "rope_scaling": YARN}),
    ("mistral", {}),
    ("mistral", {"sliding_window": None}),
    ("qwen3", {}),
    ("qwen3", {"sliding_window": 7, "max_window_layers": 2}),
    ("qwen3", {"use_sliding_window": True}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0}),
    ("qwen3", {"use_sliding_window": True, "sliding_window": None, "num_key_value_heads": None}),
    ("gemma2", {}),
    ("gemma2", {"num_hidden_layers": 3, "sliding_window": 9}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
)


def fill(family: str, given: dict) -> dict:
    """What the library makes of settings."""
    config = transformers.AutoConfig.for_model(family, **copy.deepcopy(given)).to_dict()
    return {"family": family, "given": given, "filled": config}


def make(name: str) -> None:
    family, options = FAMILIES[name]
    options = {**options, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = getattr(transformers, f"{family}Config")(**options, attn_implementation="eager")
    head = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    torch.manual_seed(len(name))
    model = getattr(transformers, f"{family}{head}")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases too, and large enough to matter
            parameter.add_(0.15 * torch.randn_like(parameter))
    model.save_pretrained(HERE / name)
    for extra in (HERE / name).glob("generation_config.json"):
        extra.unlink()
    tokens = torch.randint(61, (2, 13))
    with torch.no_grad():
        logits, greedy = model(tokens).logits, tokens
        for _ in range(12):
            said = model(greedy).logits[:, -1].argmax(-1, keepdim=True)
            greedy = torch.cat([greedy, said], 1)
    np.savez_compressed(
        HERE / name / "expected.npz",
        tokens=tokens.numpy().astype(np.int32),
        logits=logits.numpy(),
        greedy=greedy.numpy().astype(np.int32),
    )


if __name__ == "__main__":
    wanted = sys.argv[1:] or [*FAMILIES, "defaults"]
    for name in wanted:
        if name != "defaults":
            make(name)
    if "defaults" in wanted:
        lines = ",\n".join(json.dumps(fill(family, given)) for family, given in SPARSE)
        (HERE / "defaults.json").write_text(f"[\n{lines}\n]\n")
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=1) + "\n")
