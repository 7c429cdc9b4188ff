"""Scores against sacrebleu's own corpus scores, intervals and resamples."""

import math

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF

from experiments.measures import scores

WORDS = ("le", "la", "serveur", "fichier", "dans", "page", "avec", "lit", "écrit", "«", "l'option")


def sentences(rng, lengths):
    return tuple(" ".join(rng.choice(WORDS, size=n)) for n in lengths)


def noisy(rng, references, share):
    def word(right):
        return rng.choice(WORDS) if rng.random() < share else right

    return tuple(" ".join(map(word, line.split())).upper() for line in references)


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(3, 41, size=120), *[70, 71, 72]]
    sources = tuple(" ".join(["word"] * n) for n in lengths)
    references = sentences(rng, lengths)
    systems = tuple(
        scores.SystemOutput(name, noisy(rng, references, share), 1.5, 7)
        for name, share in (("worse", 0.6), ("better", 0.3), ("much the same", 0.31))
    )
    return systems, sources, references


@pytest.fixture(scope="module")
def scored(corpus):
    return scores.score_systems(*corpus)


def members(sources, length_bin):
    return [i for i, source in enumerate(sources) if scores.word_count(source) in length_bin]


def test_every_row_is_sacrebleus_corpus_bleu_of_its_sentences(corpus, scored):
    systems, sources, references = corpus
    checked = 0
    for system, table in zip(systems, scored.tables, strict=True):
        for length_bin in (*scores.BINS, scores.OVER_20, scores.ALL):
            inside = members(sources, length_bin)
            row = table.row(length_bin.label)
            assert row.sentences == len(inside)
            if inside:
                ours = [system.translations[i] for i in inside]
                theirs = [[references[i] for i in inside]]
                assert row.bleu == BLEU(lowercase=True).corpus_score(ours, theirs).score
                checked += 1
    assert checked == 3 * 7


def test_chrf_is_sacrebleus(corpus, scored):
    systems, _, references = corpus
    expected = CHRF(lowercase=True).corpus_score(systems[1].translations, [references]).score
    assert scored.table("better").chrf == expected


def test_interval_has_the_width_of_sacrebleus(corpus, scored):
    systems, _, references = corpus
    theirs = BLEU(lowercase=True).corpus_score(
        systems[0].translations, [references], n_bootstrap=scores.RESAMPLES
    )
    low, high = scored.table("worse").row("all").interval
    assert low < theirs.score < high
    assert math.isclose((high - low) / 2, theirs._ci, rel_tol=1e-4)  # theirs sums in float32


def test_interval_covers_the_score_of_new_sentences_about_95_times_in_100():
    rng = np.random.default_rng(1)
    references = sentences(rng, rng.integers(5, 30, size=4000))
    counts = scores.sentence_statistics(noisy(rng, references, 0.4), references)
    truth = scores.bleu(counts.sum(axis=0))
    covered = 0
    weights = scores.resample(80)[:200]
    for sample in rng.choice(len(counts), size=(60, 80)):
        low, high = scores.interval(np.array([scores.bleu(w @ counts[sample]) for w in weights]))
        covered += low <= truth <= high
    assert 50 <= covered <= 60  # 57 are expected; fewer than 50 happen once in 2,000 times


def test_same_seed_gives_the_same_scores_and_another_seed_other_intervals(corpus, scored):
    assert scores.score_systems(*corpus) == scored
    other = scores.score_systems(*corpus, seed=1).tables[0].row("all")
    ours = scored.tables[0].row("all")
    assert other.bleu == ours.bleu
    assert other.interval != ours.interval


@pytest.mark.parametrize(
    ("length", "label"),
    [
        (1, "1–10"),
        (10, "1–10"),
        (11, "11–20"),
        (20, "11–20"),
        (21, "21–30"),
        (30, "21–30"),
        (31, "31–40"),
        (40, "31–40"),
        (41, "41–60"),
        (60, "41–60"),
        (61, "over 60"),
        (500, "over 60"),
    ],
)
def test_every_length_is_in_one_bin(length, label):
    assert [b.label for b in scores.BINS if length in b] == [label]
    assert (length in scores.OVER_20) == (length > 20)
    assert length in scores.ALL


