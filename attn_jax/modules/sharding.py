"""Maps the logical axes of parameters to mesh axes."""

from collections.abc import Mapping

from jax.sharding import AbstractMesh, Mesh

type MeshAxes = str | tuple[str, ...] | None

# The docstring of `sharding_rules` explains the names.
_MESH_AXES: Mapping[str, tuple[str, ...]] = {
    "batch": ("data", "fsdp"),
    "vocab": ("tensor",),
    "model": ("fsdp",),
    "features": (),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head": (),
    "hidden": ("tensor",),
    "layers": (),
}


def sharding_rules(
    mesh: Mesh | AbstractMesh, **overrides: MeshAxes
) -> tuple[tuple[str, MeshAxes], ...]:
    """Returns flax's logical axis rules, which shard the layers of `attn_jax.modules` over a mesh.

    Tensor parallelism as in Shoeybi et al., "Megatron-LM" (2019), section 3,
    https://arxiv.org/abs/1909.08053: heads and hidden units are sharded, the model's width is not,
    and a block has two all-reduces forward and two backward. Fully sharded data parallelism as in
    Rajbhandari et al., "ZeRO" (2020), stage 3, https://arxiv.org/abs/1910.02054: each matrix is
    also sharded along the model's width, and gathered where it is used.

      batch → (data, fsdp)    vocab, heads, kv_heads, hidden → tensor    model → fsdp
      features (vectors of the model's width), head (the width of a head), layers → not sharded

    Args:
      mesh: the mesh; of the axes "data", "tensor" and "fsdp" it has one or more.
      overrides: the mesh axis, axes or None for a logical name: `kv_heads=None` if there are fewer
        key/value heads than devices along "tensor".

    Returns:
      A pair (logical name, mesh axis) for each name, for `nnx.logical_axis_rules`.

    Raises:
      ValueError: the mesh has none of the three axes, or an override has an unknown name.

    Cost:
      Each device stores 1 / (tensor · fsdp) of the matrices.

    Example:
      >>> from attn_jax.modules import FeedForward, sharding_rules
      >>> def make():
      ...     return FeedForward(8, 32, rngs=nnx.Rngs(0))
      >>> mesh = jax.make_mesh((1, 1), ("data", "tensor"))   # one device
      >>> graph, abstract = nnx.split(nnx.eval_shape(make))
      >>> with nnx.logical_axis_rules(sharding_rules(mesh)):
      ...     shardings = nnx.get_named_sharding(abstract, mesh)
      >>> state = jax.jit(lambda: nnx.state(make()), out_shardings=shardings)()   # sharded at once
      >>> nnx.merge(graph, state).w_down[...].sharding.spec
      P('tensor', None)
    """
    if not {"data", "tensor", "fsdp"} & set(mesh.axis_names):
        raise ValueError(
            f"mesh has the axes {mesh.axis_names}; name those to use 'data', 'tensor' or 'fsdp'"
        )
    if unknown := set(overrides) - set(_MESH_AXES):
        raise ValueError(
            f"{', '.join(sorted(unknown))} is no logical axis; the logical axes are "
            f"{', '.join(_MESH_AXES)}"
        )
    rules: dict[str, MeshAxes] = {}
    for name, axes in _MESH_AXES.items():
        here = tuple(axis for axis in axes if axis in mesh.axis_names)
        rules[name] = here if len(here) > 1 else next(iter(here), None)
    return tuple({**rules, **overrides}.items())
