"""The extensions in docs/_extensions: public names, docstrings, signatures and links."""

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import attn_jax
import attn_jax.models
import attn_jax.modules
from tests.repository.test_public_api import MEMBERS

pytest.importorskip("docs._extensions", reason="the wheel has no site")
from docs._extensions import api_pages, docstrings, links, name_links, public_names, signatures

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
DIRECTIVE = re.compile(r"^```\{public-names\} (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def listed():
    """The groups that the pages of docs/reference give to each namespace."""
    texts = [page.read_text("utf-8") for page in sorted((DOCS / "reference").glob("*.md"))]
    return {found[1]: found[2].splitlines() for text in texts for found in DIRECTIVE.finditer(text)}


def test_every_namespace_has_a_page_and_every_public_name_a_place():
    assert listed().keys() == set(public_names.NAMESPACES)
    assert set(MEMBERS) <= set(public_names.documented())
    for namespace, lines in listed().items():
        groups = api_pages.grouped(namespace, lines)
        assert api_pages.REST not in groups, f"put {groups.get(api_pages.REST)} into a group"


def test_a_name_without_a_group_is_documented_in_a_last_group():
    groups = api_pages.grouped("attn_jax.scores", ["One: dot, additive"])
    assert groups == {"One": ["dot", "additive"], "More": ["Score", "general", "concat"]}


@pytest.mark.parametrize("line", ["One: dott", "One: dot, dot"])
def test_a_group_with_an_unknown_name_is_refused(line):
    with pytest.raises(ValueError, match=r"attn_jax\.scores has no public name 'dot"):
        api_pages.grouped("attn_jax.scores", [line])


def test_a_name_in_two_namespaces_is_documented_in_one():
    full = public_names.documented()
    assert full["attn_jax.self_attention"] == "attn_jax.lecture.self_attention"
    assert full["attn_jax.attend"] == "attn_jax.attend"


def test_numbers_and_types_have_a_text_and_a_value():
    assert api_pages.documentation("attn_jax.models", "PAD").startswith("Padding")
    assert api_pages.alias_value("attn_jax.masks", "Position") == 'Int[Array, ""]'


def test_methods_of_a_class_are_documented_inherited_ones_too_but_none_of_other_libraries():
    entry = "\n".join(api_pages.entry("attn_jax.viewer", "AttentionView"))
    assert "automethod:: attn_jax.viewer.AttentionView.save" in entry
    model = "\n".join(api_pages.entry("attn_jax.models", "GPT"))
    assert "automethod:: attn_jax.models.GPT.__call__" in model
    assert "perturb" not in model
    assert "autoproperty:: attn_jax.models.DecoderConfig.head_width" in "\n".join(
        api_pages.entry("attn_jax.models", "DecoderConfig")
    )


def translated(docstring):
    lines = inspect.cleandoc(docstring).split("\n")
    docstrings.process(None, "function", "f", None, None, lines)
    return "\n".join(lines).strip()


def test_an_indented_formula_is_literal_also_in_a_section():
    formula = translated("Sum.\n\n  a * |b|_1\n\nNumerics:\n  Exact.\n\n    x_i * y\n")
    assert "\n::\n\n  a * |b|_1\n" in formula
    assert "\n  ::\n\n    x_i * y" in formula


def test_code_is_between_double_backticks_and_other_characters_are_literal():
    text = translated("The `x *y`s of |a| * b_ and *other* terms \\ .")
    assert text == r"The ``x *y``\ s of \|a\| \* b\_ and *other* terms \\ ."


def test_an_example_imports_the_names_that_the_test_suite_hands_in():
    text = translated("Sum.\n\nExample:\n  >>> print(np.asarray(jnp.ones(2)))\n  [1. 1.]\n")
    assert text.endswith(
        "Example:\n  >>> import jax.numpy as jnp\n  >>> import numpy as np\n"
        "  >>> print(np.asarray(jnp.ones(2)))\n  [1. 1.]"
    )
    given = translated("Example:\n  >>> from attn_jax.models import GPT\n  >>> GPT\n")
    assert "import attn_jax\n" not in given


def signature(thing, what="function"):
    return signatures.process(None, what, "", thing, None, None, None)


def test_a_signature_has_the_annotations_of_the_source():
    arguments, result = signature(attn_jax.attend)
    assert arguments.startswith('(query: Float[Array, "T H"], key: Float[Array, "S E"], ')
    assert 'value: Float[Array, "S V"], *, score: scores.Score | None = None' in arguments
    assert 'Int[Array, "T"] | None = None' in arguments
    assert result == 'Float[Array, "T V"]'


def test_an_alias_that_is_not_public_is_replaced_by_its_definition():
    arguments, _ = signature(attn_jax.attend)
    assert 'mask: Bool[Array, "#T S"] | masks.MaskFunction | BlockMask | None = None' in arguments
    assert (
        'implementation: Literal["reference", "blockwise", "mosaic_tpu", "cudnn"] | None'
        in arguments
    )


def test_a_class_has_the_arguments_of_its_fields_or_of_its_constructor():
    assert signature(attn_jax.models.Batch, "class")[0].startswith("(source: ")
    assert "num_kv_heads: int | None = None" in signature(attn_jax.models.DecoderConfig, "class")[0]
    assert "rngs: nnx.Rngs" in signature(attn_jax.models.GPT, "class")[0]


def test_a_method_is_shown_without_self():
    arguments, _ = signature(attn_jax.caches.Cache.rewind, "method")
    assert arguments.startswith("(length")


@pytest.fixture
def site():
    """What the link extension uses of Sphinx: the names of the pages."""

    def path2doc(path):
        return str(Path(path).relative_to(DOCS).with_suffix("")) if DOCS in path.parents else None

    pages = {"index", "moving", "adr/index", "gallery/index", "adr/0019-places-and-words"}
    return SimpleNamespace(
        env=SimpleNamespace(
            found_docs=pages, path2doc=path2doc, doc2path=lambda name: DOCS / f"{name}.md"
        )
    )


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[guide](moving.md#a)", "[guide](moving.md#a)"),
        ("[moving.md](moving.md)", "[](moving.md)"),
        ("[all](adr/)", "[all](adr/index.md)"),
        ("[pages](gallery/README.md)", "[pages](gallery/index.md)"),
        (
            "[f](../examples/graph.py)",
            "[f](https://github.com/attn-jax/attn_jax/blob/main/examples/graph.py)",
        ),
        ("[f](../examples/)", "[f](https://github.com/attn-jax/attn_jax/tree/main/examples)"),
        ("![p](figures/bleu_by_length.png)", "![p](figures/bleu_by_length.png)"),
        ("[w](https://x.org/y)", "[w](https://x.org/y)"),
        ("`[i](no.md)`", "`[i](no.md)`"),
        ("```\n[i](no.md)\n```\n", "```\n[i](no.md)\n```\n"),
    ],
)
def test_links_are_written_for_the_site(site, written, shown):
    assert links.rewritten(site, written, DOCS / "index.md", "index") == shown


