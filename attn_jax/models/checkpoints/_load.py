"""A checkpoint of Hugging Face as a model, tensor by tensor into the place where it shall be."""

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
    """A GPT-2, Llama, Mistral, Qwen3 or Gemma 2 from the folder that `transformers` saved it to.

    The format is https://huggingface.co/docs/safetensors. Nothing is unpickled, no code of the
    folder runs, and what is not known is refused by name. docs/checkpoints.md is its guide.

      config.json → DecoderConfig        model.safetensors, or the files of its index → parameters

    Args:
      path: the folder.
      dtype: in which matrices and embeddings are kept; the file's by default. Norms are float32.
      sharding: where parameters go: a mesh, over which they are spread by `sharding_rules` along
        the axes that it divides, or one sharding for all of them; the default device by default.

    Returns:
      The model, equal to the one that was saved. Its `origin` has what else the folder holds for
      `transformers`, such as the tokenizer, for `save_hf` to write again.

    Raises:
      FileNotFoundError: the folder lacks config.json or safetensors.
      ValueError: the architecture or one of its settings is not known; a tensor is missing, is one
        too many, is there twice, has another shape, or is no floating point; a file is damaged or
        is a pickle; the dtype is none of float32, bfloat16, float16 and float64.
      ImportError: safetensors is not installed.

    Cost:
      Files are mapped: beside the model there is one tensor at a time, and with `sharding` one
      shard, which goes from the file to its device.

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
    files = _present(folder, family, wanted)
    places = _places(flat, state, sharding)
    arrays: dict[str, jax.Array] = {}
    for tensor in wanted:
        for name, part in _parts(files[tensor.name], tensor, shapes).items():
            kept = _kept_dtype(name, files[tensor.name], part.dtype, dtype)
            arrays[name] = _placed(part, kept, places[name])
    filled = [
        (key, leaf.replace(arrays[".".join(map(str, key))]))
        for key, leaf in nnx.to_flat_state(state)
    ]
    model = nnx.merge(graph, nnx.from_flat_state(filled))
    model.origin = Origin.of(folder)
    return model


def _present(folder: Path, family: str, wanted: list[Tensor]) -> dict[str, _files.Stored]:
    """Where each tensor lies, under its full name.

    Raises:
      ValueError: one is missing, or is not known.
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
            f"{files[extra[0]].file} has the tensor {extra[0]}, which {family} has no place for "
            f"({len(extra)} such); its config.json may be another model's"
        )
    return files


def _check_copy(head: _files.Stored, table: _files.Stored | None) -> None:
    """Tied tables are one; a file may have a copy for the output, if it is one."""
    if table is not None and (
        head.shape != table.shape or not np.array_equal(_files.view(head), _files.view(table))
    ):
        raise ValueError(
            f"{head.file}: {head.name} is not {table.name}, but config.json says that they are one "
            "(tie_word_embeddings); where it leaves that out, write false"
        )


def _parts(stored: _files.Stored, tensor: Tensor, shapes: dict) -> dict[str, np.ndarray]:
    """The parameters in a tensor, as views of the file."""
    wanted = shape_in_file(tensor, shapes)
    if stored.shape != wanted:
        raise ValueError(
            f"{stored.file}: {tensor.name} must have shape {list(wanted)} by config.json; got "
            f"{list(stored.shape)}"
        )
    return from_file(_files.view(stored), tensor, shapes)


def _placed(part: np.ndarray, dtype: np.dtype, place: Sharding | None) -> jax.Array:
    """A copy where it belongs; each device gets its own share of the file and no more."""
    if place is None:
        return jax.device_put(np.array(part, dtype, order="C"))
    return jax.make_array_from_callback(
        part.shape, place, lambda index: np.array(part[index], dtype, order="C")
    )


def _kept_dtype(
    name: str, stored: _files.Stored, own: np.dtype, asked: DTypeLike | None
) -> np.dtype:
    if name.endswith((".scale", ".bias")):
        return np.dtype(np.float32)
    if asked is None and not _is_whole(own):
        raise ValueError(
            f"{stored.file}: {stored.name} is float64, which needs jax_enable_x64; pass "
            "dtype=jnp.float32 to narrow it"
        )
    return np.dtype(own if asked is None else asked)


def _check_dtype(dtype: DTypeLike) -> None:
    try:
        is_known = np.dtype(dtype).name in _FLOATS
    except TypeError:
        is_known = False
    if not is_known:
        raise ValueError(f"dtype must be {', '.join(_FLOATS)} or None; got {dtype}")
    if not _is_whole(np.dtype(dtype)):
        raise ValueError("dtype=float64 needs jax_enable_x64; pass dtype=jnp.float32")


def _is_whole(dtype: np.dtype) -> bool:
    """Whether JAX keeps it as it is; float64 only where it is told to."""
    return jax.dtypes.canonicalize_dtype(dtype) == dtype


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
