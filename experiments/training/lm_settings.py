"""The settings of `lm`: two recipes, each with three presets, and the command line."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from attn_jax.models import DecoderConfig
from attn_jax.modules import Rotary
from experiments.command_line.options import ESCAPED, choose_settings, option_value, run_name
from experiments.data.text_tokens import Kind
from experiments.systems.sizes import check_heads
from experiments.training.mesh import MeshSizes
from experiments.training.mesh_processes import Processes
from experiments.training.runs import directory_of
from experiments.training.task import TrainConfig

type RecipeName = Literal["own", "nanogpt"]


@dataclass(frozen=True)
class Recipe:
    """A way to build and train a language model.

    Attributes:
      label: the display name.
      choices: fields of `DecoderConfig` that are not sizes.
    """

    label: str
    choices: Mapping[str, Any]


RECIPES: dict[RecipeName, Recipe] = {
    "own": Recipe(
        "rotary, RMSNorm, grouped queries, SwiGLU",
        {
            "rotary": Rotary(),
            "norm": "rms",
            "qk_norm": True,
            "activation": "silu",
            "gated": True,
            "use_bias": False,
            "use_qkv_bias": False,
        },
    ),
    # https://github.com/karpathy/nanoGPT: readme.md and config/train_shakespeare_char.py,
    # without biases. nanoGPT's norms have no biases either; ours do.
    "nanogpt": Recipe(
        "GPT-2 as in nanoGPT",
        {"activation": "gelu", "use_bias": False, "use_qkv_bias": False},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model, with the names of `DecoderConfig`.

    Attributes:
      num_layers: the number of blocks.
      num_heads: the number of query heads of a block.
      num_kv_heads: the number of key/value heads; None for num_heads.
      model_dim: the width of a token's vector.
      hidden_dim: the width inside the feed-forward network; None for 4 model_dim.
      max_length: the number of tokens of a window, the most that a prediction depends on.
      dropout_rate: the share of units dropped in training.
    """

    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int | None = None
    model_dim: int = 128
    hidden_dim: int | None = None
    max_length: int = 64
    dropout_rate: float = 0.0

    def __post_init__(self) -> None:
        check_heads(self.num_heads, self.model_dim)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a run; each can be changed on the command line.

    Attributes:
      preset: the defaults of all other options: quick (ten minutes on two cores), smoke (a test run
        of half a minute), full (for an accelerator).
      recipe: the parts of the model, and the defaults of its sizes and training: own, or nanogpt.
      name: a name for the run, whose files are in runs/NAME.
      corpus: the text. moby_dick is in the repository; tinyshakespeare is a file that you download,
        see --data-dir.
      data_dir: the folder with the file tinyshakespeare.txt.
      tokens: the kind of token: char (characters) or bpe (byte pairs).
      vocab_size: the number of byte pairs; with char it has no effect.
      sizes: Sizes of the model.
      train: Optimiser, learning rate, seed, and how often to log and to save.
      mesh: The number of devices along each axis; one device by default.
      processes: The processes of the run, and the index of this one.
      sample_length: the number of tokens of the sample that is printed at every validation.
      temperature: the temperature of the samples; below 1 likely tokens become likelier.
      prompt: the text that the samples continue.
      fresh: remove the stored run of that name, and start again.
    """

    preset: Literal["quick", "smoke", "full"] = "quick"
    recipe: RecipeName = "own"
    name: Annotated[str | None, run_name("lm-CORPUS-TOKENS-RECIPE-PRESET")] = None
    corpus: Literal["moby_dick", "tinyshakespeare"] = "moby_dick"
    data_dir: Path | None = None
    tokens: Kind = "char"
    vocab_size: int = 1024
    sizes: Sizes = field(default_factory=Sizes)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshSizes = field(default_factory=MeshSizes)
    processes: Processes = field(default_factory=Processes)
    sample_length: int = 400
    temperature: float = 0.8
    prompt: Annotated[str, ESCAPED] = "\n"
    fresh: bool = False

    def __post_init__(self) -> None:
        if self.sample_length < 1 or not self.temperature > 0 or not self.prompt:
            raise ValueError(
                "sample_length and temperature must be positive and prompt must not be empty; got "
                f"{self.sample_length}, {self.temperature} and {self.prompt!r}"
            )
        if self.recipe == "own" and self.sizes.model_dim // self.sizes.num_heads % 2:
            raise ValueError(
                f"model_dim={self.sizes.model_dim} over num_heads={self.sizes.num_heads} must be "
                "even, because the recipe own rotates pairs of features; change one of them"
            )

    @property
    def directory(self) -> Path:
        """The directory of the run."""
        return directory_of(self.name or "")

    def model(self, vocab_size: int) -> DecoderConfig:
        """The model for a vocabulary of this size."""
        sizes = dataclasses.asdict(self.sizes)
        return DecoderConfig(vocab_size=vocab_size, **sizes, **RECIPES[self.recipe].choices)


_ADAMW = TrainConfig(optimiser="adamw", beta2=0.99, weight_decay=0.1, clip_norm=1.0, batch_size=12)
_SMOKE = Settings(
    preset="smoke",
    sizes=Sizes(num_layers=2, num_heads=2, model_dim=16, max_length=16),
    train=TrainConfig(
        steps=30,
        batch_size=8,
        learning_rate=1e-2,
        warmup_steps=5,
        log_every=5,
        validate_every=15,
        checkpoint_every=10,
    ),
    vocab_size=300,
    sample_length=60,
)

PRESETS: dict[RecipeName, dict[str, Settings]] = {
    "own": {
        # Ten minutes on two cores; samples look like the book.
        "quick": Settings(
            sizes=Sizes(num_kv_heads=2, hidden_dim=344, max_length=64),
            train=dataclasses.replace(
                _ADAMW, steps=2000, learning_rate=4e-3, final_learning_rate=0.0, warmup_steps=100
            ),
        ),
        # For tests: every part of the experiment in half a minute; samples are meaningless.
        "smoke": dataclasses.replace(
            _SMOKE, sizes=dataclasses.replace(_SMOKE.sizes, num_kv_heads=1, hidden_dim=24)
        ),
        # For an accelerator.
        "full": Settings(
            preset="full",
            sizes=Sizes(
                num_layers=6,
                num_heads=6,
                num_kv_heads=3,
                model_dim=384,
                hidden_dim=1024,
                max_length=256,
                dropout_rate=0.2,
            ),
            train=dataclasses.replace(
                _ADAMW, steps=5000, batch_size=64, learning_rate=2e-3, final_learning_rate=0.0
            ),
            sample_length=1000,
        ),
    },
    "nanogpt": {
        # Its settings for a CPU (readme.md). The 1.88 that it states for tinyshakespeare is of 20
        # random batches; `experiments.measures.nanogpt_peer` measures it on the whole split.
        "quick": Settings(
            recipe="nanogpt",
            train=dataclasses.replace(
                _ADAMW, steps=2000, learning_rate=1e-3, final_learning_rate=1e-4, warmup_steps=100
            ),
        ),
        "smoke": dataclasses.replace(_SMOKE, recipe="nanogpt"),
        # Its settings for a GPU (config/train_shakespeare_char.py): 1.4697 is published, of 200
        # random batches.
        "full": Settings(
            preset="full",
            recipe="nanogpt",
            sizes=Sizes(num_layers=6, num_heads=6, model_dim=384, max_length=256, dropout_rate=0.2),
            train=dataclasses.replace(
                _ADAMW, steps=5000, batch_size=64, learning_rate=1e-3, final_learning_rate=1e-4
            ),
            sample_length=1000,
        ),
    },
}

DESCRIPTION = """\
Trains a language model of characters or byte pairs on one text, and prints samples. If interrupted,
the same command resumes the run."""


def from_command_line(arguments: Sequence[str]) -> Settings:
    """The settings of a preset with the changes of the command line.

    Raises:
      SystemExit: an option, recipe or preset is unknown; the message lists the known ones.
    """
    name = option_value("recipe", arguments)
    recipe = name if name in RECIPES else "own"  # tyro reports an unknown recipe
    settings = choose_settings("lm", DESCRIPTION, PRESETS[recipe], arguments)
    if settings.name is None:
        parts = ("lm", settings.corpus, settings.tokens, settings.recipe, settings.preset)
        settings = dataclasses.replace(settings, name="-".join(parts))
    return settings
