"""Checks an installed attn_jax that has no flax: `make package` runs it in an empty folder.

python installed_package.py  # in an environment into which only the package was installed
"""

import importlib.metadata
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import attn_jax

FLAX_EXTRA = r"pip install 'attn-jax\[models\]'"
NEED_FLAX = (("modules", attn_jax), ("models", attn_jax), ("SelfAttention", attn_jax.lecture))


def check_files() -> None:
    """The package is the installed one, with its type marker and pages, and without test files."""
    folder = Path(attn_jax.__file__).parent
    assert "site-packages" in folder.parts, folder
    assert (folder / "py.typed").exists()
    assert list((folder / "viewer" / "page").glob("*.js"))
    assert not list(folder.rglob("conftest.py"))
    assert attn_jax.__version__ == importlib.metadata.version("attn-jax")


def check_attention() -> None:
    """A masked attention call and its gradient are those of the definition."""
    query, key, value = jax.random.normal(jax.random.key(0), (3, 2, 5, 3, 4))

    def ours(query):
        return attn_jax.dot_product_attention(query, key, value, is_causal=True).sum()

    def theirs(query):
        return jax.nn.dot_product_attention(query, key, value, is_causal=True).sum()

    assert jnp.allclose(ours(query), theirs(query), atol=1e-5)
    assert jnp.allclose(jax.grad(ours)(query), jax.grad(theirs)(query), atol=1e-5)


def check_messages() -> None:
    """Without flax, the parts that need it say how to install it."""
    assert importlib.util.find_spec("flax") is None, "flax must not be installed here"
    for name, package in NEED_FLAX:
        with pytest.raises(ModuleNotFoundError, match=FLAX_EXTRA):
            getattr(package, name)
    weights = attn_jax.viewer.AttentionView.from_weights([[1.0]], ["a"])
    assert "<html" in weights.to_html()


if __name__ == "__main__":
    check_files()
    check_attention()
    check_messages()
    print(f"attn-jax {attn_jax.__version__} works as installed (jax {jax.__version__})")
