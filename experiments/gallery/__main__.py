"""The gallery of the attention viewer: pages for the paper, the lecture and our models.

    .venv/bin/python -m experiments.gallery  # about five minutes on two cores
    .venv/bin/python -m experiments.gallery --preset smoke  # a test run, half a minute

Trains networks that translate and sort, and writes what the gallery shows of them: traces, queries
and keys, in docs/gallery/data. `make docs` makes the pages from these arrays, and from the numbers
of figure 3(a) of Bahdanau et al. (2014), https://arxiv.org/abs/1409.0473, and of the lecture's
worked example. Trained networks are kept in runs/NAME, and the pages are written there, too.
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
from experiments.gallery import arrays, pages
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
      data: the folder of the arrays, from which `make docs` makes the pages; None: runs/NAME/data.
      fresh: remove the stored networks of that name, and train again.
    """

    preset: Literal["quick", "smoke"] = "quick"
    name: str = "gallery"
    data: Path | None = Path("docs/gallery/data")
    fresh: bool = False

    @property
    def data_folder(self) -> Path:
        """The folder of the arrays."""
        return directory_of(self.name) / "data" if self.data is None else self.data


PRESETS = {
    "quick": Settings(),
    "smoke": Settings(preset="smoke", name="gallery-smoke", data=None),
}


def run(settings: Settings, command: str, console: Console) -> Sequence[Claim]:
    """Trains the networks that are not stored, and writes their arrays and the pages."""
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
        for name, measured in all_arrays(translators, toy, model, tokens).items():
            written = arrays.save(measured, settings.data_folder / f"{name}.npz")
            console.print(f"{written}: {written.stat().st_size / 1000:,.0f} kB")
        made = pages.all_pages(settings.data_folder)
        for page in pages.written(made, directory / "pages"):
            console.print(f"{page}: {page.stat().st_size / 1000:,.0f} kB")
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


def all_arrays(
    translators: dict[str, Translator], toy: grammar.Settings, model: GPT, tokens: list[int]
) -> dict[str, arrays.Arrays]:
    """What the pages show of the networks, by file name."""
    sentence, crossing = realise(LECTURE), crossing_sentence(toy)
    with_attention, last_state = (translators[name] for name in ("bahdanau", "final"))
    order = (sentence.english, sentence.french)
    return {
        "lecture-attention": arrays.translation(with_attention, sentence.english),
        "lecture-last-state": arrays.translation(last_state, sentence.english),
        "word-order": arrays.translation(with_attention, crossing.english),
        "mechanisms-bahdanau": arrays.forced(with_attention, *order),
        "mechanisms-luong": arrays.forced(translators["luong"], *order),
        "sort": arrays.sorting(model, tokens, sort.LETTERS),
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
