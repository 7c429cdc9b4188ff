"""Writes torch_transformer.npz: what torch's nn.Transformer makes of a few tokens (needs torch).

python tests/data/make_torch_transformer.py

Beside torch's two stacks there are the paper's embeddings and positions (Vaswani et al. 2017,
sections 3.4 and 3.5). No parameter is special: biases and norms are drawn too, all with few bits.
"""

import math
from pathlib import Path

import numpy as np
import torch

DIM, HEADS, LAYERS, HIDDEN = 12, 3, 2, 20
SOURCE_VOCAB, TARGET_VOCAB = 11, 9
SOURCE = [[4, 10, 7, 5, 8, 2, 0], [9, 3, 2, 0, 0, 0, 0]]  # 0 is padding
INPUTS = [[1, 5, 8, 6, 7], [1, 4, 4, 3, 0]]
PLACEMENTS = {"post": False, "pre": True}  # norm_first


def drawn(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Normal numbers in sixty-fourths, so that they are the same in any dtype and pack well."""
    return torch.tensor(np.round(rng.normal(size=shape) * 0.4 * 64) / 64)


def stacks(norm_first: bool) -> torch.nn.Transformer:
    """Both stacks in float64, with drawn parameters."""
    model = torch.nn.Transformer(
        DIM, HEADS, LAYERS, LAYERS, HIDDEN, 0.0, batch_first=True, norm_first=norm_first
    ).double()
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        values = drawn(rng, *parameter.shape)
        parameter.data = values + 1 if "norm" in name and "weight" in name else values
    return model.eval()


def placed(table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """√D times the rows of the tokens, plus sines and cosines."""
    frequency = 10_000 ** -(torch.arange(0, DIM, 2).double() / DIM)
    angle = torch.arange(tokens.shape[1])[:, None] * frequency
    position = torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(-1, DIM)
    return table[tokens] * math.sqrt(DIM) + position


def logits(
    model: torch.nn.Transformer, tables: dict[str, torch.Tensor], source, inputs
) -> torch.Tensor:
    """Teacher forcing; the target's table reads and writes."""
    source, inputs = torch.tensor(source), torch.tensor(inputs)
    hidden = source == 0
    out = model(
        placed(tables["source"], source),
        placed(tables["target"], inputs),
        tgt_mask=torch.ones(inputs.shape[1], inputs.shape[1]).triu(1).bool(),
        src_key_padding_mask=hidden,
        memory_key_padding_mask=hidden,
    )
    return out @ tables["target"].T


def tables() -> dict[str, torch.Tensor]:
    """The embeddings of both languages."""
    rng = np.random.default_rng(1)
    return {"source": drawn(rng, SOURCE_VOCAB, DIM), "target": drawn(rng, TARGET_VOCAB, DIM)}


if __name__ == "__main__":
    golden = {f"table.{name}": table.float().numpy() for name, table in tables().items()}
    golden |= {"source": np.array(SOURCE), "inputs": np.array(INPUTS)}
    for placement, norm_first in PLACEMENTS.items():
        torch_model = stacks(norm_first)
        with torch.no_grad():
            golden[f"{placement}.logits"] = logits(torch_model, tables(), SOURCE, INPUTS).numpy()
        for name, parameter in torch_model.state_dict().items():
            golden[name] = parameter.float().numpy()  # the same for both placements
    golden["made by"] = np.array(f"{Path(__file__).name}, torch {torch.__version__}")
    np.savez_compressed(Path(__file__).with_name("torch_transformer.npz"), **golden)
