"""A checkpoint of Hugging Face as a model, tensor by tensor into the place where it shall be."""

import math
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import DTypeLike

from attn_jax.models.checkpoints import _files
from attn_jax.models.checkpoints._configs import read_config
from attn_jax.models.checkpoints._names import Tensor, from_file, shape_in_file, tensors
from attn_jax.models.gpt import GPT
from attn_jax.modules import sharding_rules

# Masks and frequencies that older files keep beside the weights.
_BUFFERS = re.compile(r"\.attn\.(masked_)?bias$|\.rotary_emb\.inv_freq$")
_PREFIXES = {"gpt2": "transformer."}


def load_hf(
    path: str | Path,
    *,
    dtype: DTypeLike | None = None,
    sharding: Mesh | Sharding | None = None,
) -> GPT:
    """A GPT-2, Llama, Mistral, Qwen3 or Gemma 2 from the folder that `transformers` saved it to.

    The format is https://huggingface.co/docs/safetensors. Nothing is unpickled, no code of the
    folder runs, and what is not known is refused by name.

      config.json → DecoderConfig        model.safetensors, or the files of its index → parameters

    Args:
      path: the folder.
      dtype: in which matrices and embeddings are kept; the file's by default. Norms are float32.
      sharding: where parameters go: a mesh, over which they are spread by `sharding_rules` along
        the axes that it divides, or one sharding for all of them; the default device by default.

    Returns:
      The model, equal to the one that was saved.

    Raises:
      FileNotFoundError: the folder lacks config.json or safetensors.
      ValueError: the architecture or one of its settings is not known; a tensor is missing, is one
        too many, or has another shape; a file is damaged or is a pickle.
      ImportError: safetensors is not installed.

    Cost:
      Files are mapped: beside the model there is one tensor at a time.

    Example:
      >>> import pathlib, tempfile
      >>> from attn_jax.models import DecoderConfig, GPT, load_hf, save_hf
      >>> config = DecoderConfig(vocab_size=7, model_dim=8, num_layers=2, num_heads=2, max_length=9)
      >>> model = GPT(config, rngs=nnx.Rngs(0))
      >>> folder = pathlib.Path(tempfile.mkdtemp()) / "model"
      >>> save_hf(model, folder)
      >>> tokens = jnp.array([[3, 1, 4]])
      >>> bool(jnp.array_equal(load_hf(folder)(tokens), model(tokens)))
      True
    """
    folder = Path(path)
    family, config = read_config(_files.read_json(folder / "config.json"))
    abstract = nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(abstract)
    flat = {".".join(map(str, key)): leaf for key, leaf in nnx.to_flat_state(state)}
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    wanted = tensors(family, config)
    files = _present(folder, family, wanted)
    places = _places(flat, state, sharding)
    arrays: dict[str, jax.Array] = {}
    for file in sorted(set(files.values())):
        with _files.opened(file) as opened:
            for tensor in (t for t in wanted if files[t.name] == file):
                array = np.asarray(opened.get_tensor(_spelled(opened, tensor.name, family)))
                for name, part in _checked(array, tensor, shapes, file).items():
                    kept = _kept_dtype(name, part.dtype, dtype)
                    arrays[name] = jax.device_put(jnp.asarray(part, kept), places[name])
    filled = [
        (key, leaf.replace(arrays[".".join(map(str, key))]))
        for key, leaf in nnx.to_flat_state(state)
    ]
    return nnx.merge(graph, nnx.from_flat_state(filled))


def _present(folder: Path, family: str, wanted: list[Tensor]) -> dict[str, Path]:
    """The file of each tensor, under its full name.

    Raises:
      ValueError: one is missing, or is not known.
    """
    prefix = _PREFIXES.get(family, "")
    files = {}
    for name, file in _files.weight_files(folder).items():
        if not _BUFFERS.search(name):
            short = prefix and not name.startswith((prefix, "lm_head."))
            files[prefix + name if short else name] = file
    names = {tensor.name for tensor in wanted}
    if "lm_head.weight" not in names:
        files.pop("lm_head.weight", None)  # a copy of the tied table
    if missing := sorted(names - set(files)):
        raise ValueError(f"{folder} lacks the tensor {missing[0]} ({len(missing)} are missing)")
    if extra := sorted(set(files) - names):
        raise ValueError(
            f"{files[extra[0]]} has the tensor {extra[0]}, which {family} has no place for "
            f"({len(extra)} such); its config.json may be another model's"
        )
    return files


def _spelled(opened: Any, name: str, family: str) -> str:
    """The name as this file has it, which may lack the prefix."""
    return name if name in opened.keys() else name.removeprefix(_PREFIXES.get(family, ""))  # noqa: SIM118


def _checked(array: np.ndarray, tensor: Tensor, shapes: dict, file: Path) -> dict[str, np.ndarray]:
    wanted = shape_in_file(tensor, shapes)
    if array.shape != wanted:
        raise ValueError(
            f"{file}: {tensor.name} must have shape {list(wanted)} by config.json; got "
            f"{list(array.shape)}"
        )
    return from_file(array, tensor, shapes)


def _kept_dtype(name: str, own: DTypeLike, asked: DTypeLike | None) -> DTypeLike:
    is_norm = name.endswith((".scale", ".bias"))
    return jnp.float32 if is_norm else own if asked is None else asked


def _places(flat: dict, state: Any, sharding: Mesh | Sharding | None) -> dict[str, Sharding | None]:
    """Where each parameter goes."""
    if not isinstance(sharding, Mesh):
        return dict.fromkeys(flat, sharding)
    with nnx.logical_axis_rules(sharding_rules(sharding)):
        named = nnx.get_named_sharding(state, sharding)
    places = {".".join(map(str, key)): leaf.get_value() for key, leaf in nnx.to_flat_state(named)}
    return {name: _even(place, flat[name].shape) for name, place in places.items()}


def _even(place: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """Whole along axes that do not divide: vocabularies seldom do."""
    spec = [*place.spec, *[None] * (len(shape) - len(place.spec))]
    for axis, (names, size) in enumerate(zip(spec, shape, strict=True)):
        names = names if isinstance(names, tuple) else (names,)
        if size % math.prod(place.mesh.shape[name] for name in names if name is not None):
            spec[axis] = None
    return NamedSharding(place.mesh, PartitionSpec(*spec))
