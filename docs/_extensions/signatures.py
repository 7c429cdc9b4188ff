"""Signatures with the annotations and defaults that the source has: `Float[Array, "T H"]`."""

import ast
import copy
import inspect
import re
import sys
import textwrap
import typing
from collections.abc import Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from docs._extensions.public_names import documented

PUBLIC = {name.rpartition(".")[2] for name in documented()}


def process(app, what, name, thing, options, arguments, returns):
    """The arguments and the return type of a function, a method or a class."""
    is_class = inspect.isclass(thing)
    if isinstance(thing, property) or (is_class and issubclass(thing, BaseException)):
        return None
    if is_class:
        return class_arguments(thing), ""
    annotations, returned = function_annotations(inspect.unwrap(thing))
    parameters = list(inspect.signature(thing).parameters.values())
    if what == "method" and parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    return f"({', '.join(written(parameters, annotations))})", returned


def class_arguments(cls: type) -> str:
    """The arguments of a class's `__init__`, or else its fields; none of a protocol."""
    if getattr(cls, "_is_protocol", False):
        return ""
    if "__init__" in _written_in_class(cls):
        annotations, _ = function_annotations(inspect.unwrap(cls.__init__))
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    else:
        annotations = field_annotations(cls)
        parameters = list(inspect.signature(cls).parameters.values())
    return f"({', '.join(written(parameters, annotations))})"


def function_annotations(function: object) -> tuple[dict[str, str], str]:
    """The text of a function's annotations by argument, and of its return type."""
    function = getattr(function, "__func__", function)
    node = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(node, ast.FunctionDef)
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += filter(None, [node.args.vararg, node.args.kwarg])
    names = function.__globals__
    found = {one.arg: text_of(one.annotation, names) for one in every if one.annotation}
    return found, text_of(node.returns, names) if node.returns else ""


def field_annotations(cls: type) -> dict[str, str]:
    """The annotations of the fields of a dataclass or a named tuple."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one.__module__.startswith("attn_jax"):
            for node in ast.parse(textwrap.dedent(inspect.getsource(one))).body[0].body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    names = vars(sys.modules[one.__module__])
                    found[node.target.id] = text_of(node.annotation, names)
    return found


def _written_in_class(cls: type) -> set[str]:
    """The methods that the source of the class or of its nearest parents contains."""
    ours = [one for one in cls.__mro__ if one.__module__.startswith("attn_jax")]
    trees = [ast.parse(textwrap.dedent(inspect.getsource(one))).body[0] for one in ours]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def text_of(annotation: ast.expr, names: dict[str, object]) -> str:
    """An annotation as it is written; one in quotation marks without them.

    A type alias that is not public is replaced by what it stands for.
    """
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return annotation.value
    text = ast.unparse(Aliases(names).visit(copy.deepcopy(annotation)))
    return re.sub(r"(['\"]) ?([^'\"]*)\1", r'"\2"', text)


class Aliases(ast.NodeTransformer):
    """Replaces the names of private type aliases, given the names that a module has."""

    def __init__(self, names: dict[str, object]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The alias's definition in its source, or the name."""
        alias = self.names.get(node.id)
        if not isinstance(alias, typing.TypeAliasType) or node.id in PUBLIC:
            return node
        module = sys.modules[alias.__module__]
        for one in ast.parse(inspect.getsource(module)).body:
            if isinstance(one, ast.TypeAlias) and one.name.id == node.id:
                return Aliases(vars(module)).visit(one.value)
        return node


def written(parameters: list[inspect.Parameter], annotations: dict[str, str]) -> Iterator[str]:
    """Each argument as in a `def` line, with `/` and `*` where they stand."""
    kinds = [one.kind for one in parameters]
    star = inspect.Parameter.VAR_POSITIONAL not in kinds
    for i, one in enumerate(parameters):
        if one.kind is one.KEYWORD_ONLY and star:
            yield "*"
            star = False
        prefix = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        annotation = annotations.get(one.name, "")
        text = prefix + one.name + (f": {annotation}" if annotation else "")
        if one.default is not one.empty:
            text += f"{' = ' if annotation else '='}{default(one.default)}"
        yield text
        if one.kind is one.POSITIONAL_ONLY and kinds[i + 1 : i + 2] != [one.kind]:
            yield "/"


def default(value: object) -> str:
    """A default value: a number or a text as it is written, a function or class by its name."""
    if callable(value) and hasattr(value, "__name__"):
        return value.__name__
    text = repr(value)
    return "..." if text.startswith("<") else text


def quote(app: Sphinx, tree: nodes.document) -> None:
    """Writes texts in signatures with double quotation marks, as the source does."""
    for node in tree.findall(nodes.inline):
        is_text = isinstance(node, addnodes.desc_sig_literal_string)
        if is_text or "default_value" in node["classes"]:
            node[:] = [nodes.Text(node.astext().replace("'", '"'))]


def setup(app: Sphinx) -> dict[str, bool]:
    """Replaces the signature that autodoc makes from evaluated annotations."""
    app.connect("autodoc-process-signature", process)
    app.connect("doctree-read", quote)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
