import dataclasses
import gzip
import lzma
import re

import pytest

from experiments.data.corpora import Corpus, Pair, SubsetRule, load_corpus
from experiments.data.words import words


@pytest.fixture(scope="module")
def docs():
    return load_corpus("docs")


def splits(corpus):
    return {"train": corpus.train, "validation": corpus.validation, "test": corpus.test}


def test_no_page_is_in_two_splits(docs):
    pages = [{pair.page for pair in pairs} for pairs in splits(docs).values()]
    assert not pages[0] & pages[1]
    assert not pages[0] & pages[2]
    assert not pages[1] & pages[2]


def test_no_held_out_text_occurs_in_training(docs):
    sources = {pair.source.lower() for pair in docs.train}
    targets = {pair.target.lower() for pair in docs.train}
    for pair in docs.validation + docs.test:
        assert pair.source.lower() not in sources
        assert pair.target.lower() not in targets


def test_the_committed_corpus_has_the_size_that_its_readme_states(docs):
    assert {name: len(pairs) for name, pairs in splits(docs).items()} == {
        "train": 30_227,
        "validation": 959,
        "test": 2_081,
    }
    assert len(SubsetRule(4, 24, frequent_words=2500).apply(docs).test) == 694


def test_the_note_counts_what_was_left_out_of_the_test(docs):
    left_out = re.search(r"training: (\d+) test and (\d+) validation", docs.note)
    assert left_out is not None
    assert sum(map(len, splits(docs).values())) + sum(map(int, left_out.groups())) == 33_331


def test_held_out_text_that_occurs_in_training_is_left_out(tmp_path):
    pages = [f"page{n}" for n in range(60)]
    lines = [f"{page}\tthe text number {n}\tle texte {n}" for n, page in enumerate(pages)]
    (tmp_path / "docs_enfr.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = load_corpus("docs", tmp_path)
    repeated = [
        f"{pair.page}\tTHE COMMON TEXT\tcommun {pair.page}" for pair in before.test + before.train
    ]
    (tmp_path / "docs_enfr.tsv").write_text("\n".join(lines + repeated) + "\n", encoding="utf-8")
    after = load_corpus("docs", tmp_path)
    assert before.test == after.test
    assert len(after.train) == 2 * len(before.train)
    assert f"{len(before.test)} test" in after.note


# --- Subset rules -----------------------------------------------------------------------------


def corpus_of(*sources, test=()):
    pairs = [Pair(source, source.upper(), f"p{n}") for n, source in enumerate([*sources, *test])]
    train, held_out = tuple(pairs[: len(sources)]), tuple(pairs[len(sources) :])
    return Corpus("toy", train, (), held_out, licence="none", note="Made up.")


def sources(pairs):
    return [pair.source for pair in pairs]


def test_a_rule_counts_words_not_punctuation():
    corpus = corpus_of("a b c", "a b, c: d!", "a b c d e f")
    assert sources(SubsetRule(4, 5).apply(corpus).train) == ["a b, c: d!"]


def test_frequent_words_are_those_of_the_training_sources_only():
    corpus = corpus_of("a a", "a b", "b c", test=("a b", "b a", "c c", "c c c"))
    kept = SubsetRule(1, 9, frequent_words=2).apply(corpus)
    assert sources(kept.train) == ["a a", "a b"]
    assert sources(kept.test) == ["a b", "b a"]


def test_the_most_training_pairs_are_drawn_from_everywhere_and_stay_in_order():
    corpus = corpus_of(*(f"word{n:03d}" for n in range(200)), test=("word000", "other"))
    kept = SubsetRule(max_train=20).apply(corpus)
    found = sources(kept.train)
    assert len(found) == 20
    assert found == sorted(found)
    assert found[0] < "word050"
    assert found[-1] > "word150"
    assert kept.test == corpus.test


def test_the_rule_states_itself_and_its_counts_in_the_note():
    corpus = corpus_of("a a", "a b", "b c", test=("a b", "b d"))
    note = SubsetRule(1, 9, frequent_words=2).apply(corpus).note
    assert note == (
        "Made up. Kept by rule: sources of 1 to 9 words, all among the 2 most frequent words of "
        "the training sources; that keeps 2 training, 0 validation and 1 test pairs and drops 1, "
        "0 and 1."
    )


def test_the_rule_holds_for_every_pair_that_is_left(docs):
    part = dataclasses.replace(docs, train=docs.train[:3000])
    kept = SubsetRule(5, 7, frequent_words=900, max_train=100).apply(part)
    assert len(kept.train) == 100
    assert all(5 <= len(words(p.source)) <= 7 for pairs in splits(kept).values() for p in pairs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_words": 0}, "min_words=0 must be at least 1"),
        ({"frequent_words": -1}, "frequent_words=-1"),
        ({"min_words": 9, "max_words": 8}, "min_words=9 is above max_words=8"),
    ],
)
def test_a_rule_that_fits_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SubsetRule(**arguments)


