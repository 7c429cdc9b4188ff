"""Rebuilds the English–French documentation corpus from three Debian bookworm packages.

LibreOffice's help gives its paragraphs the same ids in every language, so pairs are joined on
(page, id). The Apache manual has no such ids: a page is joined block by block if both
languages have the same sequence of block tags, else each section with equal sequences is.

    .venv/bin/python -m experiments.data.build_docs_corpus  # downloads the packages
    .venv/bin/python -m experiments.data.build_docs_corpus --packages DIR  # uses DIR/*.deb

Needs `apt-get` (only to download) and `dpkg-deb`, as on Debian 12.
"""

import collections
import lzma
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tyro

from experiments.command_line.options import shell_command
from experiments.data.manual_pages import Block, read_page
from experiments.data.words import words

PACKAGES = {
    "libreoffice-help-en-us": "4:7.4.7-1+deb12u14",
    "libreoffice-help-fr": "4:7.4.7-1+deb12u14",
    "apache2-doc": "2.4.71-1~deb12u1",
}
OUTPUT = Path(__file__).parent / "docs_enfr.tsv.xz"
HEADER = ("page", "source", "target")
MIN_WORDS = 4
# Word counts of a human translation stay within these bounds (2 is added to both sides).
MIN_RATIO, MAX_RATIO = 0.5, 2.2
_UNTRANSLATED = "n'a pas encore été traduite"
_BROKEN = " not found]"

Row = tuple[str, str, str]


def join_by_id(english: list[Block], french: list[Block]) -> list[tuple[Block, Block]]:
    """Pairs the paragraphs and headings of a LibreOffice help page that carry the same id.

    Args:
      english: the blocks of the English page.
      french: the blocks of the French page.

    Returns:
      The pairs in the English order. An id that occurs equally often in both pages is paired in
      order; any other id is left out.
    """
    left, right = _by_id(english), _by_id(french)
    matched = [name for name in left if len(left[name]) == len(right.get(name, []))]
    return [pair for name in matched for pair in zip(left[name], right[name], strict=True)]


def _by_id(blocks: list[Block]) -> dict[str, list[Block]]:
    table: dict[str, list[Block]] = {}
    for block in blocks:
        if block.id.startswith(("par_", "hd_")):
            table.setdefault(block.id, []).append(block)
    return table


def join_by_sequence(english: list[Block], french: list[Block]) -> list[tuple[Block, Block]]:
    """Pairs the blocks of two Apache manual pages where their block tags agree.

    Args:
      english: the blocks of the English page.
      french: the blocks of the French page.

    Returns:
      All blocks in order if the two tag sequences are equal; else those of every section (named by
      the id of its heading, which the languages share) whose tag sequences are equal.
    """
    if _tags(english) == _tags(french):
        return list(zip(english, french, strict=True))
    left, right = _by_section(english), _by_section(french)
    same = [name for name in left if _tags(left[name]) == _tags(right.get(name, []))]
    return [pair for name in same for pair in zip(left[name], right[name], strict=True)]


def _tags(blocks: list[Block]) -> list[str]:
    # A command-line option is its own tag: some pages have another order of options in French.
    return [block.text if block.text.startswith("-") else block.kind for block in blocks]


def _by_section(blocks: list[Block]) -> dict[str, list[Block]]:
    table: dict[str, list[Block]] = {}
    for block in blocks:
        table.setdefault(block.section, []).append(block)
    return table


def reason_to_drop(source: str, target: str) -> str | None:
    """The reason to drop a pair, or None.

    Args:
      source: the English text.
      target: the French text.

    Returns:
      The reason, for the table of counts, or None.

    Example:
      >>> reason_to_drop("Click OK.", "Cliquez sur OK."), reason_to_drop("a b c d", "a b c d")
      ('fewer than 4 words', 'not translated')
    """
    here, there = len(words(source)), len(words(target))
    if here < MIN_WORDS:
        return f"fewer than {MIN_WORDS} words"
    if source == target or _UNTRANSLATED in target:
        return "not translated"
    if _BROKEN in source or _BROKEN in target:
        return "a paragraph that the manual itself misses"
    if not MIN_RATIO <= (there + 2) / (here + 2) <= MAX_RATIO:
        return "lengths too different"
    return None


