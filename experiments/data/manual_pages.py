"""A page of an HTML manual as a list of its visible text blocks, for one platform.

Both manuals of the documentation corpus are generated HTML, so the standard library's parser is
sufficient. In LibreOffice's help a `<span class="switchinline">` contains one hidden span for each
platform or application, and a script shows one of them; here the default is kept.
"""

import re
import unicodedata
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import NamedTuple


def _set(names: str) -> frozenset[str]:
    return frozenset(names.split())


_VOID = _set("br img meta link input hr base col path line circle")
_BLOCK = _set("p li dt dd td th tr ul ol dl table div blockquote form h h1 h2 h3 h4 h5 h6 pre body")
_UNREAD_TAGS = _set("head script style nav header aside footer button svg noscript")
_UNREAD_CLASSES = _set("toplang bottomlang up top permalink noteicon")
_UNREAD_IDS = _set("page-header path quickview footer comments_section")
_NAME_CLASSES = _set("menuitem emph widget")
_CODE_TAGS = _set("code pre")
_CODE_CLASSES = _set("code codeintable bascode pycode sqlcode smathcode literal input")
# The alternative of a switch that is kept: the default, else Linux, else the first application.
_ALTERNATIVES = (
    *("default", "UNIX", "WRITER", "CALC", "IMPRESS", "DRAW"),
    *("MATH", "CHART", "BASE", "WIN", "MAC"),
)
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff¶"))
_LAST_WORD, _FIRST_WORD = re.compile(r"\w+$"), re.compile(r"[^\W\d]\w*")
_KEYS = re.compile(r"\b(Ctrl|Alt|AltGr|Shift|Maj|Option) ?\+ ?(?=\w)")


class Block(NamedTuple):
    """The text between two block tags.

    Attributes:
      kind: the enclosing block tag (`p`, `h2`, `dd`, …), or `code` if most of it is code.
      id: of that element, else the empty string.
      section: the id of the heading above, else the empty string.
      text: the cleaned text, never empty.
    """

    kind: str
    id: str
    section: str
    text: str


class Page(NamedTuple):
    """An HTML page.

    Attributes:
      language: the `lang` attribute (`en-US`, `fr`, …), else the empty string.
      blocks: its text blocks in reading order.
    """

    language: str
    blocks: list[Block]


class _Element(NamedTuple):
    tag: str = ""
    id: str = ""
    classes: frozenset[str] = frozenset()
    unread: bool = False
    code: bool = False
    style: str = ""  # "key", "name" or plain
    alternative: str | None = None


class _Run(NamedTuple):
    text: str
    code: bool = False
    style: str = ""


_ROOT = _Element()


class _PageParser(HTMLParser):
    """Collects the blocks of one page; `path` holds the open elements, outermost first."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self.path = [_ROOT]
        self.runs: list[_Run] = []
        self.outside: list[list[_Run]] = []  # the runs before each open switch, …
        self.switches: list[dict[str, list[_Run]]] = []  # … and those of its alternatives
        self.section = ""
        self.language = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "html":
            self.language = attributes.get("lang", "")
        if tag in _VOID:
            self.runs.append(_Run(" "))
            return
        if tag in _BLOCK:
            self.flush()
        element = _element(tag, attributes, self.path[-1])
        self.path.append(element)
        if "switchinline" in element.classes:
            self.switches.append({})
            self.outside.append(self.runs)
        if element.alternative is not None:
            self.runs = self.switches[-1].setdefault(element.alternative, [])

    def handle_endtag(self, tag: str) -> None:
        if tag in _VOID or all(element.tag != tag for element in self.path):
            return
        if tag in _BLOCK:
            self.flush()
        while True:
            element = self.path.pop()
            self.leave(element)
            if element.tag == tag:
                return

    def leave(self, element: _Element) -> None:
        if element.alternative is not None:
            self.runs = self.outside[-1]
        elif "switchinline" in element.classes:
            self.runs = self.outside.pop()
            alternatives = self.switches.pop()
            chosen = next((name for name in _ALTERNATIVES if name in alternatives), "")
            self.runs.extend(alternatives.get(chosen, []))

    def handle_data(self, data: str) -> None:
        element = self.path[-1]
        if not element.unread:
            self.runs.append(_Run(data, element.code, element.style))

    def flush(self) -> None:
        text = clean("".join(_spaced(self.runs)))
        code = sum(len("".join(run.text.split())) for run in self.runs if run.code)
        self.runs.clear()
        if not text:
            return
        holder = next((e for e in reversed(self.path) if e.tag in _BLOCK), _ROOT)
        if re.fullmatch("h[1-6]", holder.tag) and holder.id:
            self.section = holder.id
        kind = "code" if 2 * code > len(text) else holder.tag
        self.blocks.append(Block(kind, holder.id, self.section, text))


def _element(tag: str, attributes: dict[str, str], parent: _Element) -> _Element:
    classes = frozenset(attributes.get("class", "").split())
    name = attributes.get("id", "")
    unread = tag in _UNREAD_TAGS or name in _UNREAD_IDS or bool(classes & _UNREAD_CLASSES)
    code = tag in _CODE_TAGS or bool(classes & _CODE_CLASSES)
    style = "key" if "keycode" in classes else "name" if classes & _NAME_CLASSES else parent.style
    alternative = None
    if "switchinline" in parent.classes:
        alternative = next((known for known in _ALTERNATIVES if known in classes), "default")
    return _Element(
        tag, name, classes, unread or parent.unread, code or parent.code, style, alternative
    )


def _spaced(runs: list[_Run]) -> Iterator[str]:
    """The texts of the runs, with a space or + where a key or menu name lacks a separator."""
    before = _Run("")
    for run in runs:
        left, right = _LAST_WORD.search(before.text), _FIRST_WORD.match(run.text)
        if left and right and before.style + run.style:
            # "(Ctrl)(F)", "on(Ctrl)" and "(New)or" are two words; "(VA)riance", "(Menu)s" are one.
            one_word = not run.style and (len(left[0]) < 3 or len(right[0]) < 2)
            keys = before.style == run.style == "key"
            yield "" if one_word else "+" if keys else " "
        yield run.text
        before = run


def clean(text: str) -> str:
    """Text as one line: NFC, single spaces, straight apostrophes, `Ctrl+F` without spaces.

    Args:
      text: characters of an HTML page, entities resolved.

    Returns:
      The line; empty if nothing visible is left.

    Example:
      >>> clean(" Press  Ctrl + F\\n in the user’s document. ")
      "Press Ctrl+F in the user's document."
    """
    text = unicodedata.normalize("NFC", text).translate(_INVISIBLE).replace("’", "'")
    return _KEYS.sub(r"\1+", " ".join(text.split()))


def read_page(html: str) -> Page:
    """The language and the text blocks of an HTML page, without navigation, scripts and icons.

    Args:
      html: the page.

    Returns:
      The page; blocks without visible text are left out.

    Example:
      >>> switch = '<span class="MAC">Cmd</span><span>Ctrl</span>'
      >>> html = f'<p id="a">Press <span class="switchinline">{switch}</span>+<b>F</b>.</p>'
      >>> read_page(html).blocks
      [Block(kind='p', id='a', section='', text='Press Ctrl+F.')]
    """
    parser = _PageParser()
    parser.feed(html)
    parser.close()
    parser.flush()
    return Page(parser.language, parser.blocks)
