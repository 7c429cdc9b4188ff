"""Imported first by each package that needs flax: without flax, its import says how to install it."""

import importlib.util

if importlib.util.find_spec("flax") is None:
    raise ModuleNotFoundError(
        "attn_jax.modules, attn_jax.models and the layers of attn_jax.lecture need flax: "
        "pip install 'attn-jax[models]'",
        name="flax",
    )
