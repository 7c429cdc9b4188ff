"""`load_hf`: loads a Hugging Face checkpoint, tensor by tensor, onto its devices."""

import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import DTypeLike

from attn_jax.models.checkpoints import _files
from attn_jax.models.checkpoints._configs import read_config
from attn_jax.models.checkpoints._names import Tensor, from_file, shape_in_file, tensors
from attn_jax.models.checkpoints._origin import Origin
from attn_jax.models.gpt import GPT
from attn_jax.modules import sharding_rules

# Masks and frequencies that older files keep beside the weights.
_BUFFERS = re.compile(r"\.attn\.(masked_)?bias$|\.rotary_emb\.inv_freq$")
_PREFIXES = {"gpt2": "transformer."}
_HEAD = "lm_head.weight"
_FLOATS = ("float32", "bfloat16", "float16", "float64")


def load_hf(
    path: str | Path,
    *,
    dtype: DTypeLike | None = None,
    sharding: Mesh | Sharding | None = None,
) -> GPT:
    """Loads a GPT-2, Llama, Mistral, Qwen3 or Gemma 2 from a folder saved by `transformers`.

    The format is https://huggingface.co/docs/safetensors. Nothing is unpickled and no code of the
    folder runs. Unknown settings and tensors raise a ValueError that names them. See
    docs/checkpoints.md.

      config.json → DecoderConfig        model.safetensors, or the files of its index → parameters

    Args:
      path: the folder.
      dtype: of matrices and embeddings; the file's by default. Norms are float32.
      sharding: where parameters go: a mesh, over which `sharding_rules` shard them along the axes
        that it divides; or one sharding for all of them; the default device by default.

    Returns:
      The model, equal to the one that was saved. Its `origin` holds the folder's other files, such
      as the tokenizer, for `save_hf` to write again.

    Raises:
      FileNotFoundError: the folder lacks config.json or safetensors.
      ValueError: the architecture or one of its settings is unknown; a tensor is missing,
        unexpected, duplicated, of another shape, or not floating point; a file is damaged or is a
        pickle; the dtype is none of float32, bfloat16, float16 and float64.
      ImportError: safetensors is not installed.

    Cost:
      Files are memory-mapped: beside the model, memory holds one tensor at a time, or with
      `sharding` one shard, which is copied from the file to its device.

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
    if dtype is not None:
        _check_dtype(dtype)
    if sharding is not None and not isinstance(sharding, Mesh | Sharding):
        raise ValueError(
            f"sharding must be a Mesh or a Sharding; got {type(sharding).__name__}: for one device "
            "pass jax.sharding.SingleDeviceSharding(device)"
        )
    folder = Path(path)
    family, config = read_config(_files.read_json(folder / "config.json"))
    abstract = nnx.eval_shape(lambda: GPT(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(abstract)
    flat = {".".join(map(str, key)): leaf for key, leaf in nnx.to_flat_state(state)}
    shapes = {name: leaf.shape for name, leaf in flat.items()}
    wanted = tensors(family, config)
    files = _stored_tensors(folder, family, wanted)
    shardings = _shardings(flat, state, sharding)
    arrays: dict[str, jax.Array] = {}
    for tensor in wanted:
        for name, part in _parameters(files[tensor.name], tensor, shapes).items():
            kept = _parameter_dtype(name, files[tensor.name], part.dtype, dtype)
            arrays[name] = _put(part, kept, shardings[name])
    filled = [
        (key, leaf.replace(arrays[".".join(map(str, key))]))
        for key, leaf in nnx.to_flat_state(state)
    ]
    model = nnx.merge(graph, nnx.from_flat_state(filled))
    model.origin = Origin.of(folder)
    return model


def _stored_tensors(folder: Path, family: str, wanted: list[Tensor]) -> dict[str, _files.Stored]:
    """The wanted tensors in the folder's files, by full name.

    Raises:
      ValueError: one is missing, or there is one that is not wanted.
    """
    prefix = _PREFIXES.get(family, "")
    files = {}
    for name, stored in _files.weight_files(folder).items():
        if not _BUFFERS.search(name):
            short = prefix and not name.startswith((prefix, "lm_head."))
            full = prefix + name if short else name
            if full in files:
                raise ValueError(f"{folder} has both {full} and {name}; keep one of them")
            files[full] = stored
    names = {tensor.name for tensor in wanted}
    if _HEAD not in names and _HEAD in files:
        _check_copy(files.pop(_HEAD), files.get(wanted[0].name))
    if missing := sorted(names - set(files)):
        raise ValueError(f"{folder} lacks the tensor {missing[0]} ({len(missing)} are missing)")
    if extra := sorted(set(files) - names):
        raise ValueError(
            f"{files[extra[0]].file} has the tensor {extra[0]}, which {family} does not have "
            f"({len(extra)} such); config.json may belong to another model"
        )
    return files


def _check_copy(head: _files.Stored, table: _files.Stored | None) -> None:
    """Raises ValueError if a model has tied weights and the file's table for the logits differs."""
    if table is not None and (
        head.shape != table.shape or not np.array_equal(_files.view(head), _files.view(table))
    ):
        raise ValueError(
            f"{head.file}: {head.name} differs from {table.name}, but config.json ties them "
            "(tie_word_embeddings, by default or explicitly); set it to false to keep both"
        )


