"""Where a training state and its batches lie: on one device, or spread over a mesh of them.

Parameters lie as `attn_jax.modules.sharding_rules` says, the optimiser's state beside them, and the
rows of a batch along data and fsdp; XLA adds what devices must tell each other (GSPMD, Xu et al.
2021, https://arxiv.org/abs/2105.04663). The numbers are those of one device, up to rounding.
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

ROWS = ("data", "fsdp")  # the axes of the mesh that share a batch


@dataclass(frozen=True, kw_only=True)
class MeshSizes:
    """How many devices along each axis of the mesh; their product is how many are used.

    Attributes:
      data: copies of the model, each with its rows of the batch.
      tensor: parts of heads and hidden units.
      fsdp: parts of the model's width, which share the batch too.

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
        """How many devices the mesh has."""
        return self.data * self.tensor * self.fsdp

    def __str__(self) -> str:
        return f"mesh.data={self.data}, mesh.tensor={self.tensor}, mesh.fsdp={self.fsdp}"


class OneDevice:
    """Everything on the default device."""

    def shardings(self, state: PyTree) -> Any:
        """Where the leaves of a state lie, for `jax.jit`; None leaves it to JAX."""
        return None

    def outputs(self, state: PyTree) -> Any:
        """Where the results of an update lie: the state and what was measured."""
        return None

    def placed(self, state: PyTree) -> PyTree:
        """Shapes that say where a state lies."""
        return state

    def batch(self, batch: PyTree) -> PyTree:
        """A batch of the host, on the devices."""
        return batch

    def whole(self, tree: PyTree) -> PyTree:
        """The tree on one device, in every process."""
        return tree


@dataclass(frozen=True)
class OnMesh(OneDevice):
    """Everything on a mesh, by the logical names of its axes.

    Attributes:
      mesh: of devices, of this process and of others.
      rules: on which axis of the mesh each logical axis lies.
    """

    mesh: Mesh
    rules: tuple[tuple[str, Any], ...]

    def shardings(self, state: PyTree) -> Any:
        with nnx.logical_axis_rules(self.rules):
            return nnx.get_named_sharding(state, self.mesh)

    def outputs(self, state: PyTree) -> Any:
        return self.shardings(state), self._lies()

    def placed(self, state: PyTree) -> PyTree:
        def place(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(place, state, self.shardings(state))

    def batch(self, batch: PyTree) -> PyTree:
        """Every process has read the whole batch, and keeps the rows of its own devices.

        Rows that cannot be shared evenly, at the end of a validation, lie whole on each device.
        """

        def spread(leaf: np.ndarray) -> jax.Array:
            parts = int(np.prod([self.mesh.shape[axis] for axis in ROWS]))
            where = self._lies(ROWS) if len(leaf) % parts == 0 else self._lies()
            return jax.make_array_from_callback(leaf.shape, where, lambda part: leaf[part])

        return jax.tree.map(spread, batch)

    def whole(self, tree: PyTree) -> PyTree:
        gathered = jax.jit(lambda tree: tree, out_shardings=self._lies())(tree)
        return jax.tree.map(lambda leaf: leaf.addressable_data(0), gathered)

    def _lies(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def placement(sizes: MeshSizes, config: DecoderConfig, batch_size: int) -> OneDevice:
    """Where a language model of these sizes lies on the devices that there are.

    A vocabulary, or fewer key heads, that the devices along `tensor` cannot share evenly lie whole
    on each of them.

    Raises:
      ValueError: the devices are too few, or cannot share heads, widths or rows evenly.
    """
    _check_devices(sizes)
    if sizes.devices == 1:
        return OneDevice()
    hidden = 4 * config.model_dim if config.hidden_dim is None else config.hidden_dim
    _check_shares("sizes.num_heads", config.num_heads, "mesh.tensor", sizes.tensor)
    _check_shares("sizes.hidden_dim", hidden, "mesh.tensor", sizes.tensor)
    _check_shares("sizes.model_dim", config.model_dim, "mesh.fsdp", sizes.fsdp)
    _check_shares("train.batch_size", batch_size, "mesh.data · mesh.fsdp", sizes.data * sizes.fsdp)
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
            f"{sizes} need {sizes.devices} devices and {there} are here; lower them, or make a CPU "
            f"count as several: XLA_FLAGS=--xla_force_host_platform_device_count={sizes.devices}"
        )
    if processes > 1 and sizes.devices != there:
        raise ValueError(
            f"{sizes} use {sizes.devices} of the {there} devices of {processes} processes, which "
            f"must all be used; pass --mesh.data {there}"
        )


def _check_shares(name: str, size: int, axis: str, parts: int) -> None:
    if size % parts:
        raise ValueError(f"{name}={size} must be a multiple of {axis}={parts}; change either")
