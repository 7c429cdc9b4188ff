"""What the README shows runs, and every command that it quotes exists."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import attn_jax

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_ten_lines_run_and_the_slopes_have_gradients():
    [program] = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    B, T, N, H = 2, 5, 3, 4
    query, key, value = jax.random.normal(jax.random.key(0), (3, B, T, N, H))
    names = {"query": query, "key": key, "value": value, "slopes": jnp.arange(1.0, 4.0)}
    with jax.numpy_dtype_promotion("standard"):  # as users have it
        exec(program, names)
        unsloped = names["batch"](query, key, value, jnp.zeros(N))
    assert names["gradient"].shape == (N,)
    assert jnp.all(names["gradient"] != 0)
    plain = attn_jax.dot_product_attention(query, key, value, is_causal=True)
    assert jnp.allclose(unsloped, plain, atol=1e-6)


@pytest.mark.parametrize("module", re.findall(r"-m (experiments\.\w+)", README))
def test_quoted_experiments_exist(module):
    assert (ROOT / f"{module.replace('.', '/')}.py").exists()


@pytest.mark.parametrize("target", ["run", "test", "env", "lock"])
def test_quoted_make_targets_exist(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_no_page_names_a_package_index():
    for path in [ROOT / "requirements" / "dev.txt", ROOT / "requirements" / "tpu.txt"]:
        assert "://" not in path.read_text()
