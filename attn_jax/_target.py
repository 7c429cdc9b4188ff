"""The platform or device that a call is explained for, which need not be here."""

import contextlib
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

_PLATFORMS = ("cpu", "gpu", "tpu")


class Target(NamedTuple):
    """The platform, and the device, where one is named."""

    platform: str
    device: jax.Device | None


def target_of(device: jax.Device | str | None) -> Target:
    """The target that a device, the name of a platform, or None (the default backend) stands for.

    Raises:
      ValueError: the name is unknown.
    """
    if device is None:
        return Target(jax.default_backend(), None)
    if not isinstance(device, str):
        return Target(device.platform, device)
    if device not in _PLATFORMS:
        known = ", ".join(map(repr, _PLATFORMS))
        raise ValueError(f"device {device!r} is unknown; give a device or one of {known}")
    return Target(device, None)


def made_for(target: Target) -> contextlib.AbstractContextManager:
    """Inside of it programs are made for the device, which Pallas needs to know of a TPU."""
    if target.device is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(Mesh(np.array([target.device]), "device").abstract_mesh)


def temporary_bytes(function: Any, operands: Any, static: dict, target: Target) -> int | None:
    """What XLA allocates for a call, or None where no compiler for the platform reports it."""
    if target.device is not None:
        operands = jax.tree.map(functools.partial(_type_on, target.device), operands)
    elif target.platform != jax.default_backend():
        return None
    memory = function.lower(*operands, **static).compile().memory_analysis()
    return None if memory is None else memory.temp_size_in_bytes


def _type_on(device: jax.Device, array: jax.Array) -> jax.ShapeDtypeStruct:
    sharding = SingleDeviceSharding(device)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
