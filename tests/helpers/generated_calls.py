"""Generated calls: sizes, dtype and options of each configuration, and its draws.

The sizes often reveal bugs: all axes different, all equal, primes, one token, one more than a
power of two, half a tile of 128; the last tile lacks one key, one query, or many. `definition`
computes the unmasked pairs in numpy; it imports nothing of ours.
"""

import dataclasses

import numpy as np

DRAWS = 40
MAGNITUDES = (0.1, 1.0, 8.0)

BUCKETS, MAX_DISTANCE = 8, 16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes by the letters of docs/conventions.md; `tile` is for implementations with tiles."""

    B: int
    T: int
    S: int
    N: int
    K: int
    H: int
    V: int
    tile: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One compiled function: `dot_product_attention` if `heads`, else `vmap` of `attend`."""

    sizes: Sizes
    dtype: str
    options: tuple[str, ...]
    heads: bool = True

    def __str__(self) -> str:
        s = self.sizes
        shape = f"{s.B}x{s.T}x{s.S}x{s.N}x{s.K}x{s.H}x{s.V}"
        through = "heads" if self.heads else "one head"
        return f"{shape} {self.dtype} {through} {' '.join(self.options) or 'plain'}"


DIFFERENT = Sizes(2, 5, 7, 6, 3, 8, 4, tile=(2, 4))
EQUAL = Sizes(4, 4, 4, 4, 4, 4, 4, tile=(3, 2))
PRIMES = Sizes(3, 13, 31, 5, 5, 11, 7, tile=(5, 12))
ONE_TOKEN = Sizes(2, 1, 1, 2, 1, 3, 2, tile=(1, 1))
DECODING = Sizes(3, 1, 37, 4, 2, 8, 5, tile=(1, 8))
TALL = Sizes(1, 65, 17, 4, 1, 6, 9, tile=(16, 8))
HALF = Sizes(1, 64, 64, 3, 1, 16, 5, tile=(16, 24))
ONE_MORE = Sizes(1, 33, 129, 2, 2, 12, 8, tile=(17, 26))
LONG = Sizes(1, 130, 192, 2, 1, 8, 4, tile=(48, 64))


def _table() -> list[Configuration]:
    F32, BF16, F16, F64 = "float32", "bfloat16", "float16", "float64"
    heads = [
        (DIFFERENT, F32, "bias mask"),
        (DIFFERENT, F64, "causal bias mask sink cap"),
        (DIFFERENT, F32, "bias-of-heads key-lengths query-lengths scale"),
        (DIFFERENT, BF16, "bias mask empty-rows"),
        (DIFFERENT, F16, "causal window sink"),
        (EQUAL, F32, "mask empty-rows"),
        (EQUAL, F64, "bias mask alibi"),
        (EQUAL, BF16, "mask-of-examples table"),
        (PRIMES, F32, "window cap"),
        (PRIMES, F32, "segments table sink"),
        (PRIMES, F64, "causal shuffled alibi"),
        (PRIMES, F16, "bias-of-examples segments"),
        (ONE_TOKEN, F32, "sink cap"),
        (DECODING, F32, "causal bias key-lengths"),
        (DECODING, BF16, "window alibi"),
        (TALL, F32, "causal sink empty-rows"),
        (HALF, F32, "far mask-of-keys"),
        (HALF, BF16, "causal cap"),
        (ONE_MORE, F32, "bias-that-hides alibi"),
        (ONE_MORE, F16, ""),
        (LONG, F32, "causal window segments"),
    ]
    one_head = [
        (DIFFERENT, F32, "causal alibi sink"),
        (DIFFERENT, F64, "mask table cap"),
        (DIFFERENT, BF16, "window sink"),
        (EQUAL, F32, "mask alibi table cap"),
        (EQUAL, F16, "segments"),
        (PRIMES, F32, "causal shuffled table"),
        (PRIMES, BF16, "mask empty-rows alibi"),
        (PRIMES, F64, "segments sink alibi cap"),
        (ONE_TOKEN, F32, "alibi"),
        (DECODING, F32, "window table"),
        (TALL, F32, "mask empty-rows scale"),
        (TALL, F16, "causal cap"),
        (HALF, F32, "causal sink"),
        (HALF, F64, "window shuffled"),
        (ONE_MORE, F32, "segments alibi"),
        (ONE_MORE, BF16, ""),
        (LONG, F32, "causal table"),
    ]
    return [
        Configuration(_one_key_head_each(sizes, in_heads), dtype, tuple(options.split()), in_heads)
        for in_heads, rows in ((True, heads), (False, one_head))
        for sizes, dtype, options in rows
    ]


def _one_key_head_each(sizes: Sizes, shares: bool) -> Sizes:
    return sizes if shares else dataclasses.replace(sizes, K=sizes.N)


CONFIGURATIONS = _table()


def draws(configuration: Configuration) -> dict[str, np.ndarray]:
    """All draws of a configuration, stacked; reals are float64 numbers that exist in its dtype."""
    s, options, D = configuration.sizes, configuration.options, DRAWS
    rng = np.random.default_rng(_seed(str(configuration)))
    magnitude = np.resize(MAGNITUDES, D).reshape(D, 1, 1, 1, 1)

    def normal(*shape):
        return rng.normal(size=(D, *shape))

    arrays = {
        "query": magnitude * normal(s.B, s.T, s.N, s.H),
        "key": normal(s.B, s.S, s.K, s.H),
        "value": magnitude * normal(s.B, s.S, s.K, s.V),
        "cotangent": normal(s.B, s.T, s.N, s.V),
    }
    if not configuration.heads:
        arrays["cotangent_lse"] = normal(s.B, s.N, s.T)
    arrays |= _learned(options, s, normal, rng)
    arrays = {n: a.astype(configuration.dtype).astype(np.float64) for n, a in arrays.items()}
    return arrays | _rules(options, s, rng)


