"""`translate sample`: one sentence, translated by a finished run, with its alignment."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from experiments.command_line.options import shell_command
from experiments.data.batches import Example, encode_one, evaluation_batches
from experiments.data.tokens import decode
from experiments.measures.alignments import Alignment, word_alignment
from experiments.measures.decode import align, translate
from experiments.reports.figures import alignment_maps, png
from experiments.reports.terminal import show_alignment
from experiments.systems.translation import (
    SYSTEMS,
    Network,
    TransformerWidths,
    Widths,
    model_config,
)
from experiments.training.runs import write_whole
from experiments.training.sentences import SETTINGS, Vocabulary, load_vocabulary
from experiments.training.settings import Beam
from experiments.training.train import load_params


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Translates one sentence and shows its alignment.

    Attributes:
      sentence: English, in quotes.
      run: the directory of a finished run, runs/NAME.
      system: one of the run's networks.
      beam: settings of the beam search.
    """

    sentence: Annotated[str, tyro.conf.Positional]
    run: Path
    system: str = "bahdanau"
    beam: Beam = field(default_factory=Beam)


def sample(arguments: Sequence[str], console: Console) -> None:
    """Translates the sentence on the command line, and prints and draws its alignment."""
    options = tyro.cli(Sample, args=arguments, prog=shell_command("translate", ["sample"]))
    network, vocabulary, longest = load_network(options.run, options.system)
    params = load_params(
        options.run / options.system, jax.eval_shape(network.init, jax.random.key(0))
    )
    source = encode_one(vocabulary.english, options.sentence, max_length=longest)
    text, alignment = translate_one(network, params, vocabulary, source, options.beam)
    console.print(f"{options.sentence}\n→ {text}\n", markup=False)
    if options.system == "final" or not alignment.generated:
        console.print("No alignment: the system has no attention, or the translation is empty.")
        return
    show_alignment(console, alignment)
    path = options.run / "samples" / f"{_slug(options.sentence)}.png"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, png(alignment_maps([alignment])))
    console.print(f"The alignment as a figure: {path}")


def load_network(run: Path, system: str) -> tuple[Network, Vocabulary, int]:
    """A run's network, its vocabulary, and the longest source in training.

    Raises:
      ValueError: there is no such run, or the system is no network.
    """
    networks = [name for name, known in SYSTEMS.items() if known.choices is not None]
    if system not in networks:
        raise ValueError(f"system {system!r} is unknown; choose from {', '.join(networks)}")
    path = run / SETTINGS
    if not path.is_file():
        raise ValueError(f"run={run} has no {SETTINGS}: pass the directory of a run, runs/NAME")
    settings = json.loads(path.read_text())
    field, kind = (
        ("transformer.", TransformerWidths) if system == "transformer" else ("widths.", Widths)
    )
    parts = {name: value for name, value in settings.items() if name.startswith(field)}
    widths = kind(**{name.removeprefix(field): value for name, value in parts.items()})
    vocabulary = load_vocabulary(run)
    network = Network.of(model_config(system, widths, vocabulary.sizes))
    return network, vocabulary, settings["longest"]


def translate_one(
    network: Network, params, vocabulary: Vocabulary, source: list[int], beam: Beam
) -> tuple[str, Alignment]:
    """The translation of one encoded sentence, and its alignment between words."""
    length = -(-len(source) // 8) * 8  # a multiple of 8, so that few lengths are compiled
    batches = evaluation_batches([Example(source, [])], batch_size=1, shapes=[(length, 1)])
    [target] = translate(network, params, batches, beam)
    [weights] = align(network, params, batches, [target])
    return decode(vocabulary.french, target), word_alignment(vocabulary, source, target, weights)


def _slug(sentence: str) -> str:
    words = "".join(sign if sign.isalnum() else " " for sign in sentence.lower()).split()
    return "-".join(words)[:60] or "sentence"
