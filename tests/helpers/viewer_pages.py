"""What a page says, read as a browser reads it: the data by the parser of HTML, then by JSON."""

import json
from html.parser import HTMLParser

import numpy as np

from attn_jax.viewer._pack import unpack, unpack_mask


class Page(HTMLParser):
    """Scripts, metas, texts and data of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts, self.metas, self.texts, self.tags = [], [], {}, []
        self._open, self._script = [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "meta":
            self.metas.append(dict(attrs))
        elif tag == "script":
            self._script = dict(attrs)
        self._open.append(tag)

    def handle_endtag(self, tag):
        self._script = None
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data):
        if self._script is not None:
            self.scripts.append((self._script, data))
        elif self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    @property
    def data(self):
        """The payload, decoded."""
        [text] = [text for attributes, text in self.scripts if attributes.get("id") == "data"]
        return json.loads(text)

    @property
    def policy(self) -> str:
        """What the page forbids itself."""
        [policy] = [m["content"] for m in self.metas if "http-equiv" in m]
        return policy


def contents(view, which=0):
    """The numbers of a page's reading: packed arrays unpacked, masks written out by head."""
    reading = Page(view.to_html()).data["readings"][which]
    found = {}
    for name, value in reading["content"].items():
        found[name] = unpack(value) if isinstance(value, dict) and "data" in value else value
    if found.get("masks"):
        masks = [unpack_mask(mask) for mask in found["masks"]["list"]]
        found["masks"] = np.stack([masks[i] for i in found["masks"]["of"]])
    return found


def softmax(logits, mask=None):
    """By the definition, in float64."""
    logits = np.asarray(logits, np.float64)
    logits = logits if mask is None else np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
