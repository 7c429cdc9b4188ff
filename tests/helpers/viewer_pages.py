"""Helpers that parse a page as a browser does: its HTML, then the JSON data inside."""

import json
from html.parser import HTMLParser

import numpy as np

from attn_jax.viewer._json_arrays import array_from_json, mask_from_json


class Page(HTMLParser):
    """The scripts, meta tags, texts and data of a page."""

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
        """The JSON data of the page."""
        [text] = [text for attributes, text in self.scripts if attributes.get("id") == "data"]
        return json.loads(text)

    @property
    def policy(self) -> str:
        """The content security policy of the page."""
        [policy] = [m["content"] for m in self.metas if "http-equiv" in m]
        return policy


def contents(view, which=0):
    """The arrays of one record of a page: decoded from JSON, with one mask for each head."""
    record = Page(view.to_html()).data["records"][which]
    found = {}
    for name, value in record["content"].items():
        found[name] = (
            array_from_json(value) if isinstance(value, dict) and "data" in value else value
        )
    if found.get("masks"):
        masks = [mask_from_json(mask) for mask in found["masks"]["list"]]
        found["masks"] = np.stack([masks[i] for i in found["masks"]["of"]])
    return found


def softmax(logits, mask=None):
    """The softmax by its definition, in float64."""
    logits = np.asarray(logits, np.float64)
    logits = logits if mask is None else np.where(mask, logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)
