"""Measures which tile shape is the fastest for a call on this machine, and remembers it."""

import dataclasses
import functools
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attn_jax._attend import attend
from attn_jax._base import notebook
from attn_jax._base.grid import TileShape
from attn_jax._base.log import TUNE
from attn_jax._engine import measured_tiles
from attn_jax._engine.measured_tiles import Situation
from attn_jax._heads import batch_of
from attn_jax._multi_head import dot_product_attention

_SIDES = (128, 256, 512, 1024, 2048)
_MOST_BYTES = 512 * 2**20  # of the float32 logits of one tile of all heads
_LEAST_GAIN = 0.03  # a smaller gain may be noise, and is not worth other rounding
_ROUNDS = 5
_SAMPLE_SECONDS = 0.01  # a sample is as many calls as take this time

type Program = Callable[[], Any]


@dataclasses.dataclass(frozen=True, repr=False)
class Tuning:
    """The time of each tile shape that `tune` measured, shown as a table.

    `milliseconds` has the median time of output and gradients for each candidate, (queries, keys);
    None stands for the library's own choice. A time is None where the compiler refused the tile.
    `chosen` is the fastest, or None if the library's own choice is the fastest or almost. `path` is
    the file in which the result is stored, or None if it could not be stored.

    Example:
      >>> tuning = attn_jax.Tuning({None: 4.0, (128, 128): 3.0}, (128, 128), "cpu", None)
      >>> print(tuning)
      library's choice  4.000 ms
      128×128           3.000 ms  chosen
      measured on cpu, not stored
    """

    milliseconds: dict[tuple[int, int] | None, float | None]
    chosen: tuple[int, int] | None
    device: str
    path: Path | None

    def __repr__(self) -> str:
        lines = [f"{name:18}{rest}".rstrip() for name, rest in self._rows()]
        return "\n".join([*lines, self._summary()])

    def _repr_html_(self) -> str:
        return notebook.table(f"attn_jax.tune: {self._summary()}", self._rows())

    def _summary(self) -> str:
        stored = "not stored" if self.path is None else f"stored in {self.path}"
        return f"measured on {self.device}, {stored}"

    def _rows(self) -> list[tuple[str, str]]:
        def row(tile: tuple[int, int] | None, milliseconds: float | None) -> tuple[str, str]:
            is_chosen = "chosen" if tile == self.chosen else ""
            time = "refused" if milliseconds is None else f"{milliseconds:.3f} ms  {is_chosen}"
            return _name(tile), time.rstrip()

        return [row(*item) for item in self.milliseconds.items()]


def tune(
    query: Float[Array, "*#B T N H"] | Float[Array, "T H"],
    key: Float[Array, "*#B S K H"] | Float[Array, "S E"],
    value: Float[Array, "*#B S K V"] | Float[Array, "S V"],
    bias: Any = None,
    mask: Any = None,
    *,
    candidates: Iterable[tuple[int, int]] | None = None,
    **options: Any,
) -> Tuning:
    """Measures an attention call with several tile shapes, and stores the fastest for later calls.

    As FlexAttention and tokamax do, which call it autotuning
    (https://openxla.github.io/tokamax/autotuning.html): the best tile depends on the processor, and
    is found by trying. Each candidate computes the output and the gradients of query, key and
    value; they take turns, and the least median wins. It is stored where it is at least 3 % faster
    than the library's own choice; else an earlier result for such calls is removed.

    The result is stored in `$ATTN_JAX_CACHE_DIR/tiles.json`, else in `attn_jax/tiles.json` of
    `$XDG_CACHE_HOME` or `~/.cache`. It is used by all later calls on the same kind of device, with
    the same version of JAX, dtype and head widths, and with T, S and the number of heads of all
    batch examples that round up to the same powers of two. Masks that compare positions, such as
    causal, count apart from others. Nothing but this function makes that file; delete it to return
    to the library's own choices. Calls that are compiled already keep their tiles, in this process
    until `jax.clear_caches()`.

    Args:
      query: as in `dot_product_attention`; as in `attend` where it has two axes. The other
        arguments follow it. Their numbers do not matter, their shapes and dtypes do.
      key: see `dot_product_attention`.
      value: see `dot_product_attention`.
      bias: see `dot_product_attention`; `attend` has none.
      mask: see `dot_product_attention`.
      candidates: the tile shapes to try beside the library's own choice, as numbers of queries and
        keys; by default, powers of two from 128 to 2048. A length is cut into equal parts no
        larger than that.
      options: see `dot_product_attention`, or `attend`.

    Returns:
      A `Tuning`; print it.

    Raises:
      ValueError: the arguments are traced; the call has no tile shape to choose, because it is
        small, has a `BlockMask`, or names an implementation without tiles; a candidate is not two
        integers >= 1; or as the call itself.
      TypeError: as the call itself.

    Warns:
      RuntimeWarning: the result could not be stored. It is returned all the same.

    Numerics:
      Another tile shape adds up the same numbers in another order, so results change by rounding.

    Cost:
      Compiles the call once for each candidate, and runs it seven times; more often if it is short.

    Example:
      >>> x = jnp.ones((256, 8))
      >>> tuning = attn_jax.tune(x, x, x, candidates=[(128, 128)])
      >>> list(tuning.milliseconds), tuning.path.name
      ([None, (128, 128)], 'tiles.json')

    See also: `block_mask`, which sets the tile shape of one call.
    """
    given = (query, key, value, bias, mask, options)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(given)):
        raise ValueError("tune runs and measures the call: use it outside of jit, grad and vmap")
    tried = _default_candidates(query, key) if candidates is None else _checked(candidates)
    attention, arrays = _with_gradients(*given)
    programs, situations = {}, {}
    for tile in dict.fromkeys([None, *tried]):
        program, asked = _compiled(attention, arrays, tile)
        if not asked:
            raise ValueError(
                "this call has no tile shape to choose: it is small, has a BlockMask, or names an "
                "implementation without tiles"
            )
        programs[tile], situations = program, situations | asked
    milliseconds = dict.fromkeys(programs) | _milliseconds(programs)
    chosen = _fastest(milliseconds)
    path = _stored(dict.fromkeys(situations, chosen))
    plain = {_plain(tile): time for tile, time in milliseconds.items()}
    return Tuning(plain, _plain(chosen), next(iter(situations)).device, path)


