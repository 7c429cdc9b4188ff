"""Options of attention calls by name, for the named cases of the fused kernels."""

import jax.numpy as jnp
import numpy as np

import attn_jax
from attn_jax import masks, score_mods
from tests.helpers.rule_kinds import (
    Option,
    array,
    bias,
    documents,
    dropout_rngs,
    entry,
    hidden_bias,
    in_one_document,
    lengths,
    lookup,
    product_term,
    root_term,
    rule,
    segment,
    slopes,
    table,
)
from tests.helpers.rule_oracle import Term

RATE = 0.3
LEFT, RIGHT = 70, 20

MASKS = {
    "causal": rule(lambda a: masks.causal(), lambda a, p: p.j <= p.i),
    "window": rule(
        lambda a: masks.sliding_window(LEFT, RIGHT),
        lambda a, p: (p.i - LEFT <= p.j) & (p.j <= p.i + RIGHT),
    ),
    "dilated": rule(
        lambda a: masks.dilated(20, 10, 7),
        lambda a, p: (p.i - 140 <= p.j) & (p.j <= p.i + 70) & ((p.i - p.j) % 7 == 0),
    ),
    "prefix": rule(
        lambda a: masks.prefix(a["length"][:, None]) | masks.causal(),
        lambda a, p: (p.j < a["length"][:, None, None, None]) | (p.j <= p.i),
        lambda s, rng: {"length": np.resize([130, 0, 60], s.B).astype(np.int32)},
    ),
    "key padding": rule(
        lambda a: masks.key_padding(a["length"][:, None]),
        lambda a, p: p.j < a["length"][:, None, None, None],
        lambda s, rng: {"length": np.resize([s.S * 2 // 3, 1, 0], s.B).astype(np.int32)},
    ),
    "documents": Option(
        lambda a, s: {"mask": masks.segments(a["ids"][..., : s.T], a["ids"][..., : s.S])},
        documents,
        in_one_document,
    ),
    "array": array("B", "N", "T"),
    "array of examples": array("B", "T"),
    "array of heads": array("N", "T"),
    "array of keys": array("B"),
    "array for all": array("T"),
    "from_array": Option(
        lambda a, s: {"mask": masks.from_array(a["pairs"])},
        lambda s, rng: {"pairs": rng.random((s.B, 1, s.T, s.S)) < 0.7},
        lambda a, p: a["pairs"],
    ),
    "callable": rule(
        lambda a: lambda i, j: (i * 7 + j * 3) % 5 > 0, lambda a, p: (p.i * 7 + p.j * 3) % 5 > 0
    ),
    "callable with arrays": rule(
        lambda a: lambda i, j: a["live"][j] | a["open"][i],
        lambda a, p: a["live"][p.j] | a["open"][p.i],
        lambda s, rng: {"live": rng.random(s.S) < 0.5, "open": rng.random(s.T) < 0.3},
    ),
    "not causal": rule(lambda a: ~masks.causal(), lambda a, p: p.j > p.i),
    "strictly before": rule(lambda a: lambda i, j: j < i, lambda a, p: p.j < p.i),
    "later queries": rule(lambda a: lambda i, j: i >= 140, lambda a, p: p.i >= 140),
    "later keys": rule(lambda a: lambda i, j: j >= 140, lambda a, p: p.j >= 140),
    "nothing": rule(lambda a: lambda i, j: i < 0, lambda a, p: (p.i < 0) & (p.j < 0)),
    "key lengths": lengths("key_value_seq_lengths", "S"),
    "query lengths": lengths("query_seq_lengths", "T"),
    "block mask": Option(
        lambda a, s: {
            "mask": attn_jax.block_mask(
                masks.causal() & masks.sliding_window(LEFT, RIGHT), s.T, s.S, tile=(128, 128)
            )
        },
        unmasked=lambda a, p: (p.i - LEFT <= p.j) & (p.j <= p.i),
    ),
}
"""Options that mask pairs."""

SCORE_MODS = {
    "bias": bias("B", "N", "T"),
    "bias of heads": bias("N", "T"),
    "bias of examples": bias("B", "T"),
    "bias for all": bias("T"),
    "bias of keys": bias("B"),
    "bias of heads and keys": bias("N"),
    "bias of one row": bias(),
    "bias that hides": hidden_bias(),
    "slopes": slopes(lambda s: (s.N,), lambda slope: slope[None]),
    "slope": slopes(lambda s: (), lambda slope: slope),
    "table": table(bidirectional=True, per_head=True),
    "causal table": table(bidirectional=False, per_head=True),
    "shared table": table(bidirectional=True, per_head=False),
    "number": lookup(
        lambda s: (),
        lambda a, s: lambda x, i, j: x + a["w"].astype(x.dtype) * (j % 3).astype(x.dtype),
        lambda a, p: Term(a["w"] * (p.j % 3), {"w": (np.zeros((), int), p.j % 3)}),
    ),
    "by query": lookup(
        lambda s: (s.T,),
        lambda a, s: lambda x, i, j: x + a["w"][i] * (j % 2).astype(x.dtype),
        lambda a, p: Term(a["w"][p.i] * (p.j % 2), {"w": (p.i, p.j % 2)}),
    ),
    "by key": lookup(
        lambda s: (s.S,), lambda a, s: lambda x, i, j: x + a["w"][j], entry(lambda a, p: p.j)
    ),
    "by both": lookup(
        lambda s: (s.T,),
        lambda a, s: lambda x, i, j: x + a["w"][i] * jnp.cos(a["u"][j]),
        product_term,
        lambda s, rng: {"u": rng.normal(size=s.S)},
    ),
    "by distance": lookup(
        lambda s: (s.T + s.S,),
        lambda a, s: lambda x, i, j: x + a["w"][i - j + s.S],
        entry(lambda a, p: p.i - p.j + p.sizes.S),
    ),
    "by pair": lookup(
        lambda s: (s.T, s.S),
        lambda a, s: lambda x, i, j: x + a["w"][i, j],
        entry(lambda a, p: p.i * p.sizes.S + p.j),
    ),
    "by a key's segment": lookup(
        lambda s: (5,),
        lambda a, s: lambda x, i, j: x + a["w"][a["segment"][j]],
        entry(lambda a, p: a["segment"][p.j]),
        segment,
    ),
    "by two blocks": lookup(
        lambda s: (s.T // 40 + 1, s.S // 40 + 1),
        lambda a, s: lambda x, i, j: x + a["w"][i // 40, j // 40],
        entry(lambda a, p: p.i // 40 * (p.sizes.S // 40 + 1) + p.j // 40),
    ),
    "root": lookup(
        lambda s: (),
        lambda a, s: lambda x, i, j: x - a["w"] * jnp.sqrt((i - j).astype(x.dtype)),
        root_term,
    ),
    "gain": Option(
        lambda a, s: {"score_mod": lambda x, i, j: x * a["gain"].astype(x.dtype)[j]},
        lambda s, rng: {"gain": rng.uniform(0.5, 1.5, size=s.S)},
    ),
    "cap": Option(
        lambda a, s: {"score_mod": score_mods.soft_cap(a["cap"])},
        lambda s, rng: {"cap": np.array(1.5)},
    ),
}
"""Options that change logits, in the order in which they are applied."""

OTHERS = {
    "scale": Option(lambda a, s: {"scale": a["scale"]}, lambda s, rng: {"scale": np.array(0.4)}),
    "sink": Option(lambda a, s: {"sink": a["sink"]}, lambda s, rng: {"sink": rng.normal(size=s.N)}),
    "dropout": Option(lambda a, s: {"dropout_rate": RATE, "dropout_rng": dropout_rngs(s.B, s.N)}),
}
OPTIONS = MASKS | SCORE_MODS | OTHERS
