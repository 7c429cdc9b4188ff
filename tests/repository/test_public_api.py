"""Every public name has a docstring with source, arguments, result, errors and an example."""

import ast
import inspect
import textwrap

import pytest

import attn_jax
import attn_jax.models
import attn_jax.modules
import attn_jax.viewer

NAMESPACES = [
    attn_jax,
    attn_jax.caches,
    attn_jax.lecture,
    attn_jax.masks,
    attn_jax.positions,
    attn_jax.score_mods,
    attn_jax.scores,
    attn_jax.models,
    attn_jax.modules,
    attn_jax.viewer,
]


def public_members(namespace) -> list[tuple[str, object]]:
    return [
        (f"{namespace.__name__}.{name}", member)
        for name, member in vars(namespace).items()
        if not name.startswith("_")
        and (
            inspect.isfunction(inspect.unwrap(member))
            or inspect.isclass(member)
            or hasattr(member, "__wrapped__")
        )
        and (getattr(member, "__module__", "") or "").startswith("attn_jax")
    ]


MEMBERS = dict(pair for namespace in NAMESPACES for pair in public_members(namespace))
FUNCTIONS = {name: member for name, member in MEMBERS.items() if not inspect.isclass(member)}
CLASSES = {name: member for name, member in MEMBERS.items() if inspect.isclass(member)}


def can_raise(function) -> bool:
    """Whether the function itself raises or runs a check."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return any(
        isinstance(node, ast.Raise) or (isinstance(node, ast.Name) and node.id == "_checks")
        for node in ast.walk(ast.parse(source))
    )


def test_the_public_names_are_found():
    assert {"attn_jax.attend", "attn_jax.scores.additive", "attn_jax.models.EncoderDecoder"} <= set(
        MEMBERS
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_everything(name):
    function = FUNCTIONS[name]
    doc = inspect.getdoc(inspect.unwrap(function)) or ""
    parameters = inspect.signature(function).parameters
    assert doc.splitlines()[0].endswith("."), "the first line is one sentence"
    for parameter in parameters:
        assert f"\n  {parameter}: " in doc, f"Args has no line for {parameter}"
    assert "\nReturns:\n" in doc
    assert "\nRaises:\n" in doc or not can_raise(function)
    assert "\nNumerics:\n" in doc or "\nCost:\n" in doc
    assert ">>> " in doc


@pytest.mark.parametrize("name", CLASSES)
def test_classes_document_everything(name):
    doc = inspect.getdoc(CLASSES[name]) or ""
    assert doc.splitlines()[0].endswith("."), "the first line is one sentence"
    assert not doc.startswith(f"{CLASSES[name].__name__}("), "dataclass left its own docstring"
    assert ">>> " in doc


def test_the_top_level_is_an_explicit_sorted_list():
    tree = ast.parse(inspect.getsource(attn_jax))
    ours = [n for n in tree.body if isinstance(n, ast.ImportFrom) and "attn_jax" in n.module]
    assert len(ours) > 20
    assert all(node.names[0].asname == node.names[0].name for node in ours)
    assert {node for node in tree.body if isinstance(node, ast.ImportFrom)} - {*ours} == {
        *tree.body[1:3]
    }, "a name of another package would be a name of ours"
