"""`translate sample`: one sentence, translated by a finished run, with its alignment."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console

from experiments.command_line.options import parse, shell_command
from experiments.data.batches import encode_one
from experiments.measures.translation_run import translate_one
from experiments.reports.animation import MEANS_OF_HEADS, page
from experiments.reports.figures import alignment_maps, png
from experiments.reports.terminal import show_alignment
from experiments.systems.translation import (
    SYSTEMS,
    Network,
    TransformerWidths,
    Widths,
    model_config,
)
from experiments.training import checkpoints
from experiments.training.runs import CHECKPOINTS, RUNS, program_of, write_whole
from experiments.training.sentences import SETTINGS, Vocabulary, load_vocabulary, unknown_parts
from experiments.training.settings import Beam
from experiments.training.train import load_params

LONGEST_SLUG = 60  # letters of a sentence in the name of its files
NETWORKS = ("final", "bahdanau", "luong", "transformer")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Translates a sentence of yours with a finished run, and shows its alignment.

    Attributes:
      sentence: your English sentence, in quotes.
      run: the folder of a finished run of translate, such as runs/translate-docs-quick.
      system: the network that translates; the run must have trained it.
      page: also write an HTML page with the animation of every decode step.
      beam: The search for the best translation.
    """

    sentence: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SENTENCE")]
    run: Path
    system: Literal["final", "bahdanau", "luong", "transformer"] = "bahdanau"
    page: bool = False
    beam: Beam = field(default_factory=Beam)


def sample(arguments: Sequence[str], console: Console) -> None:
    """Translates the sentence on the command line, and prints and draws its alignment."""
    options = parse(Sample, arguments, prog=shell_command("translate", ["sample"]))
    network, vocabulary, longest = load_network(options.run, options.system)
    params = load_params(
        options.run / options.system, jax.eval_shape(network.init, jax.random.key(0))
    )
    source = encode_one(vocabulary.english, options.sentence, max_length=longest)
    for warning in warnings(vocabulary, options.run, options.sentence):
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=True)
    text, alignment, traced = translate_one(network, params, vocabulary, source, options.beam)
    console.print(f"{options.sentence}\n→ {text}\n", markup=False, soft_wrap=True)
    if not alignment.generated:
        console.print("The translation is empty, so there is no alignment.")
        return
    path = options.run / "samples" / f"{_slug(options.sentence)}-{options.system}.png"
    path.parent.mkdir(exist_ok=True)
    if options.system == "final":
        console.print("No alignment: the system has no attention.")
    else:
        show_alignment(console, alignment)
        title = SYSTEMS[options.system].label
        write_whole(path, png(alignment_maps([alignment], titles=[title])))
        console.print(f"The alignment as a figure: {path}", soft_wrap=True)
    if options.page:
        path = path.with_suffix(".html")
        note = f"{SYSTEMS[options.system].label}: {SYSTEMS[options.system].note}."
        if options.system == "transformer":
            note += f" {MEANS_OF_HEADS}"
        write_whole(path, page([traced], options.sentence, note))
        console.print(f"The animation, to open in a browser: {path}", soft_wrap=True)
    else:
        console.print("Add --page for an animation of every decode step.")


def warnings(vocabulary: Vocabulary, run: Path, sentence: str) -> list[str]:
    """Sentences about characters and words that the training sentences do not have."""
    characters, unknown = unknown_parts(vocabulary, run, sentence)
    said = []
    if characters:
        said.append(
            f"the training sentences do not have the characters {' '.join(characters)}; the "
            "network gets <unk> for each, so do not rely on the translation"
        )
    if unknown:
        said.append(
            f"the training sentences do not have the words {', '.join(unknown)}; the network gets "
            "them in parts, so do not rely on their translations"
        )
    return said


def load_network(run: Path, system: str) -> tuple[Network, Vocabulary, int]:
    """A run's network, its vocabulary, and the longest source in training.

    Raises:
      ValueError: there is no such run, it is one of another program, or the system is no network.
    """
    if system not in NETWORKS:
        raise ValueError(f"system {system!r} is unknown; choose from {', '.join(NETWORKS)}")
    path = run / SETTINGS
    program = program_of(run)
    if program not in (None, "translate"):
        raise ValueError(f"run={run} is a run of `{program}`, not of `translate`;{_runs_here()}")
    if not path.is_file():
        raise ValueError(
            f"run={run} has no {SETTINGS}, so it is no run of `translate`;{_runs_here()}"
        )
    trained = [name for name in NETWORKS if checkpoints.exist(run / name / CHECKPOINTS)]
    if system not in trained:
        listed = (
            f"pass --system with one of these: {', '.join(trained)}" if trained else "train first"
        )
        raise ValueError(f"run={run} has no checkpoint of {system!r}; {listed}")
    settings = json.loads(path.read_text())
    field, kind = (
        ("transformer.", TransformerWidths) if system == "transformer" else ("widths.", Widths)
    )
    parts = {name: value for name, value in settings.items() if name.startswith(field)}
    widths = kind(**{name.removeprefix(field): value for name, value in parts.items()})
    vocabulary = load_vocabulary(run)
    network = Network.of(model_config(system, widths, vocabulary.sizes))
    return network, vocabulary, settings["longest"]


def _runs_here() -> str:
    """What to pass as --run: the runs of `translate` in this folder."""
    found = sorted(str(path.parent) for path in RUNS.glob(f"*/{SETTINGS}"))
    if not found:
        return f" make one first: {shell_command('translate')}"
    return f" pass --run with one of these: {', '.join(found)}"


def _slug(sentence: str) -> str:
    """The words of a sentence as the start of a file's name; a digest stands for what is cut."""
    words = "".join(sign if sign.isalnum() else " " for sign in sentence.lower()).split()
    slug = "-".join(words) or "sentence"
    if len(slug) <= LONGEST_SLUG:
        return slug
    return f"{slug[:LONGEST_SLUG]}-{hashlib.sha256(slug.encode()).hexdigest()[:8]}"
