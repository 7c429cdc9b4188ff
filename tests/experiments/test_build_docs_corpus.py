import hashlib
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from experiments.data import build_docs_corpus as build
from experiments.data.manual_pages import clean, read_page


def texts(html):
    return [block.text for block in read_page(html).blocks]


def switch(*alternatives, kind="sys"):
    spans = "".join(
        f'<span hidden="true" id="{name}x_1"{f' class="{name}"' if name != "default" else ""}>'
        f"{text}</span>"
        for name, text in alternatives
    )
    return f'<span id="swln{kind}x_1" class="switchinline">{spans}</span>'


# --- Reading a page ---------------------------------------------------------------------------


def test_one_platform_of_several_stays():
    menu = switch(
        ("MAC", '<span class="menuitem">LibreOffice - Preferences</span>'),
        ("default", '<span class="menuitem">Tools - Options</span>'),
    )
    assert texts(f"<p>Choose {menu} - Load.</p>") == ["Choose Tools - Options - Load."]


def test_the_first_application_stays_where_there_is_no_default():
    page = switch(("IMPRESS", "slide"), ("WRITER", "page"), ("CALC", "sheet"), kind="appl")
    assert texts(f"<p>Moves back one {page}.</p>") == ["Moves back one page."]


def test_a_switch_inside_a_switch_is_resolved():
    inner = switch(("MAC", "Command"), ("default", "Ctrl"))
    outer = switch(("CALC", f"press {inner}+F2"), ("default", f"press {inner}+F3"), kind="appl")
    assert texts(f"<p>Now {outer} twice.</p>") == ["Now press Ctrl+F3 twice."]


def test_nothing_stays_of_what_only_a_mac_has():
    assert texts(f"<p>Quit{switch(('MAC', ' or hide'), ('default', ''))}.</p>") == ["Quit."]


def test_keys_written_side_by_side_are_joined_and_parted_from_words():
    keys = '<span class="keycode">Ctrl</span><span class="keycode">Entrée</span>'
    html = f'<p>appuyez sur{keys}, puis <span class="keycode">+S</span></p>'
    assert texts(html) == ["appuyez sur Ctrl+Entrée, puis +S"]


def test_a_name_is_parted_from_the_word_before_but_an_ending_is_not_cut_off():
    html = '<p>choisissez<span class="menuitem">Outils</span> - <b class="emph">Menu</b>s</p>'
    assert texts(html) == ["choisissez Outils - Menus"]
    assert texts('<p>touche<span class="keycode">F</span></p>') == ["touche F"]


def test_navigation_scripts_and_icons_are_left_out():
    html = """<html><head><title>T</title></head><body><div id="page-header">Menu</div>
      <script>if (1 < 2) {}</script><div class="toplang"><p>fr</p></div>
      <h2 id="a">Heading<a class="permalink" href="#a">&para;</a></h2>
      <div class="noteicon"><p>note</p></div><p>Text<img src="x"> here.</p></body></html>"""
    assert texts(html) == ["Heading", "Text here."]


def test_a_block_has_its_tag_its_id_and_its_section():
    html = '<h2 id="use">Use</h2><dl><dt>A</dt><dd id="d">An <code>a</code> thing</dd></dl>'
    found = [tuple(block) for block in read_page(html).blocks]
    assert found == [
        ("h2", "use", "use", "Use"),
        ("dt", "", "use", "A"),
        ("dd", "d", "use", "An a thing"),
    ]


def test_text_that_is_mostly_code_is_code():
    html = "<p>See <code>Alias</code> here.</p><p><code>Alias /a /b</code></p><pre>x = 1</pre>"
    assert [block.kind for block in read_page(html).blocks] == ["p", "code", "code"]


def test_the_language_is_that_of_the_lang_attribute():
    assert read_page('<html lang="pt-br"><p>Olá</p></html>').language == "pt-br"


def test_cleaning_makes_space_apostrophes_and_keys_uniform():
    assert clean("\ufeffL\u2019e\u0301te\u0301\u00a0:\n Ctrl +  F et Maj+ F5\u00ad.") == (
        "L'été : Ctrl+F et Maj+F5."
    )


