"""The public names of the packages, read from the packages themselves."""

import importlib
import types
from collections.abc import Mapping

NAMESPACES = (
    "attn_jax",
    "attn_jax.scores",
    "attn_jax.masks",
    "attn_jax.positions",
    "attn_jax.score_mods",
    "attn_jax.caches",
    "attn_jax.lecture",
    "attn_jax.modules",
    "attn_jax.models",
    "attn_jax.viewer",
)


def public_names(namespace: str) -> dict[str, object]:
    """What a package defines or imports under a public name of its own, in the source's order."""
    members = vars(importlib.import_module(namespace))
    return {name: member for name, member in members.items() if _is_public(name, member)}


def _is_public(name: str, member: object) -> bool:
    if name.startswith("_") or isinstance(member, types.ModuleType):
        return False
    module = getattr(member, "__module__", None)
    return isinstance(member, int | Mapping) or (module or "").startswith("attn_jax")


def home_of(namespace: str, name: str) -> str:
    """The namespace whose page documents a name: the last one that has the same object."""
    member = public_names(namespace)[name]
    homes = [other for other in NAMESPACES if public_names(other).get(name) is member]
    return homes[-1]


def documented() -> dict[str, str]:
    """The full name under which each public name is documented, by its own full name."""
    return {
        f"{namespace}.{name}": f"{home_of(namespace, name)}.{name}"
        for namespace in NAMESPACES
        for name in public_names(namespace)
    }
