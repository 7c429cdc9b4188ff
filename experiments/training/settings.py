"""The settings of `translate`: one dataclass, three presets, and the command line."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from experiments.command_line.options import choose_settings, run_name
from experiments.data.corpora import SubsetRule
from experiments.systems.translation import TransformerWidths, Widths, check_systems
from experiments.training.runs import directory_of
from experiments.training.task import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Settings of the beam search.

    Attributes:
      width: the number of hypotheses kept at every decode step; 1 is greedy search.
      length_penalty: the exponent α of ((5 + length) / 6)^α, which divides log-probabilities (Wu et
        al. 2016).
    """

    width: int = 4
    length_penalty: float = 0.6


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; each can be changed on the command line.

    Attributes:
      preset: the defaults of all other options: quick (at most twenty minutes on two cores), smoke
        (a test run of a minute), full (the paper's sizes, for an accelerator).
      name: a name for the run, whose files are in runs/NAME.
      corpus: the sentence pairs. docs is in the repository; multi30k and acts are files that you
        download, see --data-dir.
      data_dir: the folder with the files of multi30k or acts.
      systems: the systems to compare: lexicon, final, bahdanau, luong, transformer.
      rule: Which sentences to keep.
      vocab_size: the number of subwords of each language.
      longest: the most tokens of a training sentence; longer pairs are left out and counted.
      shapes: the number of padded batch shapes; each is compiled once.
      widths: Widths of the recurrent networks (final, bahdanau, luong).
      transformer: Widths of the Transformer.
      train: Optimiser, learning rate, seed, and how often to log and to save.
      beam: The search for the best translation.
      fresh: remove the stored run of that name, and start again.
    """

    preset: Literal["quick", "smoke", "full"] = "quick"
    name: Annotated[str | None, run_name("translate-CORPUS-PRESET")] = None
    corpus: Literal["docs", "multi30k", "acts"] = "docs"
    data_dir: Path | None = None
    systems: tuple[str, ...] = ("lexicon", "final", "bahdanau", "transformer")
    rule: SubsetRule = field(default_factory=lambda: SubsetRule(4, 40, frequent_words=3500))
    vocab_size: int = 3000
    longest: int = 64
    shapes: int = 3
    widths: Widths = field(default_factory=Widths)
    transformer: TransformerWidths = field(default_factory=TransformerWidths)
    train: TrainConfig = field(default_factory=TrainConfig)
    beam: Beam = field(default_factory=Beam)
    fresh: bool = False

    def __post_init__(self) -> None:
        check_systems(self.systems)

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return directory_of(self.name or "")

    def widths_of(self, system: str) -> Widths | TransformerWidths:
        """The widths of a system's network."""
        return self.transformer if system == "transformer" else self.widths


PRESETS: dict[str, Settings] = {
    # At most twenty minutes on two cores, compilation included.
    "quick": Settings(
        # As in the paper (section 5.4): without dropout the Transformer overfits, and its training
        # loss is half of its validation loss.
        transformer=TransformerWidths(dropout_rate=0.1),
        train=TrainConfig(steps=1500, learning_rate=4e-3, validate_every=150, checkpoint_every=250),
    ),
    # For tests: every part of the experiment in a minute; the translations are meaningless.
    "smoke": Settings(
        preset="smoke",
        rule=SubsetRule(4, 12, frequent_words=400, max_train=800),
        vocab_size=400,
        longest=24,
        shapes=1,
        widths=Widths(embed_dim=16, hidden_dim=32, align_dim=24, readout_dim=16),
        transformer=TransformerWidths(model_dim=32, num_heads=2, num_layers=1, hidden_dim=48),
        train=TrainConfig(
            steps=30,
            batch_size=32,
            learning_rate=4e-3,
            warmup_steps=5,
            log_every=5,
            validate_every=15,
            checkpoint_every=10,
        ),
        beam=Beam(width=2),
    ),
    # The paper's sizes (appendix A), for an accelerator; a CPU would need days.
    "full": Settings(
        preset="full",
        rule=SubsetRule(4, 50),
        vocab_size=16_000,
        longest=100,
        shapes=5,
        widths=Widths(
            embed_dim=620, hidden_dim=1000, align_dim=1000, readout_dim=500, dropout_rate=0.2
        ),
        # The paper's base model (table 3).
        transformer=TransformerWidths(
            model_dim=512, num_heads=8, num_layers=6, hidden_dim=2048, dropout_rate=0.1
        ),
        train=TrainConfig(
            steps=60_000,
            batch_size=80,
            learning_rate=1e-3,
            warmup_steps=1000,
            log_every=50,
            validate_every=2000,
            checkpoint_every=1000,
        ),
        beam=Beam(width=12),
    ),
}


DESCRIPTION = """\
Trains translation systems with and without attention on the same sentences, translates test
sentences with each, and writes a report. If interrupted, the same command resumes the run."""
COMMANDS = {
    "sample": "translates a sentence of yours with a finished run; `sample --help` has its options"
}


def from_command_line(arguments: Sequence[str]) -> Settings:
    """The settings of a preset with the changes of the command line.

    Raises:
      SystemExit: an option or the preset is unknown; the message lists the known ones.
    """
    settings = choose_settings("translate", DESCRIPTION, PRESETS, arguments, COMMANDS)
    if settings.name is None:
        name = f"translate-{settings.corpus}-{settings.preset}"
        settings = dataclasses.replace(settings, name=name)
    return settings