def test_length_counts_words_and_not_punctuation():
    assert scores.word_count("The cat, which was next to the dog, jumped!") == 9


def test_tiny_bins_have_a_score_but_no_interval_and_empty_ones_neither(scored):
    tiny, empty = scored.tables[0].row("over 60"), scored.tables[0].row("41–60")
    assert tiny.sentences == 3
    assert tiny.bleu is not None
    assert tiny.interval is None
    assert empty == scores.LengthRow("41–60", 0, None, None)


def test_too_few_sentences_are_not_compared(corpus):
    systems, sources, references = corpus
    few = [scores.SystemOutput(s.name, s.translations[:9], s.seconds, 1) for s in systems]
    found = scores.score_systems(few, sources[:9], references[:9])
    assert found.tables[0].row("all").sentences == 9
    assert found.comparisons == ()
    assert found.comparison("worse", "better", "all") is None


def test_comparison_is_paired_and_two_sided(corpus, scored):
    systems, _, references = corpus
    first, second = (
        scores.sentence_statistics(system.translations, references) for system in systems[1:]
    )
    weights = scores.resample(len(references))
    samples = np.array([scores.bleu(w @ first) - scores.bleu(w @ second) for w in weights])
    found = scored.comparison("better", "much the same", "all")
    assert found.wins == np.mean(samples > 0)
    normal = math.erfc(abs(found.difference) / samples.std() / math.sqrt(2))
    assert found.p_value == pytest.approx(normal, abs=0.06)


def test_a_clear_difference_is_found_and_is_the_same_in_both_orders(scored):
    forth = scored.comparison("better", "worse", "over 20")
    back = scored.comparison("worse", "better", "over 20")
    assert forth.difference == -back.difference > 10
    assert (forth.wins, forth.losses) == (back.losses, back.wins) == (1.0, 0.0)
    assert forth.p_value == back.p_value == 1 / (scores.RESAMPLES + 1)


def test_equal_systems_have_no_significant_difference(corpus):
    systems, sources, references = corpus
    twin = scores.SystemOutput("twin", systems[0].translations, 1.0, 1)
    found = scores.score_systems([systems[0], twin], sources, references).comparison(
        "worse", "twin", "all"
    )
    assert (found.difference, found.wins, found.losses, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_translations_without_a_word_score_zero(corpus):
    _, sources, references = corpus
    silent = scores.SystemOutput("silent", ("",) * len(sources), 1.0, 1)
    row = scores.score_systems([silent], sources, references).tables[0].row("all")
    assert (row.bleu, row.interval) == (0.0, (0.0, 0.0))


def test_references_without_a_token_have_no_length_ratio():
    words = scores.SystemOutput("words", ("un chat",) * 3, 1.0, 1)
    row = scores.score_systems([words], ["a cat"] * 3, [""] * 3).tables[0].row("all")
    assert (row.sentences, row.bleu) == (3, 0.0)
    assert (row.length_ratio, row.brevity_penalty, row.without_penalty) == (None, None, 0.0)


def test_signature_has_what_repeats_the_score(scored):
    parts = set(scored.bleu_signature.split("|"))
    assert {"case:lc", "tok:13a", "nrefs:1", "bs:1000", "seed:12345"} <= parts


@pytest.mark.parametrize(
    ("systems", "sources", "references", "message"),
    [
        ([], ["a"], ["b"], "systems has 0"),
        ([("x", ())], [], [], "sources 0"),
        ([("x", ("b",)), ("x", ("b",))], ["a"], ["b"], "own"),
        ([("x", ("b",))], ["a"], ["b", "c"], "references has 2"),
        ([("x", ("b", "c"))], ["a"], ["b"], "translations of 'x' has 2"),
        ([("x", ("b", "c"))], ["a", "!"], ["b", "c"], r"sources\[1\] has no words"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(systems, sources, references, message):
    outputs = [scores.SystemOutput(name, lines, 1.0, 1) for name, lines in systems]
    with pytest.raises(ValueError, match=message):
        scores.score_systems(outputs, sources, references)
