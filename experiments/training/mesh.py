"""The placement of a training state and its batches: on one device, or sharded over a mesh.

`attn_jax.modules.sharding_rules` shards the parameters, the optimiser state has the same shardings,
and batches are sharded over data and fsdp. XLA adds the communication (GSPMD, Xu et al. 2021,
https://arxiv.org/abs/2105.04663). Results equal those of one device up to rounding.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from attn_jax.models import DecoderConfig
from attn_jax.modules import sharding_rules

BATCH_AXES = ("data", "fsdp")  # the mesh axes over which a batch is sharded


@dataclass(frozen=True, kw_only=True)
class MeshSizes:
    """The number of devices along each axis of the mesh; their product is the number of devices.

    Attributes:
      data: the number of copies of the model, each with a part of the batch.
      tensor: the number of parts of heads and hidden units.
      fsdp: the number of parts of the model's width; the batch is sharded over this axis, too.

    Example:
      >>> MeshSizes(data=2, tensor=4).devices
      8
    """

    data: int = 1
    tensor: int = 1
    fsdp: int = 1

    def __post_init__(self) -> None:
        for name, size in dataclasses.asdict(self).items():
            if size < 1:
                raise ValueError(f"mesh.{name} must be at least 1; got {size}")

    @property
    def devices(self) -> int:
        """The number of devices in the mesh."""
        return self.data * self.tensor * self.fsdp

    def __str__(self) -> str:
        return f"mesh.data={self.data}, mesh.tensor={self.tensor}, mesh.fsdp={self.fsdp}"


class OneDevice:
    """Everything on the default device."""

    def shardings(self, state: PyTree) -> Any:
        """The shardings of a state, for `jax.jit`; None leaves them to JAX."""
        return None

    def outputs(self, state: PyTree) -> Any:
        """The shardings of an update's results, the state and the measurements."""
        return None

    def placed(self, state: PyTree) -> PyTree:
        """The shapes of a state with their shardings."""
        return state

    def batch(self, batch: PyTree) -> PyTree:
        """A batch, moved from the host to the devices."""
        return batch

    def gather(self, tree: PyTree) -> PyTree:
        """A copy of the tree on one device of each process."""
        return tree


@dataclass(frozen=True)
class OnMesh(OneDevice):
    """Everything sharded over a mesh by logical axis names.

    Attributes:
      mesh: of the devices of all processes.
      rules: the mesh axis of each logical axis.
    """

    mesh: Mesh
    rules: tuple[tuple[str, Any], ...]

    def shardings(self, state: PyTree) -> Any:
        with nnx.logical_axis_rules(self.rules):
            return nnx.get_named_sharding(state, self.mesh)

    def outputs(self, state: PyTree) -> Any:
        return self.shardings(state), self._sharding()

    def placed(self, state: PyTree) -> PyTree:
        def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(place, state, self.shardings(state))

    def batch(self, batch: PyTree) -> PyTree:
        """Each process has the whole batch and keeps the examples of its own devices.

        A batch that cannot be divided evenly, at the end of a validation, is replicated.
        """

        def spread(leaf: np.ndarray) -> jax.Array:
            parts = int(np.prod([self.mesh.shape[axis] for axis in BATCH_AXES]))
            where = self._sharding(BATCH_AXES) if len(leaf) % parts == 0 else self._sharding()
            return jax.make_array_from_callback(leaf.shape, where, lambda part: leaf[part])

        return jax.tree.map(spread, batch)

    def gather(self, tree: PyTree) -> PyTree:
        gathered = jax.jit(lambda tree: tree, out_shardings=self._sharding())(tree)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), gathered)

    def _sharding(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def placement(sizes: MeshSizes, config: DecoderConfig, batch_size: int) -> OneDevice:
    """The placement of a language model on the available devices.

    The vocabulary and the key/value heads are replicated if `tensor` does not divide their number.

    Raises:
      ValueError: there are too few devices, or heads, widths or the batch are not divisible.
    """
    _check_devices(sizes)
    if sizes.devices == 1:
        return OneDevice()
    hidden = 4 * config.model_dim if config.hidden_dim is None else config.hidden_dim
    _check_divisible("sizes.num_heads", config.num_heads, "mesh.tensor", sizes.tensor)
    _check_divisible("sizes.hidden_dim", hidden, "mesh.tensor", sizes.tensor)
    _check_divisible("sizes.model_dim", config.model_dim, "mesh.fsdp", sizes.fsdp)
    _check_divisible(
        "train.batch_size", batch_size, "mesh.data · mesh.fsdp", sizes.data * sizes.fsdp
    )
    axes = dataclasses.asdict(sizes)
    mesh = jax.make_mesh(
        tuple(axes.values()),
        tuple(axes),
        axis_types=(AxisType.Auto,) * len(axes),
        devices=jax.devices()[: sizes.devices],
    )
    split = {"vocab": config.vocab_size, "kv_heads": config.kv_heads}
    whole = {name: None for name, size in split.items() if size % sizes.tensor}
    return OnMesh(mesh, sharding_rules(mesh, **whole))


def _check_devices(sizes: MeshSizes) -> None:
    there, processes = jax.device_count(), jax.process_count()
    if sizes.devices > there:
        raise ValueError(
            f"{sizes} need {sizes.devices} devices and there are {there}; lower them, or split the "
            f"CPU into several: XLA_FLAGS=--xla_force_host_platform_device_count={sizes.devices}"
        )
    if processes > 1 and sizes.devices != there:
        raise ValueError(
            f"{sizes} use {sizes.devices} of the {there} devices of {processes} processes, which "
            f"must all be used; pass --mesh.data {there}"
        )


def _check_divisible(name: str, size: int, axis: str, parts: int) -> None:
    if size % parts:
        raise ValueError(f"{name}={size} must be a multiple of {axis}={parts}; change either")
