"""`save_hf`: writes a `GPT` as a folder that `transformers` reads."""

import json
from pathlib import Path

from flax import nnx

from attn_jax.models.checkpoints import _files
from attn_jax.models.checkpoints._configs import with_origin, write_config
from attn_jax.models.checkpoints._names import tensors, to_file
from attn_jax.models.gpt import GPT


def save_hf(model: GPT, path: str | Path) -> None:
    """Writes config.json and model.safetensors, which `transformers` and `load_hf` read.

    The format is https://huggingface.co/docs/safetensors. The other files that `load_hf` found are
    written again: tokenizer, chat template, generation_config.json, and in config.json the ids of
    special tokens. They are `model.origin`; assign it to a model that you made from a loaded one.

    Args:
      model: the model; its configuration must be that of a known architecture.
      path: the folder; it is made if it does not exist.

    Returns:
      Nothing.

    Raises:
      ValueError: no known architecture computes what the model does.
      ImportError: safetensors is not installed.

    Numerics:
      Tensors are written in the dtype of their parameters. Norms, which are float32 here, are
      written in the dtype of the embeddings where that is exact: 16-bit weights that are loaded and
      saved again give the same file. Gemma's norms, kept as 1 + w, are exact for |w| ≥ 2⁻¹⁶
      (float16: 2⁻¹³).

    Cost:
      All parameters in memory once more. Files are written atomically, config.json last.

    Example:
      See `load_hf`. A configuration that no architecture computes raises ValueError:

      >>> from attn_jax.models import DecoderConfig, GPT, save_hf
      >>> relu = DecoderConfig(7, 8, 1, 2, max_length=9, activation="relu")
      >>> try:
      ...     save_hf(GPT(relu, rngs=nnx.Rngs(0)), "nowhere")
      ... except ValueError as error:
      ...     print(str(error).split(" (")[0])
      no known architecture computes this configuration
    """
    family, config = write_config(model.config)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    parameters = {".".join(map(str, key)): leaf[...] for key, leaf in state}
    dtype = parameters["embedding.table"].dtype
    written = {t.name: to_file(parameters, t, dtype) for t in tensors(family, model.config)}
    _files.write_tensors(folder / _files.SINGLE, written)
    if model.origin is not None:
        model.origin.write(folder)
        config = with_origin(family, config, model.origin.config)
    spellings = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    text = json.dumps({**config, **dict.fromkeys(spellings, str(dtype))}, indent=2) + "\n"
    _files.write_bytes(folder / "config.json", text.encode())
