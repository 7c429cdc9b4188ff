"""The toy grammar makes correct French and true alignments, and its scores are correct."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from smoke_runs import assert_is_a_test_run

from experiments import grammar
from experiments.data import grammar_trees, toy_grammar
from experiments.data.grammar_trees import (
    NOUNS,
    PARTICIPLES,
    PREPOSITIONS,
    VERBS,
    Clause,
    NounPhrase,
    Tree,
)
from experiments.data.toy_grammar import LECTURE, PHENOMENA, realise, sample, text
from experiments.measures import alignment_error
from experiments.measures.alignments import Alignment
from experiments.measures.grammar_scores import dictionary, error_rate, score_by_depth, word_by_word

ENGLISH = "The cat that was sitting on the mat, which was next to the dog, jumped"
FRENCH = "Le chat qui était assis sur le tapis, qui était à côté du chien, a sauté"

NOUN = {noun.english: noun for noun in NOUNS}
ADJECTIVE = {adjective.english: adjective for adjective in grammar_trees.ADJECTIVES}
VERB = {verb.english: verb for verb in reversed(VERBS)}  # ran: of animals
PLACE = {preposition.english[0]: preposition for preposition in PREPOSITIONS}


@pytest.fixture(scope="module")
def sentences():
    return sample(np.random.default_rng(7), 1500, (0, 1, 2, 3, 4))


def say(subject, verb, *adjectives, definite=True, clause=None):
    chosen = tuple(ADJECTIVE[word] for word in adjectives)
    return realise(Tree(NounPhrase(NOUN[subject], definite, chosen, clause), VERB[verb]))


def french(*args, **kwargs):
    return text(say(*args, **kwargs).french)


def links(sentence, which):
    return {(sentence.french[t], sentence.english[s]) for t, s in getattr(sentence, which)}


def test_the_lecture_sentence_is_realised_letter_by_letter():
    lecture = realise(LECTURE)
    assert (text(lecture.english), text(lecture.french)) == (ENGLISH, FRENCH)
    assert lecture.depth == 2


def test_the_lecture_sentence_has_its_true_alignment():
    lecture = realise(LECTURE)
    assert {word for word, english in links(lecture, "sure") if english == "jumped"} == {
        "a",
        "sauté",
    }
    assert {english for word, english in links(lecture, "sure") if word == "du"} == {"to", "the"}
    only_possible = links(lecture, "possible") - links(lecture, "sure")
    agreeing = {("le", "cat"), ("assis", "cat"), ("le", "mat"), ("du", "dog")}
    assert only_possible == agreeing | {("à", "next"), ("à", "to")}


def choices(node):
    """Every decision that `draw` makes in a tree, with what it depends on."""
    if isinstance(node, Tree):
        yield ("verb", node.subject.noun.kind, node.verb)
        yield from choices(node.subject)
    else:
        yield ("noun", node.noun)
        yield ("phrase", node.definite, node.adjectives, node.noun.kind)
        if node.clause:
            clause = node.clause
            yield ("clause", node.noun.kind, clause.participle, clause.restrictive, clause.present)
            yield ("place", clause.preposition, clause.place.noun.kind)
            yield from choices(clause.place)


def test_every_choice_in_the_lecture_sentence_is_one_that_the_grammar_draws():
    rng = np.random.default_rng(0)
    drawn = {choice for _ in range(2000) for choice in choices(grammar_trees.draw(rng, 2))}
    assert set(choices(LECTURE)) <= drawn


def test_an_adjective_changes_sides_and_its_link_crosses():
    sentence = say("cat", "slept", "black")
    assert text(sentence.english) == "The black cat slept"
    assert text(sentence.french) == "Le chat noir a dormi"
    assert {(1, 2), (2, 1)} <= sentence.sure
    assert french("cat", "slept", "small", "black") == "Le petit chat noir a dormi"


def test_an_article_elides_before_a_vowel_and_only_there():
    assert french("goose", "slept") == "L'oie a dormi"
    assert french("clock", "moved") == "L'horloge a bougé"
    assert french("goose", "slept", "small") == "La petite oie a dormi"
    assert french("bird", "slept", "old") == "Le vieil oiseau a dormi"
    assert french("dog", "slept", "old") == "Le vieux chien a dormi"


@pytest.mark.parametrize(
    ("noun", "definite", "expected"),
    [
        ("dog", True, "du chien"),
        ("table", True, "de la table"),
        ("tree", True, "de l'arbre"),
        ("dog", False, "d'un chien"),
        ("table", False, "d'une table"),
    ],
)
def test_de_contracts_with_the_article_that_follows(noun, definite, expected):
    clause = Clause(PLACE["near"], NounPhrase(NOUN[noun], definite))
    assert french("cat", "slept", clause=clause) == f"Le chat qui était près {expected} a dormi"


def test_a_participle_agrees_with_a_subject_two_clauses_away():
    under = Clause(PLACE["under"], NounPhrase(NOUN["bed"]), PARTICIPLES[2], present=True)
    clause = Clause(PLACE["behind"], NounPhrase(NOUN["dog"], clause=under), restrictive=False)
    said = say("she-cat", "fell", clause=clause)
    assert (
        text(said.english)
        == "The she-cat, which was behind the dog that is hidden under the bed, fell"
    )
    in_french = "La chatte, qui était derrière le chien qui est caché sous le lit, est tombée"
    assert text(said.french) == in_french
    assert ("tombée", "she-cat") in links(said, "possible")
    assert french("cat", "fell", clause=clause).endswith("est tombé")


def test_one_verb_has_the_sense_that_its_subject_gives_it():
    of_machines = next(verb for verb in VERBS if verb.participle == "fonctionné")
    clock = realise(Tree(NounPhrase(NOUN["clock"]), of_machines))
    assert text(clock.english) == "The clock ran"
    assert (french("goose", "ran"), text(clock.french)) == (
        "L'oie a couru",
        "L'horloge a fonctionné",
    )


def test_one_english_sentence_has_one_french_translation():
    rng = np.random.default_rng(1)
    translations = {}
    for _ in range(4000):  # short sentences, so that many are drawn twice
        sentence = realise(grammar_trees.draw(rng, 0))
        assert translations.setdefault(sentence.english, sentence.french) == sentence.french
    assert len(translations) < 3000


def test_no_sentence_breaks_a_rule_of_spelling(sentences):
    feminine = {noun.french for noun in NOUNS if noun.feminine}
    for sentence in sentences:
        pairs = set(itertools.pairwise(sentence.french))
        assert not pairs & {("de", "le"), ("de", "un"), ("de", "une")}
        for article, word in pairs:
            starts_with_vowel = word[0] in "aeiouéh"
            if article in ("le", "la"):
                assert not starts_with_vowel
            if article == "l'":
                assert starts_with_vowel
            if word in feminine:
                assert article not in ("le", "un", "du", "petit", "vieux", "vieil")


def test_every_word_has_a_link_and_sure_links_are_possible(sentences):
    for sentence in sentences:
        assert sentence.sure <= sentence.possible
        assert {target for target, _ in sentence.possible} == set(range(len(sentence.french)))
        assert {source for _, source in sentence.possible} == set(range(len(sentence.english)))


def test_spans_show_their_phenomenon_and_all_phenomena_occur(sentences):
    shown = {kind: set() for kind in PHENOMENA}
    for sentence in sentences:
        for kind, start, stop in sentence.spans:
            shown[kind].add(sentence.french[start:stop])
    assert ("chat", "noir") in shown["crossing"]
    assert {("l'", "oie"), ("d'", "un"), ("vieil", "arbre")} <= shown["elision"]
    assert {("est", "tombé"), ("est", "tombée")} <= shown["agreement"]
    assert ("a", "sauté") in shown["one-to-many"]
    assert shown["sense"] == {("a", "couru"), ("a", "fonctionné")}


def test_depth_counts_relative_clauses(sentences):
    assert {sentence.depth for sentence in sentences} == {0, 1, 2, 3, 4}
    assert all(sentence.french.count("qui") == sentence.depth for sentence in sentences)


def test_the_same_seed_draws_the_same_sentences():
    first, second, other = (sample(np.random.default_rng(seed), 20, (0, 3)) for seed in (5, 5, 6))
    assert first == second != other


def test_excluded_sentences_are_not_drawn_and_none_comes_twice():
    rng = np.random.default_rng(3)
    held_out = {sentence.english for sentence in sample(rng, 200, (0,))}
    rest = sample(rng, 500, (0,), exclude=held_out)
    assert len({sentence.english for sentence in rest}) == 500
    assert not held_out & {sentence.english for sentence in rest}


def test_more_sentences_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr(toy_grammar, "MOST_REPEATS", 4)
    with pytest.raises(ValueError, match="size=9000"):
        sample(np.random.default_rng(0), 9000, (0,))


def test_the_corpus_of_the_experiment_holds_out_its_test_and_the_lecture_sentence():
    settings = dataclasses.replace(grammar.PRESETS["quick"], sentences=2500, test_sentences=40)
    corpus = grammar.make_corpus(settings)
    train = {sentence.english for sentence in corpus.train}
    test = {sentence.english for sentence in corpus.test}
    assert not train & test
    assert realise(LECTURE).english not in train | test
    assert {word for english in test for word in english} <= {
        w for english in train for w in english
    }


def is_plain(sentence):
    """Nothing but words: no order, agreement, elision, contraction or second sense to get wrong."""
    feminine = {"la", "une", *(noun.french for noun in NOUNS if noun.feminine)}
    troubles = {"du", "d'", "l'", "vieil", "fonctionné", *feminine}
    kinds = {span.phenomenon for span in sentence.spans}
    return "crossing" not in kinds and not troubles & set(sentence.french)


def test_word_by_word_is_right_on_plain_sentences_and_never_where_words_cross(sentences):
    entries = dictionary()
    plain = [s for s in sentences if is_plain(s)]
    crossing = [s for s in sentences if any(span.phenomenon == "crossing" for span in s.spans)]
    assert len(plain) > 20
    assert len(crossing) > 200
    assert all(word_by_word(entries, s.english) == s.french for s in plain)
    assert not any(word_by_word(entries, s.english) == s.french for s in crossing)


def test_scores_count_exact_sentences_and_phenomena_by_depth():
    cats = [say("cat", "slept", "black"), say("cat", "fell", "black")]
    clause = Clause(PLACE["on"], NounPhrase(NOUN["tree"]))
    deep = say("cat", "slept", clause=clause)
    wrong = ("le", "noir", "chat", "est", "tombé")
    shallow, deeper = score_by_depth([*cats, deep], [cats[0].french, wrong, deep.french[:-1]])
    assert (shallow.depth, shallow.sentences, shallow.exact) == (0, 2, 0.5)
    assert shallow.phenomena == {"crossing": 0.5, "one-to-many": 1.0, "agreement": 1.0}
    assert (deeper.depth, deeper.sentences, deeper.exact) == (1, 1, 0.0)
    assert deeper.phenomena == {"one-to-many": 0.0, "elision": 1.0}


def attending(sentence, pairs):
    weights = np.full((len(sentence.french), len(sentence.english)), 0.01)
    for target, source in pairs:
        weights[target, source] = 0.9
    return Alignment(sentence.english, sentence.french, weights)


def test_gold_alignments_have_no_error_and_shifted_ones_have():
    sentence = say("cat", "slept", "black")
    gold = attending(sentence, sentence.sure)
    shifted = attending(sentence, {(t, (s + 1) % 4) for t, s in sentence.sure})
    assert error_rate([sentence], [gold]) == error_rate([sentence] * 2, [gold] * 2) == 0
    # The black cat slept: le reads black, noir cat, which it agrees with, the others what is wrong.
    assert error_rate([sentence], [shifted]) == pytest.approx(1 - (0 + 1) / (5 + 5))
    assert error_rate([sentence, sentence], [gold, shifted]) == pytest.approx(1 - (5 + 6) / 20)


def test_an_error_rate_needs_possible_links_to_hold_the_sure_ones():
    with pytest.raises(ValueError, match="must contain"):
        alignment_error.alignment_error_rate({(0, 0)}, {(0, 0)}, {(1, 1)})
    with pytest.raises(ValueError, match="pass at least one link"):
        alignment_error.alignment_error_rate(set(), set(), {(1, 1)})


def test_claims_about_the_lecture_fail_where_the_alignment_is_wrong():
    lecture = realise(LECTURE)
    good = attending(lecture, lecture.sure)
    at_the_comma = attending(lecture, {(t, min(s, 15)) for t, s in lecture.sure})
    assert all(claim.holds for claim in grammar.lecture_claims(lecture.french, good, 0.1, 0.2))
    wrong = grammar.lecture_claims(lecture.french[:-1], at_the_comma, 0.1, 0.21)
    assert [claim.holds for claim in wrong] == [False, False, False]


def test_the_experiment_runs_from_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--train.steps", "3", "--train.warmup-steps", "1", "--test-sentences", "8"]
    assert grammar.main(["--preset", "smoke", *options]) == 0
    report = tmp_path / "runs" / "grammar-smoke" / "report"
    found = json.loads((report / "report.json").read_text())
    assert found["source"] == list(realise(LECTURE).english)
    assert list(found["scores"]) == ["word by word", "RNN, last state", "RNN + attention"]
    assert len(found["claims"]) == 7
    assert_is_a_test_run(capsys.readouterr().out, report / "report.md")
    assert (report / "report.md").read_text().startswith("# The lecture's sentence")
    figures = ("accuracy_by_depth.png", "alignments.png")
    assert all((report / name).stat().st_size > 5000 for name in figures)
