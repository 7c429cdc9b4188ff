"""A model as a folder that `transformers` reads."""

import json
from pathlib import Path

from flax import nnx

from attn_jax.models.checkpoints import _files
from attn_jax.models.checkpoints._configs import with_origin, write_config
from attn_jax.models.checkpoints._names import tensors, to_file
from attn_jax.models.gpt import GPT


def save_hf(model: GPT, path: str | Path) -> None:
    """Writes config.json and model.safetensors, which `transformers` and `load_hf` read.

    The format is https://huggingface.co/docs/safetensors. What `load_hf` found beside them is
    written again: tokenizer, chat template, generation_config.json, and in config.json the ids that
    begin and end texts. It is `model.origin`; give it to a model that goes on from a loaded one.

    Args:
      model: the model; its configuration must be one that a known architecture has.
      path: the folder; it is made where it is not there.

    Returns:
      Nothing.

    Raises:
      ValueError: no known architecture computes what the model does.
      ImportError: safetensors is not installed.

    Numerics:
      Tensors are written in the dtype of their parameters. Norms, which are float32 here, are
      written in that of the embeddings where this costs no bit: 16 bits loaded and saved again are
      the same file. Gemma's, kept as 1 + w, are the same for |w| ≥ 2⁻¹⁶ (float16: 2⁻¹³).

    Cost:
      All parameters in memory once more. Files appear whole, the weights before the configuration.

    Example:
      See `load_hf`; where no architecture fits, this says so:

      >>> from attn_jax.models import DecoderConfig, GPT, save_hf
      >>> relu = DecoderConfig(7, 8, 1, 2, max_length=9, activation="relu")
      >>> try:
      ...     save_hf(GPT(relu, rngs=nnx.Rngs(0)), "nowhere")
      ... except ValueError as error:
      ...     print(str(error).split(" (")[0])
      no known architecture computes what this configuration asks for
    """
    family, config = write_config(model.config)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    state = nnx.to_flat_state(nnx.state(model, nnx.Param))
    parameters = {".".join(map(str, key)): leaf[...] for key, leaf in state}
    dtype = parameters["embedding.table"].dtype
    written = {t.name: to_file(parameters, t, dtype) for t in tensors(family, model.config)}
    _files.write(folder / _files.SINGLE, written)
    if model.origin is not None:
        model.origin.write(folder)
        config = with_origin(family, config, model.origin.config)
    spellings = [key for key in ("dtype", "torch_dtype") if key in config] or ["dtype"]
    text = json.dumps({**config, **dict.fromkeys(spellings, str(dtype))}, indent=2) + "\n"
    _files.write_whole(folder / "config.json", text.encode())
