"""Names that every docstring example may use."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import attn_jax


@pytest.fixture(autouse=True)
def _names_in_docstrings(doctest_namespace):
    doctest_namespace.update(attn_jax=attn_jax, jax=jax, jnp=jnp, nnx=nnx, np=np)
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        yield
