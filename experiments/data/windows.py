"""Windows of a long token sequence: at random places for training, adjacent for evaluation."""

from typing import NamedTuple

import grain
import numpy as np
from jaxtyping import Int


class Windows(NamedTuple):
    """Windows of successive tokens; each token is predicted from those before it in its window."""

    tokens: Int[np.ndarray, "B T"]


def training_windows(
    stream: Int[np.ndarray, " S"], *, length: int, batch_size: int, seed: int
) -> grain.IterDataset:
    """Endless batches: a window from every start, once an epoch, in random order.

    Args:
      stream: the training text.
      length: predicted tokens of a window, which has one more token at its start.
      batch_size: windows in a batch.
      seed: the same seed gives the same batches.

    Returns:
      A dataset whose iterator has `get_state` and `set_state`. After `set_state` the same batches
      follow as after `get_state`, in another process too.

    Raises:
      ValueError: the stream is shorter than a window, or has too few windows for one batch.
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
    # No threads: slicing takes microseconds, and prefetched batches would not be in the state.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return batches.repeat().to_iter_dataset(options)


def evaluation_windows(
    stream: Int[np.ndarray, " S"], *, length: int, batch_size: int
) -> list[Windows]:
    """Adjacent windows, so that each token is predicted once.

    Args:
      stream: the validation text.
      length: predicted tokens of a window. The first token of a window is the last of the window
        before it; a rest that is shorter than a window is left out.
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
    """The number of starts of windows."""
    if len(stream) <= length:
        raise ValueError(
            f"the {split} split has {len(stream)} tokens, and a window of length={length} needs "
            f"{length + 1}; choose a longer text or a smaller length"
        )
    return len(stream) - length