# --- Joining two pages ------------------------------------------------------------------------


def joined(join, english, french):
    pairs = join(read_page(english).blocks, read_page(french).blocks)
    return [(left.text, right.text) for left, right in pairs]


def test_help_pages_are_joined_by_paragraph_id_in_any_order():
    english = '<p id="par_id1">one</p><h1 id="hd_id2">two</h1><p id="bm_3">code</p><p>no id</p>'
    french = '<h1 id="hd_id2">deux</h1><p id="par_id9">neuf</p><p id="par_id1">un</p>'
    assert joined(build.join_by_id, english, french) == [("one", "un"), ("two", "deux")]


def test_an_id_used_twice_is_paired_in_order_or_not_at_all():
    english = '<p id="par_1">a</p><p id="par_1">b</p><p id="par_2">c</p><p id="par_2">d</p>'
    french = '<p id="par_1">x</p><p id="par_1">y</p><p id="par_2">z</p>'
    assert joined(build.join_by_id, english, french) == [("a", "x"), ("b", "y")]


def test_manual_pages_with_the_same_tags_are_joined_block_by_block():
    english, french = "<h1>A</h1><p>b</p><p>c</p>", "<h1>À</h1><p>bé</p><p>cé</p>"
    assert joined(build.join_by_sequence, english, french) == [("A", "À"), ("b", "bé"), ("c", "cé")]


def test_only_sections_with_the_same_tags_are_joined_otherwise():
    english = '<h2 id="a">A</h2><p>a1</p><p>a2</p><h2 id="b">B</h2><p>b1</p>'
    french = '<h2 id="b">Bé</h2><p>bé1</p><h2 id="a">Â</h2><p>â1</p>'
    assert joined(build.join_by_sequence, english, french) == [("B", "Bé"), ("b1", "bé1")]


def test_options_in_another_order_are_not_joined():
    english = "<dl><dt>-e</dt><dd>echo</dd><dt>-c</dt><dd>create</dd></dl>"
    french = "<dl><dt>-c</dt><dd>crée</dd><dt>-e</dt><dd>écho</dd></dl>"
    assert joined(build.join_by_sequence, english, french) == []


# --- Dropping, writing, building --------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("Click the OK button.", "Cliquez sur le bouton OK.", None),
        ("Click, then OK!", "Cliquez, puis sur OK !", "fewer than 4 words"),
        ("Stop the server now.", "Stop the server now.", "not translated"),
        ("Sets the server name.", "Cette page n'a pas encore été traduite.", "not translated"),
        ("Click the Borders tab.", "un deux trois " * 5, "lengths too different"),
        ("one two three " * 5, "Un et deux.", "lengths too different"),
        ("See [a.xhp not found] and SUM", "Voir [a.xhp not found] et SOMME", "a paragraph that"),
    ],
)
def test_pairs_that_teach_nothing_are_dropped_with_a_reason(source, target, reason):
    actual = build.reason_to_drop(source, target)
    assert actual is None if reason is None else str(actual).startswith(reason)


def page(language, *paragraphs):
    text = "".join(f'<p id="par_{n}">{paragraph}</p>' for n, paragraph in enumerate(paragraphs))
    return f'<html lang="{language}"><body>{text}</body></html>'


def write_manuals(root, pages):
    share = Path(root, "usr", "share")
    for path, html in pages.items():
        file = share / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(html, encoding="utf-8")


