"""Windows of a long stream of tokens: at random places to train, side by side to evaluate."""

from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int


class Windows(NamedTuple):
    """Rows of successive tokens; a model predicts each from those before it in its row."""

    tokens: Int[np.ndarray, "B T"]


def training_windows(
    stream: Int[np.ndarray, " S"], *, length: int, batch_size: int, seed: int
) -> grain.IterDataset:
    """Endless batches: every place where a window may begin, once an epoch, in random order.

    Args:
      stream: the training text.
      length: tokens that are predicted in a window; it has one more, to begin with.
      batch_size: windows in a batch.
      seed: the same seed gives the same batches.

    Returns:
      A dataset whose iterator has `get_state` and `set_state`: setting a state gives exactly the
      batches that followed it, in another process too.

    Raises:
      ValueError: the stream is shorter than a window, or has too few for one batch.
    """
    places = _places("training", stream, length)
    if places < batch_size:
        raise ValueError(
            f"the training split has {places} windows of length={length}, too few for one batch of "
            f"batch_size={batch_size}; lower it"
        )

    def window(place: int) -> Windows:
        return Windows(stream[place : place + length + 1])

    starts = grain.MapDataset.range(places).seed(seed).shuffle()
    batches = starts.map(window).batch(batch_size, drop_remainder=True)
    # No threads: slicing takes microseconds, and they would run ahead of the state.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return batches.repeat().to_iter_dataset(options)


def evaluation_windows(
    stream: Int[np.ndarray, " S"], *, length: int, batch_size: int
) -> list[Windows]:
    """Windows side by side, so that each of their tokens is predicted once.

    Args:
      stream: the validation text.
      length: as above; the first token of a window is the last of the one before, and what is left
        at the end, shorter than a window, is left out.
      batch_size: windows in a batch; the last one may have fewer.

    Returns:
      The batches, in the order of the text.

    Raises:
      ValueError: the stream is shorter than a window.

    Example:
      >>> batches = evaluation_windows(np.arange(9), length=3, batch_size=5)
      >>> [batch.tokens.tolist() for batch in batches]
      [[[0, 1, 2, 3], [3, 4, 5, 6]]]
    """
    _places("validation", stream, length)
    starts = np.arange(0, len(stream) - length, length)
    rows = stream[starts[:, None] + np.arange(length + 1)[None, :]]
    return [Windows(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]


def _places(split: str, stream: Int[np.ndarray, " S"], length: int) -> int:
    """How many windows there are, counted by where they begin."""
    if len(stream) <= length:
        raise ValueError(
            f"the {split} split has {len(stream)} tokens, and a window of length={length} needs "
            f"{length + 1}; choose a longer text or a smaller length"
        )
    return len(stream) - length
