"""The named cases of the fused kernels: those of `make test`, and all of them.

Each line has sizes, options and positions. In `make test` it is two draws in float32, and every
fourth line two in bfloat16 too. The full list has more draws, bfloat16 everywhere, and each mask
with each score mod.
"""

from tests.helpers.fused_cases import Case
from tests.helpers.rule_options import MASKS, SCORE_MODS

_LINES = """
square
wide
tall
whole tiles
one tile
one query
one key
width 1 | bias of keys
width 64 | causal, scale, sink | at the end
width 80 | array of heads
width 256 | bias for all
square | causal, slopes, scale
square | causal, slope, cap, sink
square | window, table, key lengths
square | dilated, by query
square | prefix, causal table
square | key padding, by key, sink
square | documents, by both, scale
square | strictly before, root
square | not causal, by distance, cap
square | callable, number
square | callable with arrays, by a key's segment
square | later queries, by two blocks
square | later keys, gain
square | nothing, slopes
square | causal, by pair
square | block mask, slopes, sink
square | causal, dropout, documents, cap
whole tiles | causal, documents, table
whole tiles | window, bias, sink
whole tiles | causal, bias of one row, cap
one tile | causal, bias of examples, sink
one tile | array, shared table, dropout
tall | array, bias of heads
tall | array of keys, bias that hides, sink
tall | from_array, bias of heads and keys, scale
tall | later queries, bias for all, cap | at the end
tall | dropout, bias
wide | array of examples, bias of examples
wide | array for all, dropout, bias of keys
wide | key lengths, query lengths, scale, sink
wide | causal, slopes | at the end
wide | causal, documents, slopes, cap | each its own
wide | window, slope, sink | keys moved
wide | prefix, slope | each its own
wide | causal, key padding, by key | keys moved
wide | dilated, bias of heads | at the end
wide | documents, dropout, slopes | each its own
one query | causal, slopes, sink | at the end
one query | key lengths, cap | at the end
one query | causal, by key | each its own
one key | array, slopes | at the end
square | array, bias, cap, sink, scale
square | from_array, by both, dropout
"""


def _of(line: str) -> tuple[str, tuple[str, ...], str | None]:
    sizes, options, positions = (part.strip() for part in f"{line} | | ".split("|")[:3])
    return sizes, tuple(filter(None, options.split(", "))), positions or None


LINES = [_of(line) for line in _LINES.strip().splitlines()]

SUBSET = [
    Case(*line, dtype, seed)
    for n, line in enumerate(LINES)
    for dtype in (("float32", "bfloat16") if n % 4 == 0 else ("float32",))
    for seed in range(2)
]

EVERY = list(
    dict.fromkeys(
        [
            *SUBSET,
            *(
                Case(*line, dtype, n)
                for line in LINES
                for dtype in ("float32", "bfloat16")
                for n in range(3)
            ),
            *(Case("square", (mask, mod)) for mask in MASKS for mod in SCORE_MODS if mod != "root"),
        ]
    )
)