HELP, MANUAL = "libreoffice/help", "doc/apache2-doc/manual"
PAGES = {
    f"{HELP}/en-US/text/swriter/b.html": page("en-US", "Opens the second file.", "Yes"),
    f"{HELP}/fr/text/swriter/b.html": page("fr", "Ouvre le second fichier.", "Oui"),
    f"{HELP}/en-US/text/swriter/a.html": page("en-US", "Opens the first file.", "Saves the file."),
    f"{HELP}/fr/text/swriter/a.html": page("fr", "Ouvre le premier fichier.", "Enregistre."),
    f"{MANUAL}/en/bind.html": page("pt-br", "Como o servidor escuta hoje."),
    f"{MANUAL}/fr/bind.html": page("fr", "Comment le serveur écoute."),
    f"{MANUAL}/en/logs.html": page("en", "Opens the first file.", "Where the logs are kept."),
    f"{MANUAL}/fr/logs.html": page("fr", "Ouvre le premier fichier.", "Où sont les journaux."),
    f"{MANUAL}/en/only.html": page("en", "There is no French here."),
}
ROWS = [
    ("libreoffice/swriter/a", "Opens the first file.", "Ouvre le premier fichier."),
    ("libreoffice/swriter/b", "Opens the second file.", "Ouvre le second fichier."),
    ("apache/logs", "Where the logs are kept.", "Où sont les journaux."),
]


def test_rows_name_their_page_and_duplicates_and_foreign_pages_are_left_out(tmp_path):
    write_manuals(tmp_path, PAGES)
    rows, counts = build.collect(tmp_path)
    assert rows == ROWS
    assert counts == {
        "kept from libreoffice": 2,
        "kept from apache": 1,
        "fewer than 4 words": 2,
        "already there": 1,
    }


def test_a_folder_without_the_manuals_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no manual at .*en-US.*; unpack all of libreoffice-help"):
        build.collect(tmp_path)


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        build.write(ROWS, tmp_path / name / "docs.tsv.xz")
    first, second = ((tmp_path / name / "docs.tsv.xz").read_bytes() for name in ("one", "two"))
    assert first == second
    lines = lzma.decompress(first).decode("utf-8").split("\n")
    assert lines == ["page\tsource\ttarget", *map("\t".join, ROWS), ""]


def package(name, version, pages, folder):
    """A .deb as `apt-get download` leaves it."""
    root = folder / f"{name}-root"
    write_manuals(root, pages)
    (root / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: A Test <test@example.com>\nDescription: a test\n"
    (root / "DEBIAN" / "control").write_text(control)
    command = ["dpkg-deb", "--build", "--root-owner-group", "-Zgzip", str(root)]
    subprocess.run([*command, str(folder / f"{name}_1_all.deb")], check=True, capture_output=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb, which takes Debian's packages apart, is not on this system")
    folder = tmp_path_factory.mktemp("packages")
    parts = {"libreoffice-help-en-us": "en-US/", "libreoffice-help-fr": "help/fr/"}
    for name, part in {**parts, "apache2-doc": MANUAL}.items():
        chosen = {path: html for path, html in PAGES.items() if part in path}
        package(name, "9" if name == "apache2-doc" else build.PACKAGES[name], chosen, folder)
    return folder


def test_the_corpus_is_built_from_downloaded_packages(packages, tmp_path, capsys):
    build.main(packages, tmp_path / "docs.tsv.xz")
    lines = lzma.decompress((tmp_path / "docs.tsv.xz").read_bytes()).decode().splitlines()
    assert lines[1:] == list(map("\t".join, ROWS))
    printed = capsys.readouterr().out
    assert "apache2-doc 9 (the committed corpus: 2.4." in printed
    assert "libreoffice-help-fr 4:7.4.7-1+deb12u14 (as in the committed corpus)" in printed
    assert "3  pairs of 3 pages in" in printed


def test_a_missing_package_is_named(packages, tmp_path):
    with pytest.raises(ValueError, match=r"holds 0 files libreoffice-help-en-us_\*\.deb, not one"):
        build.main(tmp_path, tmp_path / "docs.tsv.xz")
    assert not (tmp_path / "docs.tsv.xz").exists()


def test_the_committed_corpus_is_the_one_that_its_readme_and_notice_describe():
    digest = hashlib.sha256(build.OUTPUT.read_bytes()).hexdigest()
    readme = build.OUTPUT.with_name("README.md").read_text("utf-8")
    notice = Path(build.__file__).parents[2].joinpath("NOTICE").read_text("utf-8")
    assert digest in readme
    for name, version in build.PACKAGES.items():
        assert name in readme
        assert name in notice
        assert version in readme
        assert version in notice
