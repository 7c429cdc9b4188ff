"""How much attention improves translation, by the length of the sentence.

    .venv/bin/python -m experiments.translate  # the same as `make run`
    .venv/bin/python -m experiments.translate --preset smoke  # a test run, one minute
    .venv/bin/python -m experiments.translate sample --run runs/translate-docs-quick "A sentence."

Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and Translate"
(2014), figures 2 and 3, https://arxiv.org/abs/1409.0473, at a small scale: several systems are
trained to translate English to French on the same sentences; the report has BLEU by the length of
the sentence, alignments of test sentences, and a page with the animation of their decode steps. If
interrupted, run the same command again: it resumes from the last checkpoint, and neither trains nor
translates again what is done. `sample --page` makes such a page of a sentence of yours.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from experiments.command_line.errors import exit_on_user_error
from experiments.command_line.options import shell_command
from experiments.data.tokens import encode
from experiments.measures.outcomes import Outcome
from experiments.measures.scores import Scores
from experiments.measures.showcase import best_translated
from experiments.measures.translation_run import (
    LECTURE,
    RunContext,
    measured_outcome,
    stored_outcome,
)
from experiments.reports.curves import read_curve
from experiments.reports.report import publish
from experiments.reports.sample import sample
from experiments.reports.translation_report import PAGE, DataNote, Example, Outputs, make_report
from experiments.systems.translation import SYSTEMS
from experiments.training.progress import as_clock
from experiments.training.run_times import COMPILATION, expected_times
from experiments.training.runs import METRICS, OUTCOME, opened
from experiments.training.sentences import prepare_corpus, prepare_directory
from experiments.training.settings import Settings, from_command_line
from experiments.training.whole_run import WholeRun


def run(settings: Settings, command: str, console: Console) -> None:
    """Trains every system of the settings, translates the test set, and writes the report."""
    with opened(settings.directory, "translate"):
        corpus = prepare_corpus(settings)
        console.print(corpus.note, soft_wrap=True)
        vocabulary = prepare_directory(settings, corpus)
        times = expected_times(settings, vocabulary.sizes, len(corpus.test))
        whole = WholeRun(times, COMPILATION)
        context = RunContext(settings, corpus, vocabulary, console, whole)
        outcomes = all_outcomes(context)
        report = make_report(outputs(context, outcomes, command))
        publish(report, settings.directory / "report", console)
        show_next_step(context, outcomes, report.findings["scores"])


def all_outcomes(context: RunContext) -> dict[str, Outcome]:
    """The outcome of each system, stored by an earlier run of the same command or measured now."""
    console, settings = context.console, context.settings
    stored = {name: stored_outcome(context, name) for name in settings.systems}
    if context.whole.left > 0:
        console.print(
            f"The whole run takes about {as_clock(context.whole.left)} on two CPU cores (estimated "
            "from an earlier run). The lines below have the time left, from the measured speed.",
            soft_wrap=True,
        )
    outcomes = {}
    for name, outcome in stored.items():
        console.rule(SYSTEMS[name].label, align="left")
        if outcome is not None:
            console.print(
                "already trained and translated; to translate again, remove "
                f"{settings.directory / name / OUTCOME}; to train again, pass --fresh",
                soft_wrap=True,
            )
        outcomes[name] = outcome or measured_outcome(context, name)
    return outcomes


def show_next_step(context: RunContext, outcomes: Mapping[str, Outcome], scores: Scores) -> None:
    """Prints where the animation is, and a command that translates a sentence."""
    console, settings = context.console, context.settings
    bleu = {
        name: table.row("all").bleu or 0.0
        for name in outcomes
        if name != "lexicon" and (table := scores.table(SYSTEMS[name].label)) is not None
    }
    if not bleu:
        return
    best = max(bleu, key=lambda name: (name != "final", bleu[name]))
    sentence = best_translated(
        [pair.source for pair in context.corpus.test],
        outcomes[best].output.translations,
        [pair.target for pair in context.corpus.test],
        fits=lambda source: len(encode(context.vocabulary.english, source)) <= settings.longest,
    )
    page = settings.directory / "report" / PAGE
    if page.exists():
        console.print(f"The attention at every decode step, in a browser: {page}", soft_wrap=True)
    console.print("Next, translate a test sentence, or one of yours:", soft_wrap=True)
    arguments = sample_arguments(settings.directory, best, sentence)
    console.print(shell_command("translate", arguments), markup=False, soft_wrap=True)


def sample_arguments(run: Path, system: str, sentence: str) -> list[str]:
    """The arguments that translate a sentence with a network of a run, and write its page."""
    options = ["--run", str(run), "--system", system, "--page"]
    ends = ["--"] if sentence.startswith("-") else []  # what follows `--` is no option
    return ["sample", *options, *ends, sentence]


def outputs(context: RunContext, outcomes: dict[str, Outcome], command: str) -> Outputs:
    """The content of the report; alignments are those of the first system that has them."""
    corpus, settings = context.corpus, context.settings
    aligned = [outcome for outcome in outcomes.values() if outcome.picks is not None]
    others = [outcome for outcome in outcomes.values() if outcome.picks is None]
    lecture = Example(
        "The lecture's sentence (not from this corpus)",
        LECTURE,
        {outcome.output.name: outcome.lecture for outcome in outcomes.values()},
        alignment=aligned[0].lecture_alignment if aligned else None,
    )
    other_alignments = (
        Example(
            f"The lecture's sentence, alignment of {outcome.output.name}",
            LECTURE,
            {outcome.output.name: outcome.lecture},
            alignment=outcome.lecture_alignment,
        )
        for outcome in aligned[1:]
    )
    sizes = len(corpus.train), len(corpus.validation), len(corpus.test)
    metrics = {name: settings.directory / name / METRICS for name in outcomes}
    return Outputs(
        data=DataNote(corpus.name, corpus.licence, corpus.note, *sizes),
        systems=tuple(outcome.output for outcome in outcomes.values()),
        sources=tuple(pair.source for pair in corpus.test),
        references=tuple(pair.target for pair in corpus.test),
        command=command,
        seed=settings.train.seed,
        curves=tuple(
            read_curve(SYSTEMS[name].label, path) for name, path in metrics.items() if path.exists()
        ),
        picks=aligned[0].picks if aligned else None,
        picked_from=aligned[0].output.name if aligned else "",
        preset=settings.preset,
        examples=(lecture, *other_alignments),
        traced=tuple(one for outcome in (*aligned, *others) for one in outcome.traced),
    )


def main(arguments: Sequence[str]) -> None:
    """Runs the experiment, or `sample`; errors that a user can correct are one line on stderr."""
    console = Console(highlight=False)
    with exit_on_user_error():
        if arguments[:1] == ["sample"]:
            sample(arguments[1:], console)
        else:
            run(from_command_line(arguments), shell_command("translate", arguments), console)


if __name__ == "__main__":
    main(sys.argv[1:])