def _seed(text: str) -> int:
    """A seed that is the same in every process."""
    return int.from_bytes(text.encode(), "little") % (2**61 - 1)


def _learned(options, s: Sizes, normal, rng) -> dict[str, np.ndarray]:
    """Bias, slopes, table and sinks."""
    shapes = {
        "bias": (s.B, s.N, s.T, s.S),
        "bias-of-heads": (1, s.N, 1, s.S),
        "bias-of-examples": (s.B, 1, s.T, s.S),
        "bias-that-hides": (s.B, s.N, s.T, s.S),
        "far": (1, s.N, s.T, s.S),
    }
    arrays = {}
    for name in set(options) & set(shapes):
        arrays["bias"] = normal(*shapes[name])
        if name == "far":  # log-sum-exp so low that its `exp` underflows
            arrays["bias"] -= 200
        if name == "bias-that-hides":
            arrays["bias"][rng.random(arrays["bias"].shape) < 0.3] = -np.inf
    if "alibi" in options:
        arrays["slope"] = rng.uniform(0.05, 1, size=(DRAWS, s.N))
    if "table" in options:
        arrays["table"] = normal(s.N, BUCKETS)
    if "sink" in options:
        arrays["sink"] = normal(s.N)
    return arrays


def _rules(options, s: Sizes, rng) -> dict[str, np.ndarray]:
    """Masks, lengths, documents and positions."""
    D = DRAWS
    shapes = {
        "mask": (s.B, s.N, s.T, s.S),
        "mask-of-examples": (s.B, 1, s.T, s.S),
        "mask-of-keys": (s.B, 1, 1, s.S),
        "empty-rows": (s.B, 1, s.T, 1),
    }
    offset = rng.integers(-1, max(s.S - s.T, 0) + 2, size=(D, 1))
    offset[:2] = 0
    positions = np.arange(s.T) + offset
    if "shuffled" in options:
        positions = rng.integers(-2, s.S + 2, size=(D, s.T))
    arrays = {"query_position": np.broadcast_to(positions, (D, s.T)).astype(np.int32)}
    for name in ("mask", "mask-of-examples", "mask-of-keys"):
        if name in options:
            arrays["mask"] = rng.random((D, *shapes[name])) < 0.6
    if "empty-rows" in options:
        rows = rng.random((D, *shapes["empty-rows"])) < 0.7
        rows[0] = False
        arrays["mask"] = rows & arrays.get("mask", np.ones((D, 1, 1, 1, s.S), bool))
    if "segments" in options:
        starts = rng.random((D, s.B, max(s.T, s.S))) < 0.2
        documents = np.cumsum(starts, axis=-1)
        documents[rng.random(documents.shape) < 0.1] = -1
        documents[..., -2:] = -1
        arrays["documents"] = documents.astype(np.int32)
    for name, L in (("query-lengths", s.T), ("key-lengths", s.S)):
        if name in options:
            arrays[name] = rng.integers(0, L + 1, size=(D, s.B)).astype(np.int32)
    return arrays


WINDOW = (3, 1)
CAP = 5.0
SCALE = 0.7


def definition(configuration: Configuration, arrays: dict) -> tuple[dict, np.ndarray]:
    """The arguments of `dense_oracle.attention`: arrays and options, and the unmasked pairs."""
    s, options = configuration.sizes, configuration.options
    i, j = arrays["query_position"][:, :, None], np.arange(s.S)
    unmasked = np.ones((DRAWS, s.B, s.N, s.T, s.S), bool)
    if "causal" in options:
        unmasked &= (j <= i)[:, None, None]
    if "window" in options:
        left, right = WINDOW
        unmasked &= ((i - left <= j) & (j <= i + right))[:, None, None]
    if "mask" in arrays:
        unmasked &= arrays["mask"]
    if "documents" in arrays:
        of_query = arrays["documents"][:, :, : s.T, None]
        of_key = arrays["documents"][:, :, None, : s.S]
        unmasked &= ((of_query == of_key) & (of_query >= 0))[:, :, None]
    if "query-lengths" in arrays:
        unmasked &= np.arange(s.T)[:, None] < arrays["query-lengths"][:, :, None, None, None]
    if "key-lengths" in arrays:
        unmasked &= j < arrays["key-lengths"][:, :, None, None, None]
    given = {name: array for name, array in arrays.items() if array.dtype == np.float64}
    if "alibi" in options:
        given["distance"] = np.abs(j - i).astype(np.float64)[:, None]
    if "table" in options:
        given["bucket"] = bucket(j - i)[:, None]
    for name in ("slope", "table", "sink"):
        if name in given:
            given[name] = given[name][:, None]
    if "cap" in options:
        given["cap"] = CAP
    if "scale" in options:
        given["scale"] = SCALE
    return given, unmasked


def bucket(distance: np.ndarray) -> np.ndarray:
    """T5's buckets for two directions: half of each exact, the others by the logarithm."""
    one_way = BUCKETS // 2
    exact = one_way // 2
    n = np.abs(distance)
    growth = np.log(np.maximum(n, exact) / exact) / np.log(MAX_DISTANCE / exact)
    far = np.minimum(exact + np.floor(growth * (one_way - exact)), one_way - 1)
    return (np.where(n < exact, n, far) + one_way * (distance > 0)).astype(int)
