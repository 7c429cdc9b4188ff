"""A stored outcome comes back as it was, and only for the run that it belongs to."""

import dataclasses

import numpy as np
import pytest

from experiments.data.tokens import encode, train_tokenizer
from experiments.measures import outcomes
from experiments.measures.alignments import Alignment, Picks
from experiments.measures.outcomes import Outcome, TracedSentence
from experiments.measures.scores import SystemOutput
from experiments.measures.showcase import best_translated
from experiments.reports.animation import page, view
from experiments.training.sentences import Vocabulary, unknown_parts

KEY = {"checkpoint": "c0ffee", "beam": {"width": 4, "length_penalty": 0.6}}
VOCABULARY = Vocabulary(
    train_tokenizer(["the red car stops"] * 3, 40), train_tokenizer(["la voiture rouge"] * 3, 42)
)


def padded_fields(S=6, L=9, n=5, E=7, k=2):
    """The fields of a trace with padding; every row of weights sums to one."""
    rng = np.random.default_rng(0)
    annotations = rng.normal(size=(S, E)).astype(np.float32)
    weights = np.zeros((L, S), np.float32)
    weights[:, :4] = rng.dirichlet(np.ones(4), size=L)
    mask = np.arange(S) < 4
    return {
        "source": np.arange(S, dtype=np.int32),
        "source_mask": mask,
        "target": np.arange(L, dtype=np.int32),
        "target_mask": np.arange(L) < 4,
        "states": rng.normal(size=(L, n)).astype(np.float32),
        "scores": rng.normal(size=(L, S)).astype(np.float32),
        "weights": weights,
        "contexts": weights @ annotations,
        "top_tokens": rng.integers(4, 10, (L, k)).astype(np.int32),
        "top_log_probs": -rng.random((L, k)).astype(np.float32),
        "annotations": annotations,
    }


@pytest.fixture(scope="module")
def traced():
    source = encode(VOCABULARY.english, "the red car stops")
    target = encode(VOCABULARY.french, "la voiture rouge")
    assert (len(source), len(target)) == (4, 3)
    return TracedSentence.of("One sentence", VOCABULARY, source, target, padded_fields())


@pytest.fixture(scope="module")
def outcome(traced):
    alignment = Alignment(("a", "b"), ("c",), np.array([[0.25, 0.75]]), np.array([[False, True]]))
    return Outcome(
        SystemOutput("a system", ("un", "deux"), 1.5, 7, "a note"),
        "le chat",
        Picks((alignment,), "a rule", (3,)),
        alignment,
        (traced,),
    )


def same(one, other):
    """Whether two trees of dataclasses, tuples, dicts and arrays are equal."""
    if dataclasses.is_dataclass(one):
        return type(one) is type(other) and same(vars(one), vars(other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one == other


def test_a_stored_outcome_comes_back_with_every_bit(outcome, tmp_path):
    outcomes.store(tmp_path / "new", KEY, outcome)
    assert same(outcomes.load(tmp_path / "new", KEY), outcome)
    plain = Outcome(outcome.output, "le chat")
    outcomes.store(tmp_path / "new", KEY, plain)
    assert same(outcomes.load(tmp_path / "new", KEY), plain)


def test_another_key_or_version_and_a_damaged_file_give_none(outcome, tmp_path, monkeypatch):
    assert outcomes.load(tmp_path, KEY) is None
    outcomes.store(tmp_path, KEY, outcome)
    assert outcomes.load(tmp_path, {**KEY, "checkpoint": "another"}) is None
    path = tmp_path / "outcome.json"
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    assert outcomes.load(tmp_path, KEY) is None
    path.write_text(whole)
    assert outcomes.load(tmp_path, KEY) is not None
    monkeypatch.setattr(outcomes, "FORMAT", 99)
    assert outcomes.load(tmp_path, KEY) is None


def test_the_digest_of_sources_is_of_every_python_file_and_of_nothing_else(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first / "inner", second):
        folder.mkdir(parents=True)
        (folder / "search.py").write_text("width = 4\n")
    digests = [outcomes.sources_digest([first, second])]
    (first / "notes.md").write_text("no code")
    assert outcomes.sources_digest([first, second]) == digests[0]
    (first / "inner/search.py").write_text("width = 5\n")
    digests.append(outcomes.sources_digest([first, second]))
    (second / "search.py").rename(second / "find.py")
    digests.append(outcomes.sources_digest([first, second]))
    assert len(set(digests)) == 3


def test_a_traced_sentence_has_no_padding(traced):
    shapes = {name: field.shape for name, field in traced.fields.items()}
    assert shapes["weights"] == shapes["scores"] == (4, 4)
    assert (shapes["states"], shapes["contexts"]) == ((4, 5), (4, 7))
    assert (shapes["annotations"], shapes["source"]) == ((4, 7), (4,))
    assert traced.target[-1] == "<end>"
    assert traced.target_words == (0, 1, 2, 3)


def test_the_page_has_the_animation_of_every_sentence(traced):
    [reading] = view(traced).readings
    assert reading.decode is not None
    assert reading.decode["annotations"] is not None
    assert reading.decode["candidates"][0][0] in {
        text.strip("▁") for text in traced.labels.values()
    }
    other = dataclasses.replace(traced, title="Another sentence")
    html = page([traced, other], "Two sentences").decode()
    assert "One sentence" in html
    assert "Another sentence" in html


def test_unknown_characters_and_words_are_found(tmp_path):
    (tmp_path / "words.txt").write_text("car\nred\nstops\nthe\n")
    find = unknown_parts
    assert find(VOCABULARY, tmp_path, "The red CAR stops") == ([], [])
    assert find(VOCABULARY, tmp_path, "the care Ω Ωred ж the") == (["Ω", "ж"], ["care"])
    assert find(VOCABULARY, tmp_path / "older", "care") == ([], [])


def test_the_sentence_that_is_shown_is_short_well_translated_and_fits():
    sources = ["one " * 20, "a b c d e f", "g h i j k", "l m n o p", "q"]
    references = ["le chien dort bien"] * 5
    translations = ["le chien dort bien", "le chat", "le chien dort", "le chien dort", "le chien"]
    assert best_translated(sources, translations, references) == "g h i j k"
    fits = {"l m n o p", "a b c d e f"}.__contains__
    assert best_translated(sources, translations, references, fits) == "l m n o p"
    assert best_translated(sources, translations, references, lambda _: False) == sources[0]
