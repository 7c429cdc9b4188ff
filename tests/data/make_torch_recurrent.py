"""Writes torch_recurrent.npz: what torch's GRU and LSTM make of a sequence (needs torch).

python tests/data/make_torch_recurrent.py

Both run in both directions, in float64. No parameter is special: all biases are drawn, with few
bits.
"""

from pathlib import Path

import numpy as np
import torch

INPUT, HIDDEN, LENGTH = 2, 3, 6
NETWORKS = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def drawn(rng: np.random.Generator, *shape: int) -> torch.Tensor:
    """Normal numbers in sixty-fourths, so that they are the same in any dtype and pack well."""
    return torch.tensor(np.round(rng.normal(size=shape) * 0.7 * 64) / 64)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    inputs = drawn(rng, LENGTH, INPUT)
    golden = {"inputs": inputs.float().numpy()}
    for name, network in NETWORKS.items():
        model = network(INPUT, HIDDEN, bidirectional=True).double()
        for key, parameter in model.named_parameters():
            parameter.data = drawn(rng, *parameter.shape)
            golden[f"{name}.{key}"] = parameter.detach().float().numpy()
        with torch.no_grad():
            golden[f"{name}.outputs"] = model(inputs)[0].numpy()
    golden["made by"] = np.array(f"{Path(__file__).name}, torch {torch.__version__}")
    np.savez_compressed(Path(__file__).with_name("torch_recurrent.npz"), **golden)
