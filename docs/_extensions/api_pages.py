"""The directive `public-names`: an entry for every public name of a namespace, in groups.

Its argument is the namespace. A line of its content is a group: "title: name, name, …". Names that
no line lists follow in a last group, so that no public name is missing.
"""

import ast
import importlib
import inspect
import itertools
import types

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs._extensions.docstrings import escaped
from docs._extensions.public_names import home_of, public_names

REST = "More"


class PublicNames(SphinxDirective):
    """Writes the groups as sections, which autodoc fills from the docstrings."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """A table of all names, then a section for each group."""
        namespace = self.arguments[0]
        groups = grouped(namespace, list(self.content))
        sections = self.parsed(table(namespace, groups))
        for title, names in groups.items():
            section = nodes.section(ids=[nodes.make_id(title)], names=[])
            section += nodes.title(title, title)
            section += self.parsed([line for name in names for line in entry(namespace, name)])
            sections.append(section)
        return sections

    def parsed(self, lines: list[str]) -> list[nodes.Node]:
        """The nodes of a text in reStructuredText."""
        text = "\n".join(lines)
        return self.parse_text_to_nodes(f"`````{{eval-rst}}\n{text}\n`````")


def grouped(namespace: str, lines: list[str]) -> dict[str, list[str]]:
    """The names of each group.

    Raises:
      ValueError: a line lists a name that the namespace does not have.
    """
    rest = list(public_names(namespace))
    groups = {}
    for line in filter(str.strip, lines):
        title, _, names = line.partition(":")
        groups[title] = [name.strip() for name in names.split(",")]
        for name in groups[title]:
            if name not in rest:
                raise ValueError(f"{namespace} has no public name {name!r}, or it is listed twice")
            rest.remove(name)
    return {**groups, REST: rest} if rest else groups


def table(namespace: str, groups: dict[str, list[str]]) -> list[str]:
    """All names, each with its first sentence, in reStructuredText."""
    lines = [".. list-table::", "   :class: summary", "   :widths: auto", ""]
    for names in groups.values():
        for name in names:
            lines += [f"   * - :py:obj:`{name} <{home_of(namespace, name)}.{name}>`"]
            lines += [f"     - {summary(namespace, name)}"]
    return lines


def summary(namespace: str, name: str) -> str:
    """The first sentence of a name's documentation, with code between double backticks."""
    return escaped([" ".join(documentation(namespace, name).split("\n\n")[0].split())])[0]


def documentation(namespace: str, name: str) -> str:
    """The docstring of a function or class; of a number or type, the text below its definition."""
    member = public_names(namespace)[name]
    if inspect.isclass(member) or callable(member):
        return inspect.getdoc(member) or ""
    for module in filter(lambda one: hasattr(one, name), _modules_of(namespace)):
        text = text_below(module, name)
        if text:
            return text
    raise ValueError(f"{namespace}.{name} needs a docstring below its definition")


def text_below(module: types.ModuleType, name: str) -> str:
    """The text in quotation marks on the line below the definition of a name."""
    body = ast.parse(inspect.getsource(module)).body
    for node, after in itertools.pairwise(body):
        target = getattr(node, "name", None) or getattr(node, "target", None)
        target = target or getattr(node, "targets", [None])[0]
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if is_text and getattr(target, "id", None) == name:
            return inspect.cleandoc(after.value.value)
    return ""


def _modules_of(namespace: str) -> list:
    """The namespace's module, and those that it imports from."""
    module = importlib.import_module(namespace)
    tree = [
        line.split()[1] for line in inspect.getsource(module).splitlines() if line[:4] == "from"
    ]
    return [module, *(importlib.import_module(one) for one in tree if one[:8] == "attn_jax")]


def entry(namespace: str, name: str) -> list[str]:
    """The entry of a name; of one that another page documents, a link to that page."""
    member, home = public_names(namespace)[name], home_of(namespace, name)
    full = f"{namespace}.{name}"
    if home != namespace:
        return [f":py:obj:`{full} <{home}.{name}>` is documented in ``{home}``.", ""]
    if inspect.isclass(member):
        return [f".. autoclass:: {full}", *members_of(full, member), ""]
    if callable(member):
        return [f".. autofunction:: {full}", ""]
    text = ["", *(f"   {line}" for line in escaped(documentation(namespace, name).split("\n"))), ""]
    if hasattr(member, "__value__"):
        return [f".. py:type:: {full}", f"   :canonical: {alias_value(namespace, name)}", *text]
    value = [f"   :value: {member}"] if isinstance(member, int) else []
    return [f".. py:data:: {full}", *value, *text]


def alias_value(namespace: str, name: str) -> str:
    """What a type alias stands for, as its source has it."""
    for module in _modules_of(namespace):
        for line in inspect.getsource(module).splitlines():
            if line.startswith(f"type {name} = "):
                return line.partition(" = ")[2]
    raise ValueError(f"no module that {namespace} imports has 'type {name} = …' on one line")


def members_of(full: str, cls: type) -> list[str]:
    """The entries of a class's own public methods and properties, inherited ones too."""
    lines = []
    for name in dir(cls):
        thing = inspect.getattr_static(cls, name)
        is_shown = not name.startswith("_") or name == "__call__"
        if is_shown and is_documented(cls, name):
            kind = "property" if isinstance(thing, property) else "method"
            lines += ["", f"   .. auto{kind}:: {full}.{name}"]
    return lines


def is_documented(cls: type, name: str) -> bool:
    """Whether a member is a method or a property with a docstring, of a class of ours."""
    thing = inspect.getattr_static(cls, name)
    kinds = property | classmethod | staticmethod
    defines = next(one for one in cls.__mro__ if name in vars(one))
    return (
        (inspect.isroutine(thing) or isinstance(thing, kinds))
        and defines.__module__.startswith("attn_jax")
        and bool(inspect.getdoc(getattr(cls, name)))
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Adds the directive."""
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
