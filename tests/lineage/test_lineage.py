"""The lineage: each function exists, each source has a link, each reduction a passing test."""

import graphlib
import importlib
import re
import tomllib
from pathlib import Path

import pytest

from attn_jax._lineage import draw, lineage

BOOK = "https://www.manning.com/books/"
# Papers before arXiv, or beside it: their addresses have no year in them.
OLDER = {
    "https://doi.org/10.1207/s15516709cog1402_1": 1990,
    "https://doi.org/10.1162/neco.1997.9.8.1735": 1997,
    "https://cdn.openai.com/research-covers/language-unsupervised/"
    "language_understanding_paper.pdf": 2018,
}
EDGES = [(name, edge.to) for name, step in lineage.items() for edge in step.reduces_to]
TABLE = Path(__file__).parents[1] / "data" / "reductions.toml"
PROOFS = {
    (row["mechanism"], row["to"]): row["test"]
    for row in tomllib.loads(TABLE.read_text())["reduction"]
}


@pytest.mark.parametrize("step", lineage.values(), ids=lineage)
def test_every_mechanism_is_a_public_function_here_but_the_rnn_which_is_flaxs(step):
    module, _, name = step.function.rpartition(".")
    assert module.split(".")[0] == ("flax" if step.name == "RNN" else "attn_jax")
    function = getattr(importlib.import_module(module), name)
    assert callable(function)
    assert function.__doc__


@pytest.mark.parametrize("step", lineage.values(), ids=lineage)
def test_every_source_is_a_paper_of_its_year_or_a_book(step):
    paper = re.fullmatch(r"https://arxiv\.org/abs/(\d\d)\d\d\.\d{4,5}", step.url)
    if paper is None:
        assert step.url.startswith(BOOK) or OLDER[step.url] == step.year
    else:
        assert step.year == 2000 + int(paper[1])
    assert all((step.paper, step.section, step.adds))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("edge", EDGES, ids=" to ".join)
def test_every_reduction_is_proved_by_a_test_that_passes(edge):
    file, name = re.fullmatch(r"(tests/lineage/test_\w+)\.py::(test_\w+)", PROOFS[edge]).groups()
    getattr(importlib.import_module(file.replace("/", ".")), name)()


def test_reductions_lead_to_known_mechanisms_and_never_round_in_a_circle():
    graph = {name: {edge.to for edge in step.reduces_to} for name, step in lineage.items()}
    assert set(graphlib.TopologicalSorter(graph).static_order()) == set(lineage)


def test_years_ascend():
    years = [step.year for step in lineage.values()]
    assert years == sorted(years)


def test_names_are_keys_and_edges_have_tests_of_their_own():
    assert [step.name for step in lineage.values()] == list(lineage)
    assert [*PROOFS] == EDGES
    assert len({*PROOFS.values()}) == len(EDGES)


def test_only_the_first_of_a_line_reduces_to_nothing():
    roots = {name for name, step in lineage.items() if not step.reduces_to}
    assert roots == {"RNN", "sinusoidal positions", "simplified self-attention"}


def test_the_lineage_cannot_be_changed():
    with pytest.raises(TypeError):
        lineage["transformer"] = lineage["self-attention"]


def test_the_drawing_has_every_mechanism_and_fits_a_page():
    lines = draw(lineage).splitlines()
    assert len(lines) == len(lineage) + sum(bool(step.reduces_to) for step in lineage.values())
    for step in lineage.values():
        assert any(line.startswith(f"{step.year}  {step.name} ") for line in lines)
    assert max(map(len, lines)) <= 100