def _parameters(stored: _files.Stored, tensor: Tensor, shapes: dict) -> dict[str, np.ndarray]:
    """The parameters in a tensor, as views of the memory-mapped file."""
    wanted = shape_in_file(tensor, shapes)
    if stored.shape != wanted:
        raise ValueError(
            f"{stored.file}: {tensor.name} must have shape {list(wanted)} by config.json; got "
            f"{list(stored.shape)}"
        )
    return from_file(_files.view(stored), tensor, shapes)


def _put(part: np.ndarray, dtype: np.dtype, sharding: Sharding | None) -> jax.Array:
    """Copies a parameter to its devices; for each device only its shard is read."""
    if sharding is None:
        return jax.device_put(np.array(part, dtype, order="C"))
    return jax.make_array_from_callback(
        part.shape, sharding, lambda index: np.array(part[index], dtype, order="C")
    )


def _parameter_dtype(
    name: str, stored: _files.Stored, in_file: np.dtype, wanted: DTypeLike | None
) -> np.dtype:
    """The dtype of a parameter in the model: float32 for norms, else `wanted` or the file's."""
    if name.endswith((".scale", ".bias")):
        return np.dtype(np.float32)
    if wanted is None and not _is_enabled(in_file):
        raise ValueError(
            f"{stored.file}: {stored.name} is float64, which needs jax_enable_x64; pass "
            "dtype=jnp.float32 to round it"
        )
    return np.dtype(in_file if wanted is None else wanted)


def _check_dtype(dtype: DTypeLike) -> None:
    try:
        is_known = np.dtype(dtype).name in _FLOATS
    except TypeError:
        is_known = False
    if not is_known:
        raise ValueError(f"dtype must be {', '.join(_FLOATS)} or None; got {dtype}")
    if not _is_enabled(np.dtype(dtype)):
        raise ValueError("dtype=float64 needs jax_enable_x64; pass dtype=jnp.float32")


def _is_enabled(dtype: np.dtype) -> bool:
    """Whether JAX has arrays of the dtype; float64 needs jax_enable_x64."""
    return jax.dtypes.canonicalize_dtype(dtype) == dtype


def _shardings(
    flat: dict, state: Any, sharding: Mesh | Sharding | None
) -> dict[str, Sharding | None]:
    """The sharding of each parameter; None for the default device."""
    if not isinstance(sharding, Mesh):
        return dict.fromkeys(flat, sharding)
    with nnx.logical_axis_rules(sharding_rules(sharding)):
        named = nnx.get_named_sharding(state, sharding)
    shardings = {
        ".".join(map(str, key)): leaf.get_value() for key, leaf in nnx.to_flat_state(named)
    }
    return {name: _divisible(sharding, flat[name].shape) for name, sharding in shardings.items()}


def _divisible(sharding: NamedSharding, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding, replicated along axes that the mesh does not divide, such as vocabularies."""
    spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
    for axis, (names, size) in enumerate(zip(spec, shape, strict=True)):
        names = names if isinstance(names, tuple) else (names,)
        if size % math.prod(sharding.mesh.shape[name] for name in names if name is not None):
            spec[axis] = None
    return NamedSharding(sharding.mesh, PartitionSpec(*spec))
