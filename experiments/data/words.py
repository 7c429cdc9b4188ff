"""Words, as the subset rule, the word-by-word lexicon and the counts in reports use them.

A token is a lower-cased run of letters, digits and underscores, joined inside by hyphens and dots
(`right-click`, `httpd.conf`, `2.4`), a French elision with its apostrophe (`l'`, `qu'`), an English
clitic (`'s`, `'t`), or a single punctuation mark.  A word is a token with a letter or digit in it.
"""

import re
import unicodedata

_TOKEN = re.compile(
    r"aujourd['’]hui"
    r"|(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu|presqu)['’](?=\w)"
    r"|['’](?:s|t|d|m|re|ve|ll)\b"
    r"|\w+(?:[-.]\w+)*"
    r"|[^\w\s]"
)
_NO_SPACE_BEFORE = frozenset(",.)]}…%")
_NO_SPACE_AFTER = frozenset("([{")


def tokenize(sentence: str) -> list[str]:
    """Lower-cased words and punctuation marks of a sentence, NFC, in order.

    Args:
      sentence: English or French text.

    Returns:
      The tokens; no token holds white space, and none is empty.

    Example:
      >>> tokenize("L'utilisateur n'a pas écrit httpd.conf.")
      ["l'", 'utilisateur', "n'", 'a', 'pas', 'écrit', 'httpd.conf', '.']
    """
    return _TOKEN.findall(unicodedata.normalize("NFC", sentence).lower())


def words(sentence: str) -> list[str]:
    """The tokens that contain a letter or a digit.

    Args:
      sentence: English or French text.

    Returns:
      The words, in order.

    Example:
      >>> words("Choose File - Save (Ctrl+S).")
      ['choose', 'file', 'save', 'ctrl', 's']
    """
    return [token for token in tokenize(sentence) if any(map(str.isalnum, token))]


def detokenize(tokens: list[str]) -> str:
    """Tokens as a French sentence: no space after elisions, a space before ` :` ` ;` ` ?`.

    Args:
      tokens: of `tokenize`, or a translation of them.

    Returns:
      One line of text; `tokenize` gives the tokens back.

    Example:
      >>> detokenize(["l'", "objet", "(", "image", ")", ",", "puis", "ok", "."])
      "l'objet (image), puis ok."
    """
    text, open_quote, glued = "", False, True
    for token in tokens:
        closing = token in _NO_SPACE_BEFORE or (token == '"' and open_quote)
        if not (glued or closing or token[0] in "'’"):
            text += " "
        text += token
        if token == '"':
            open_quote = not open_quote
        opening = token in _NO_SPACE_AFTER or (token == '"' and open_quote)
        glued = opening or (len(token) > 1 and token[-1] in "'’")
    return text
