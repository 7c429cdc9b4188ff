"""The gallery of the attention viewer: pages for the paper, the lecture and our models.

    .venv/bin/python -m experiments.gallery  # about five minutes on two cores
    .venv/bin/python -m experiments.gallery --preset smoke  # a test run, half a minute

Writes docs/gallery: figure 3(a) of Bahdanau et al. (2014), https://arxiv.org/abs/1409.0473, the
lecture's worked example with its numbers, and the attention of our own networks that translate and
sort. Trained networks are kept in runs/NAME, so the pages can be made again in seconds.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from attn_jax.models import GPT
from experiments import grammar, sort
from experiments.data.toy_grammar import LECTURE, Sentence, realise
from experiments.gallery import pages
from experiments.measures.toy_translation import TrainingPairs, Translator, train_translator
from experiments.reports.claims import Claim
from experiments.reports.program import run_program
from experiments.systems.language_model import LanguageModel
from experiments.systems.translation import SYSTEMS
from experiments.training.runs import directory_of, opened
from experiments.training.train import fit


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of the gallery.

    Attributes:
      preset: the preset of the experiments whose networks are trained: quick (some minutes) or
        smoke (a test run).
      name: a name for the run; its trained networks are kept in runs/NAME.
      folder: the folder where the pages are written.
      fresh: remove the stored networks of that name, and train again.
    """

    preset: Literal["quick", "smoke"] = "quick"
    name: str = "gallery"
    folder: Path = Path("docs/gallery")
    fresh: bool = False


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(
        preset="smoke", name="gallery-smoke", folder=Path("runs/gallery-smoke/pages")
    ),
}


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains the networks that are not stored, and writes the pages."""
    del command
    directory = directory_of(settings.name)
    with opened(directory, "gallery"):
        toy = dataclasses.replace(grammar.PRESETS[settings.preset], fresh=settings.fresh)
        translators = {
            system: grammar_translator(toy, system, directory / system, console)
            for system in ("final", "bahdanau", "luong")
        }
        model, tokens = sorting_model(
            sort.PRESETS[settings.preset], directory / "sort", console, settings.fresh
        )
        made = all_pages(translators, toy, model, tokens)
        for path in pages.written(made, settings.folder):
            console.print(f"{path}: {path.stat().st_size / 1000:,.0f} kB")
    output = made["lecture"].readings[0].queries[:-1]
    wanted = list(realise(LECTURE).french)
    return (
        Claim(
            "with attention, the lecture's sentence is translated",
            " ".join(output),
            output == wanted,
        ),
    )


def grammar_translator(
    toy: grammar.Settings, system: str, directory: Path, console: Console
) -> Translator:
    """A translator of the lecture's toy grammar, trained or loaded."""
    corpus = grammar.make_corpus(toy)
    sources = [*corpus.test, realise(LECTURE)]
    pairs = TrainingPairs(
        [(sentence.english, sentence.french) for sentence in corpus.train],
        longest=max(len(sentence.english) for sentence in sources),
        shapes=toy.shapes,
    )
    console.rule(SYSTEMS[system].label, align="left")
    return train_translator(
        pairs, system, toy.widths, toy.train, directory, console=console, fresh=toy.fresh
    )


def sorting_model(
    settings: sort.Settings, directory: Path, console: Console, fresh: bool
) -> tuple[GPT, list[int]]:
    """The GPT that sorts, and a question with its answer."""
    console.rule("GPT that sorts", align="left")
    data = sort.make_data(settings)
    network = LanguageModel.of(settings.model, given=settings.length)
    task = sort.training_task(settings, data, network)
    result = fit(task, settings.train, directory, console=console, fresh=fresh)
    model = network.model(result.params)
    questions = data.held_out[:, : settings.length]
    question = questions[sort.most_balanced(questions, settings.letters)]
    answer = sort.predicted_answers(model, question[None])[0]
    return model, np.concatenate([question, answer])[:-1].tolist()


def all_pages(
    translators: dict[str, Translator], toy: grammar.Settings, model: GPT, tokens: list[int]
) -> dict[str, pages.AttentionView]:
    """All pages by file name."""
    sentence, crossing = realise(LECTURE), crossing_sentence(toy)
    with_attention, last_state = (translators[name] for name in ("bahdanau", "final"))
    note = "A toy network of ours; press space to follow it step by step."
    lecture = pages.translation(
        with_attention, sentence.english, "With attention (Bahdanau)", note
    ).compare(pages.translation(last_state, sentence.english, "Last state only", ""))
    order = (sentence.english, sentence.french)
    mechanisms = pages.forced(
        with_attention, *order, "Bahdanau: attention before the decoder's update"
    ).compare(
        pages.forced(translators["luong"], *order, "Luong: attention after the decoder's update")
    )
    return {
        "figure-3a": pages.figure_3a(),
        "lecture": dataclasses.replace(lecture, title="The lecture's sentence, translated"),
        "word-order": pages.translation(
            with_attention,
            crossing.english,
            "An adjective changes sides",
            "English puts it before the noun, French after: the alignment crosses.",
        ),
        "mechanisms": dataclasses.replace(
            mechanisms,
            title="Two mechanisms on one sentence",
            note="Both get the same translation as target; blue marks larger weights of the first.",
        ),
        "worked-example": dataclasses.replace(
            pages.worked_example(), title="The worked example, simplified and with trained weights"
        ),
        "worked-example-causal": dataclasses.replace(
            pages.worked_example_causal(), title="The worked example, causal and with two heads"
        ),
        "sort": pages.sorting(model, tokens, sort.LETTERS),
    }


def crossing_sentence(toy: grammar.Settings) -> Sentence:
    """The first test sentence of one clause in which an adjective changes sides."""
    for sentence in grammar.make_corpus(toy).test:
        kinds = {span.phenomenon for span in sentence.spans}
        if sentence.depth == 1 and "crossing" in kinds:
            return sentence
    raise ValueError("no test sentence of one clause has an adjective; increase test_sentences")


def main(arguments: Sequence[str]) -> int:
    """The gallery as a program."""
    return run_program("gallery", "Makes the viewer's gallery.", PRESETS, run, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
