"""A public name in code font links to its entry in the API reference."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.nodes import make_refnode

from docs._extensions.public_names import documented


def entries() -> dict[str, str]:
    """The full name of an entry by each text that means it.

    `attn_jax.masks.causal` and `masks.causal` are always clear. A short name is clear if it is one
    of `attn_jax` itself, or a class of one namespace; others are common words (`sample`, `dot`).
    """
    found: dict[str, list[str]] = {}
    for name, full in documented().items():
        package, _, short = name.rpartition(".")
        texts = [name, name.removeprefix("attn_jax.")]
        if package == "attn_jax" or short[0].isupper():
            texts.append(short)
        for text in texts:
            found.setdefault(text, []).append(full)
    return {text: names[0] for text, names in found.items() if len(set(names)) == 1}


def link(app: Sphinx, tree: nodes.document, page: str) -> None:
    """Puts a link around each text in code font that names an entry of another place."""
    names, objects = entries(), app.env.domains.python_domain.objects
    for node in list(tree.findall(nodes.literal)):
        text = node.astext().removesuffix("()")
        entry = objects.get(names.get(text, text if text.startswith("attn_jax.") else ""))
        if entry is None or _inside_link_or_title(node):
            continue
        reference = make_refnode(app.builder, page, entry.docname, entry.node_id, [], text)
        node.replace_self(reference)
        reference += node


def _inside_link_or_title(node: nodes.Node) -> bool:
    while node is not None:
        if isinstance(node, nodes.reference | nodes.title):
            return True
        node = node.parent
    return False


def setup(app: Sphinx) -> dict[str, bool]:
    """Runs when all entries are known."""
    app.connect("doctree-resolved", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