def test_a_rule_that_leaves_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match="keeps no training pair of toy"):
        SubsetRule(min_words=3).apply(corpus_of("a b"))


# --- Other corpora ----------------------------------------------------------------------------


def write_captions(folder, **lines):
    for stem in ("train", "val", "test_2016_flickr"):
        for language in ("en", "fr"):
            text = lines.get(f"{stem}_{language}", f"a {stem} in {language}\nOne\u00a0more.\n")
            with gzip.open(folder / f"{stem}.{language}.gz", "wt", encoding="utf-8") as file:
                file.write(text)


def test_multi30k_keeps_its_official_splits(tmp_path):
    write_captions(tmp_path)
    corpus = load_corpus("multi30k", tmp_path)
    assert corpus.train == (
        Pair("a train in en", "a train in fr", ""),
        Pair("One more.", "One more.", ""),
    )
    assert corpus.test[0].source == "a test_2016_flickr in en"
    assert "the text of 1 test pairs also occurs in training" in corpus.note


def test_captions_without_a_translation_are_refused(tmp_path):
    write_captions(tmp_path, val_fr="une seule\n")
    with pytest.raises(
        ValueError, match=r"val\.en\.gz has 2 lines and val\.fr\.gz 1; .*fetch both"
    ):
        load_corpus("multi30k", tmp_path)


def test_acts_are_split_by_act(tmp_path):
    lines = [f"A-{n % 40}\tSection {n} of it.\tArticle {n}.\n" for n in range(200)]
    (tmp_path / "canada_acts_en_fr.tsv.gz").write_bytes(gzip.compress("".join(lines).encode()))
    corpus = load_corpus("acts", tmp_path)
    pages = [{pair.page for pair in pairs} for pairs in splits(corpus).values()]
    assert sum(map(len, pages)) == len(set.union(*pages)) == 40
    assert pages[2]
    assert corpus.licence == "Open Government Licence – Canada"


# --- What can be wrong with a file ------------------------------------------------------------


def test_an_unknown_corpus_is_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match=r"name='wmt14' is no known corpus.*docs, multi30k, acts"):
        load_corpus("wmt14")


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("docs", "python -m experiments.data.build_docs_corpus"),
        ("multi30k", "https://github.com/multi30k/dataset"),
        ("acts", "https://github.com/justicecanada/laws-lois-xml"),
    ],
)
def test_a_missing_file_is_named_with_the_place_to_get_it(name, where, tmp_path):
    with pytest.raises(ValueError, match=rf"no file {tmp_path}.*{re.escape(where)}"):
        load_corpus(name, tmp_path)


def test_a_corpus_outside_the_repository_needs_its_folder():
    with pytest.raises(ValueError, match="data_dir=None, but acts is not in the repository; make"):
        load_corpus("acts")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"p\tonly one", "line 3: 2 fields instead of 3 .page, source, target"),
        (b"p\ta\tb\tc", "line 3: 4 fields instead of 3"),
        (b"p\t  \tb", "line 3: source is empty; remove the line"),
        (b"", "line 3: the line is empty"),
        (b"p\tcaf\xe9\tb", "line 3: byte 5 .0xe9. is not UTF-8; convert"),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress])
def test_a_bad_line_is_named(line, message, compress, tmp_path):
    suffix = {gzip.compress: ".gz", lzma.compress: ".xz"}.get(compress, "")
    path = tmp_path / f"docs_enfr.tsv{suffix}"
    path.write_bytes(compress(b"page\tsource\ttarget\np\ta\tb\n" + line + b"\np\tc\td\n"))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}, {message}"):
        load_corpus("docs", tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_is_refused(suffix, damage, tmp_path):
    text = "".join(f"page{n}\tsource {n * n}\ttarget {n}\n" for n in range(3000)).encode()
    data = gzip.compress(text) if suffix == ".gz" else lzma.compress(text)
    middle = len(data) // 2
    broken = data[:middle] if damage == "cut" else data[:middle] + bytes(99) + data[middle + 99 :]
    path = tmp_path / f"docs_enfr.tsv{suffix}"
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"is truncated or damaged \(.*\); fetch the file"):
        load_corpus("docs", tmp_path)
