"""Packages that need flax import this first: if flax is missing, the error says how to get it."""

import importlib.util

if importlib.util.find_spec("flax") is None:
    raise ModuleNotFoundError(
        "attn_jax.modules, attn_jax.models and the layers of attn_jax.lecture need flax: "
        "pip install 'attn-jax[models]'",
        name="flax",
    )
