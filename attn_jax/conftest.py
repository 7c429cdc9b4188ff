"""Names that every docstring example may use."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax


@pytest.fixture(autouse=True)
def _names_in_docstrings(doctest_namespace, request, monkeypatch, tmp_path):
    doctest_namespace.update(attn_jax=attn_jax, jax=jax, jnp=jnp, nnx=nnx, np=np)
    monkeypatch.setenv("ATTN_JAX_CACHE_DIR", str(tmp_path))  # not the user's own folder
    # Examples run as users run them. No `yield`: jaxtyping's hook would hide it from pytest.
    promotion = contextlib.ExitStack()
    promotion.enter_context(jax.numpy_dtype_promotion("standard"))
    request.addfinalizer(promotion.close)  # noqa: PT021