def test_links_of_an_included_file_start_from_its_folder(site):
    source = ["```{include} ../CONTRIBUTING.md\n```\n"]
    links.on_read(site, "index", source)
    assert source[0].startswith("# Contributing\n")
    assert "](../" not in source[0]


def test_a_dead_link_is_a_warning(site, monkeypatch):
    warnings = []
    monkeypatch.setattr(links.log, "warning", lambda *message, **_: warnings.append(message))
    links.rewritten(site, "[x](../no/such.py)", DOCS / "index.md", "index")
    assert warnings[0][2] == "../no/such.py"


def test_in_a_chapter_only_the_text_has_links(site, monkeypatch):
    """Indexing and then calling, as Flax models do, looks like a link to a missing file."""
    monkeypatch.setattr(links.log, "warning", lambda *message, **_: pytest.fail(str(message)))
    source = "# %% [markdown]\n# [x](../../README.md)\n# %%\nvectors = table[...](ids)\n"
    shown = source.replace("../../README.md", f"{links.GITHUB}/blob/main/README.md")
    chapter = DOCS / "course" / "02_encoder_decoder.py"
    assert links.rewritten(site, source, chapter, "index") == shown


def test_a_short_name_links_only_where_it_is_clear():
    entries = name_links.entries()
    assert entries["attend"] == "attn_jax.attend"
    assert entries["masks.causal"] == "attn_jax.masks.causal"
    assert entries["GPT"] == "attn_jax.models.GPT"
    assert not {"sample", "dot", "draw", "causal", "as_pytree"} & entries.keys()
