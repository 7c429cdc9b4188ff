"""Loggers: `attn_jax.compile` says why a call is compiled, `attn_jax.tune` what is measured."""

import collections
import logging
from typing import Any

import jax
from jaxtyping import Array

LOGGER = logging.getLogger("attn_jax.compile")
TUNE = logging.getLogger("attn_jax.tune")

_KEPT = 16  # how many earlier calls of a kind a new one is compared with
_earlier: dict[str, collections.deque] = {}


def compiles(what: str, **parts: Any) -> None:
    """Logs in which parts a call that is being traced differs from the most similar earlier one."""
    if not LOGGER.isEnabledFor(logging.DEBUG):
        return
    here = {name: _types(part) for name, part in parts.items()}
    before = _earlier.setdefault(what, collections.deque(maxlen=_KEPT))
    changes = min((_changes(one, here) for one in before), key=len, default=None)
    before.append(here)
    if changes is None:
        reason = "it is the first"
    else:
        reason = "; ".join(changes) or "batch, sharding, options or the transformation differ"
    LOGGER.debug("%s compiles: %s", what, reason)


def _changes(before: dict[str, str], here: dict[str, str]) -> list[str]:
    names = [name for name in here if before.get(name) != here[name]]
    return [f"{name} is {here[name]}, and was {before.get(name)}" for name in names]


def _types(part: Any) -> str:
    """A tree of arrays in one line: its structure, and the types of its leaves."""
    leaves, structure = jax.tree.flatten(part)
    types = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves if isinstance(leaf, Array)]
    if len(leaves) == 1 and leaves[0] is part:
        return types[0] if types else str(part)
    return f"{structure} of {', '.join(types) or 'no array'}"