def joined_pages(root: Path) -> Iterator[tuple[str, list[tuple[Block, Block]]]]:
    """The joined blocks of every page that exists in English and in French.

    The `lang` attribute decides the language: six pages of the English manual are in Portuguese.

    Args:
      root: the folder into which the packages were unpacked.

    Yields:
      The page name (`libreoffice/…` or `apache/…`) and its pairs; pages in the order of names.

    Raises:
      ValueError: a manual is not under `root`.
    """
    share = root / "usr" / "share"
    help_, manual = share / "libreoffice" / "help", share / "doc" / "apache2-doc" / "manual"
    sites = [
        ("libreoffice", help_ / "en-US" / "text", help_ / "fr" / "text", join_by_id),
        ("apache", manual / "en", manual / "fr", join_by_sequence),
    ]
    for site, english, french, join in sites:
        for folder in (english, french):
            if not folder.is_dir():
                raise ValueError(f"no manual at {folder}; unpack all of {', '.join(PACKAGES)}")
        names = sorted(path.relative_to(english).as_posix() for path in english.rglob("*.html"))
        for name in names:
            if not (french / name).is_file():
                continue
            left = read_page((english / name).read_text("utf-8"))
            right = read_page((french / name).read_text("utf-8"))
            if left.language.startswith("en") and right.language.startswith("fr"):
                page = f"{site}/{name.removesuffix('.html')}"
                yield page, join(left.blocks, right.blocks)


def collect(root: Path) -> tuple[list[Row], collections.Counter[str]]:
    """The rows of the corpus, and the number of pairs kept and dropped by reason.

    Args:
      root: the folder into which the packages were unpacked.

    Returns:
      Rows (page, source, target), pages in order, and the counts.
    """
    rows: list[Row] = []
    seen: set[tuple[str, str]] = set()
    counts: collections.Counter[str] = collections.Counter()
    for page, pairs in joined_pages(root):
        for left, right in pairs:
            pair = (left.text, right.text)
            reason = "code" if "code" in (left.kind, right.kind) else reason_to_drop(*pair)
            reason = reason or ("already there" if pair in seen else None)
            counts[reason or f"kept from {page.split('/')[0]}"] += 1
            if reason is None:
                seen.add(pair)
                rows.append((page, *pair))
    return rows, counts


def write(rows: list[Row], path: Path) -> None:
    """Writes the rows as xz-compressed TSV; the same rows give the same bytes.

    Args:
      rows: (page, source, target); no field may hold a tab or a line break.
      path: the file to write.
    """
    text = "".join("\t".join(row) + "\n" for row in [HEADER, *rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))


def unpack(packages: Path, root: Path) -> dict[str, str]:
    """Unpacks the three packages.

    Args:
      packages: the folder with the `.deb` files.
      root: an empty folder.

    Returns:
      The version of each package.

    Raises:
      ValueError: a package is missing, or there are several versions of it.
    """
    versions = {}
    for name in PACKAGES:
        found = sorted(packages.glob(f"{name}_*.deb"))
        if len(found) != 1:
            raise ValueError(f"packages={packages} holds {len(found)} files {name}_*.deb, not one")
        field = ["dpkg-deb", "--field", str(found[0]), "Version"]
        answer = subprocess.run(field, check=True, capture_output=True, text=True)
        versions[name] = answer.stdout.strip()
        subprocess.run(["dpkg-deb", "--extract", str(found[0]), str(root)], check=True)
    return versions


def main(packages: Path | None = None, output: Path = OUTPUT) -> None:
    """Rebuilds the documentation corpus and prints how many pairs were kept and dropped.

    Args:
      packages: a folder with the downloaded .deb files; without it apt-get downloads them.
      output: the file to write.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary, "root")
        root.mkdir()
        if packages is None:
            packages = Path(temporary)
            subprocess.run(["apt-get", "download", *PACKAGES], check=True, cwd=packages)
        versions = unpack(packages, root)
        rows, counts = collect(root)
    write(rows, output)
    for name, version in versions.items():
        as_then = version == PACKAGES[name]
        then = (
            "as in the committed corpus" if as_then else f"the committed corpus: {PACKAGES[name]}"
        )
        print(f"{name} {version} ({then})")
    for reason, count in counts.most_common():
        print(f"{count:7,}  {reason}")
    pages = len({page for page, _, _ in rows})
    print(f"{len(rows):7,}  pairs of {pages:,} pages in {output} ({output.stat().st_size:,} bytes)")


if __name__ == "__main__":
    tyro.cli(main, prog=shell_command("data.build_docs_corpus"))
