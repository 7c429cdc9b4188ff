"""The gallery of the attention viewer: a page each for the paper, the lecture, and our models.

    .venv/bin/python -m experiments.gallery  # some five minutes on two cores, once
    .venv/bin/python -m experiments.gallery --preset smoke  # the same path in half a minute

Writes docs/gallery: figure 3(a) of Bahdanau et al. (2014), https://arxiv.org/abs/1409.0473, the
lecture's worked example with its numbers, and what our own networks read when they translate and
sort. What was trained is kept in runs/NAME, so the pages can be made again in seconds.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from attn_jax.models import GPT
from experiments import grammar, sort
from experiments.data.toy_grammar import LECTURE, Sentence, realise
from experiments.gallery import pages
from experiments.measures.toy_translation import Lesson, Translator, teach
from experiments.reports.claims import Claim
from experiments.reports.program import run_program
from experiments.systems.language_model import LanguageModel
from experiments.systems.translation import SYSTEMS
from experiments.training.runs import directory_of, locked
from experiments.training.train import fit


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that the gallery depends on.

    Attributes:
      name: of the run: what is trained is kept in runs/NAME.
      folder: where the pages go.
      quick: train on as much as the experiments do; False is their smoke preset.
      fresh: train again.
    """

    name: str = "gallery"
    folder: Path = Path("docs/gallery")
    quick: bool = True
    fresh: bool = False


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(name="gallery-smoke", folder=Path("runs/gallery-smoke/pages"), quick=False),
}


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains what is missing and writes the pages."""
    del command
    directory = directory_of(settings.name)
    preset = "quick" if settings.quick else "smoke"
    with locked(directory):
        toy = dataclasses.replace(grammar.PRESETS[preset], fresh=settings.fresh)
        learners = {
            system: taught(toy, system, directory / system, console)
            for system in ("final", "bahdanau", "luong")
        }
        model, tokens = sorter(sort.PRESETS[preset], directory / "sort", console, settings.fresh)
        made = made_pages(learners, toy, model, tokens)
        for path in pages.written(made, settings.folder):
            console.print(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
    said = made["lecture"].readings[0].queries[:-1]
    wanted = list(realise(LECTURE).french)
    return (
        Claim(
            "with attention, the lecture's sentence is translated", " ".join(said), said == wanted
        ),
    )


def taught(toy: grammar.Settings, system: str, directory: Path, console: Console) -> Translator:
    """A translator of the lecture's toy grammar, trained or found trained."""
    corpus = grammar.make_corpus(toy)
    asked = [*corpus.test, realise(LECTURE)]
    lesson = Lesson(
        [(sentence.english, sentence.french) for sentence in corpus.train],
        longest=max(len(sentence.english) for sentence in asked),
        shapes=toy.shapes,
    )
    console.rule(SYSTEMS[system].label, align="left")
    return teach(lesson, system, toy.widths, toy.train, directory, console=console, fresh=toy.fresh)


def sorter(
    settings: sort.Settings, directory: Path, console: Console, fresh: bool
) -> tuple[GPT, list[int]]:
    """The GPT that sorts, and a question with the answer that it gives."""
    console.rule("GPT that sorts", align="left")
    course = sort.make_course(settings)
    learner = LanguageModel.of(settings.model, given=settings.length)
    task = sort.training_task(settings, course, learner)
    result = fit(task, settings.train, directory, console=console, fresh=fresh)
    model = learner.model(result.params)
    questions = course.held_out[:, : settings.length]
    question = questions[sort.most_mixed(questions, settings.letters)]
    answer = sort.answered(model, question[None])[0]
    return model, np.concatenate([question, answer])[:-1].tolist()


def made_pages(
    learners: dict[str, Translator], toy: grammar.Settings, model: GPT, tokens: list[int]
) -> dict[str, pages.AttentionView]:
    """All views, by the names of their files."""
    sentence, crossing = realise(LECTURE), crossed(toy)
    looking, last = (learners[name] for name in ("bahdanau", "final"))
    note = "A toy network of ours; press space to see it read and write, step by step."
    told = {"looking": "With attention (Bahdanau)", "last": "Last state only"}
    lecture = pages.translation(looking, sentence.english, told["looking"], note).compare(
        pages.translation(last, sentence.english, told["last"], "")
    )
    order = (sentence.english, sentence.french)
    mechanisms = pages.forced(looking, *order, "Bahdanau: asks, then steps").compare(
        pages.forced(learners["luong"], *order, "Luong: steps, then asks")
    )
    return {
        "figure-3a": pages.figure_3a(),
        "lecture": dataclasses.replace(lecture, title="The lecture's sentence, translated"),
        "word-order": pages.translation(
            looking,
            crossing.english,
            "An adjective changes sides",
            "English puts it before the noun, French after: the alignment crosses.",
        ),
        "mechanisms": dataclasses.replace(
            mechanisms,
            title="Two mechanisms on one sentence",
            note="Both are made to say the same translation; blue is where the first reads more.",
        ),
        "worked-example": dataclasses.replace(
            pages.worked_example(), title="The worked example, simplified and with trained weights"
        ),
        "worked-example-causal": dataclasses.replace(
            pages.worked_example_causal(), title="The worked example, causal and with two heads"
        ),
        "sort": pages.sorting(model, tokens, sort.LETTERS),
    }


def crossed(toy: grammar.Settings) -> Sentence:
    """The first test sentence of one clause in which an adjective changes sides."""
    for sentence in grammar.make_corpus(toy).test:
        kinds = {span.phenomenon for span in sentence.spans}
        if sentence.depth == 1 and "crossing" in kinds:
            return sentence
    raise ValueError("no test sentence of one clause has an adjective; test more sentences")


def main(arguments: Sequence[str]) -> int:
    """The gallery as a program."""
    return run_program("gallery", "Makes the viewer's gallery.", PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
