"""Every module of the package can be imported, in a checkout and in a wheel."""

import importlib
import pkgutil

import attn_jax


def test_every_module_can_be_imported():
    names = [module.name for module in pkgutil.walk_packages(attn_jax.__path__, "attn_jax.")]
    assert {"attn_jax.models.checkpoints._families", "attn_jax._engine.fold"} <= set(names)
    for name in names:
        if not name.endswith(("__main__", "conftest")):
            importlib.import_module(name)
