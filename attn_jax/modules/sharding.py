"""On which axis of a mesh each logical axis of a parameter lies."""

from collections.abc import Mapping

from jax.sharding import AbstractMesh, Mesh

type MeshAxes = str | tuple[str, ...] | None

# What each name means stands in `sharding_rules`.
_LIES_ON: Mapping[str, tuple[str, ...]] = {
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
    """How the layers of `attn_jax.modules` are spread over a mesh, as flax' rules of logical axes.

    Tensor parallelism as in Shoeybi et al., "Megatron-LM" (2019), section 3,
    https://arxiv.org/abs/1909.08053: heads and hidden units are split, the model's width is whole,
    and a block sums over devices twice forward and twice backward. Fully sharded data parallelism
    as in Rajbhandari et al., "ZeRO" (2020), stage 3, https://arxiv.org/abs/1910.02054: each matrix
    is split along the model's width too, and gathered where it is used.

      batch → (data, fsdp)    vocab, heads, kv_heads, hidden → tensor    model → fsdp
      features (vectors of the model's width), head (the width of one), layers → nowhere

    Args:
      mesh: its axes "data", "tensor" and "fsdp" are used, those that it has.
      overrides: another mesh axis, several, or None, for a logical name: `kv_heads=None` where
        there are fewer of them than devices along "tensor".

    Returns:
      A pair (logical name, mesh axis) for each name, for `nnx.logical_axis_rules`.

    Raises:
      ValueError: the mesh has none of the three axes, or an override has an unknown name.

    Cost:
      A device keeps 1 / (tensor · fsdp) of the matrices.

    Example:
      >>> from attn_jax.modules import FeedForward, sharding_rules
      >>> def make():
      ...     return FeedForward(8, 32, rngs=nnx.Rngs(0))
      >>> mesh = jax.make_mesh((1, 1), ("data", "tensor"))   # all devices in use, here one
      >>> graph, abstract = nnx.split(nnx.eval_shape(make))
      >>> with nnx.logical_axis_rules(sharding_rules(mesh)):
      ...     shardings = nnx.get_named_sharding(abstract, mesh)
      >>> state = jax.jit(lambda: nnx.state(make()), out_shardings=shardings)()   # never whole
      >>> nnx.merge(graph, state).w_down[...].sharding.spec
      P('tensor', None)
    """
    if not {"data", "tensor", "fsdp"} & set(mesh.axis_names):
        raise ValueError(
            f"mesh has the axes {mesh.axis_names}; name those to use 'data', 'tensor' or 'fsdp'"
        )
    if unknown := set(overrides) - set(_LIES_ON):
        raise ValueError(
            f"{', '.join(sorted(unknown))} is no logical axis; there are {', '.join(_LIES_ON)}"
        )
    rules: dict[str, MeshAxes] = {}
    for name, axes in _LIES_ON.items():
        here = tuple(axis for axis in axes if axis in mesh.axis_names)
        rules[name] = here if len(here) > 1 else next(iter(here), None)
    return tuple({**rules, **overrides}.items())
