"""The expected time of a run of `translate`, before anything is measured."""

from experiments.systems.translation import Network, model_config
from experiments.training.settings import Settings

# Seconds on two cores of an AMD EPYC, from experiments/results/docs-seed0/report.json: the training
# time of 1,500 steps of 64 sentences, divided by their product and the number of parameters. luong
# was not in that run; its network is like that of bahdanau.
_TRAINING = {
    "final": 147 / (1500 * 64 * 1_436_928),
    "bahdanau": 281 / (1500 * 64 * 1_861_632),
    "luong": 281 / (1500 * 64 * 1_861_632),
    "transformer": 313 / (1500 * 64 * 1_822_720),
}
# The same run took 13 min 23 s, so about 15 s for each network's translations of 989 sentences.
_TRANSLATING = 15 / (989 * 4 * 1_800_000)
COMPILATION = 8.0  # seconds for each part; the smoke preset, mostly compilation, takes a minute


def expected_times(
    settings: Settings, vocabulary: tuple[int, int], test_sentences: int
) -> dict[str, float]:
    """The expected seconds of the parts "train NAME" and "translate NAME" on two CPU cores.

    Args:
      settings: of the run.
      vocabulary: sizes of both vocabularies.
      test_sentences: number of test sentences.
    """
    times = {}
    for name in settings.systems:
        if name == "lexicon":  # seconds
            continue
        size = Network.of(model_config(name, settings.widths_of(name), vocabulary)).size
        sentences = settings.train.steps * settings.train.batch_size
        times[f"train {name}"] = _TRAINING[name] * sentences * size
        times[f"translate {name}"] = _TRANSLATING * test_sentences * settings.beam.width * size
    return times