def _checked(candidates: Iterable[tuple[int, int]]) -> list[TileShape]:
    found = [tuple(candidate) for candidate in candidates]
    for tile in found:
        if len(tile) != 2 or not all(isinstance(size, int) and size >= 1 for size in tile):
            raise ValueError(f"candidates must be pairs of integers >= 1; got {tile!r}")
    return [TileShape(*tile) for tile in found]


def _default_candidates(query: Array, key: Array) -> list[TileShape]:
    """Tiles of as many keys as queries or twice as many, up to the lengths of the call."""
    is_one_head = query.ndim == 2
    heads = 1 if is_one_head else math.prod(batch_of(query, key)) * query.shape[-2]
    T, S = (array.shape[-2 if is_one_head else -3] for array in (query, key))
    sides = [(t, s) for t in _SIDES for s in (t, 2 * t) if s <= _SIDES[-1]]
    inside = dict.fromkeys(TileShape(min(t, T), min(s, S)) for t, s in sides)
    return [tile for tile in inside if 4 * heads * math.prod(tile) <= _MOST_BYTES]


def _with_gradients(
    query: Array, key: Array, value: Array, bias: Any, mask: Any, options: dict[str, Any]
) -> tuple[Callable, tuple]:
    """A function that computes output and gradients of a call, and its arguments.

    All arrays are arguments, also those in options: XLA would compute with constants.
    """
    leaves, structure = jax.tree.flatten((bias, mask, options))
    is_array = [isinstance(leaf, jax.Array) for leaf in leaves]

    def computed(query, key, value, arrays):
        given = iter(arrays)
        pairs = zip(leaves, is_array, strict=True)
        rest = [next(given) if of_array else leaf for leaf, of_array in pairs]
        bias, mask, options = jax.tree.unflatten(structure, rest)
        options |= {"mask": mask} if bias is None else {"mask": mask, "bias": bias}
        attention = attend if query.ndim == 2 else dot_product_attention
        call = functools.partial(attention, **options)
        out, pull = jax.vjp(call, query, key, value)
        return out, *pull(jnp.ones_like(out))

    arrays = [leaf for leaf, of_array in zip(leaves, is_array, strict=True) if of_array]
    return computed, (query, key, value, arrays)


def _compiled(
    attention: Callable, arrays: tuple, tile: TileShape | None
) -> tuple[Program | None, dict[Situation, None]]:
    """The call compiled with a tile, None if that is refused; and who asked for its tile."""
    # A new function: JAX would take the program of another candidate for the same one.
    program = jax.jit(lambda *arrays: attention(*arrays))
    with measured_tiles.trying(tile) as asked:
        try:
            compiled = program.lower(*arrays).compile()
        except jax.errors.JaxRuntimeError as refusal:
            if tile is None:
                raise
            TUNE.info("%s is refused: %s", _name(tile), refusal)
            return None, asked
    return lambda: jax.block_until_ready(compiled(*arrays)), asked


def _milliseconds(programs: dict[Any, Program | None]) -> dict[Any, float]:
    """The median time of each program; all are timed in turns, so that a slow moment hits all."""
    runs = {tile: run for tile, run in programs.items() if run is not None}
    for run in runs.values():
        run()
    calls = {tile: math.ceil(_SAMPLE_SECONDS / _seconds(run, 1)) for tile, run in runs.items()}
    samples: dict[Any, list[float]] = {tile: [] for tile in runs}
    for _ in range(_ROUNDS):
        for tile, run in runs.items():
            samples[tile].append(_seconds(run, calls[tile]))
    medians = {tile: 1e3 * statistics.median(times) for tile, times in samples.items()}
    for tile, median in medians.items():
        TUNE.info("%s takes %.3f ms", _name(tile), median)
    return medians


def _seconds(run: Program, calls: int) -> float:
    """The mean time of one of several calls."""
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return max((time.perf_counter() - start) / calls, 1e-9)


def _fastest(milliseconds: dict[Any, float | None]) -> TileShape | None:
    """The tile of the least time; None if that of the library is as fast, up to 3 %."""
    times = {tile: time for tile, time in milliseconds.items() if time is not None}
    fastest = min(times, key=times.__getitem__)
    return fastest if times[fastest] <= (1 - _LEAST_GAIN) * times[None] else None


def _stored(tiles: dict[Situation, TileShape | None]) -> Path | None:
    """The file in which the tiles are stored now, or None and a warning."""
    try:
        return measured_tiles.store(tiles)
    except (OSError, ValueError) as problem:
        place = measured_tiles.file()
        warnings.warn(
            f"attn_jax.tune could not store its result in {place}: {problem}",
            RuntimeWarning,
            stacklevel=3,
        )
        return None


def _plain(tile: TileShape | None) -> tuple[int, int] | None:
    return None if tile is None else (tile.queries, tile.keys)


def _name(tile: Sequence[int] | None) -> str:
    return "library's choice" if tile is None else "×".join(map(str, tile))
