"""Runs the attention tests of `jax.nn`, flax and tokamax with our functions in place of theirs.

The projects are not part of this repository: each is a clone, given by its path.

  make test-peers JAX=/path/to/jax FLAX=/path/to/flax TOKAMAX=/path/to/tokamax

Tokamax needs more packages; `PEERS_PYTHON=` names an interpreter that has them and ours. A test
that fails because of a documented difference (docs/moving.md) is listed here with the reason; any
other failure ends the command with status 1.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Suite(NamedTuple):
    """Test files of one clone, the tests to run, and the tests that may fail, with the reason.

    A test is named by the end of its name; those in `on_cpus` fail without an accelerator.
    """

    files: tuple[str, ...]
    chosen: str
    differences: dict[str, str]
    on_cpus: dict[str, str]


OTHER_WORDS = "the mistake is refused, in other words"
SUITES = {
    "jax": Suite(("tests/nn_test.py",), "DotProductAttention", {}, {}),
    "flax": Suite(
        ("tests/nnx/nn/attention_test.py",),
        "",
        {f"test_invalid_shapes{n}": OTHER_WORDS for n in range(4)},
        {},
    ),
    "tokamax": Suite(
        ("tokamax/_src/ops/attention/jax_nn_test.py",),
        "JaxNnDotProductAttentionTest",
        {},
        {"test_self_attention2": "XLA has no F16_F16_F32 for CPUs; tokamax' own fails too"},
    ),
}


def swap_jax() -> None:
    """Replaces `jax.nn.dot_product_attention` by ours, with the changes of docs/moving.md.

    Positions start at 0 on both sides if T ≠ S, masks and biases get the missing axes, and
    log-sum-exp is rounded to the query's dtype.
    """
    import jax
    import jax.numpy as jnp

    import attn_jax

    def written_out(pairs, query, key):
        if pairs is None:
            return None
        pairs = pairs.reshape((1,) * (query.ndim - pairs.ndim) + pairs.shape)
        return jnp.broadcast_to(pairs, (*pairs.shape[:-1], key.shape[-3]))

    def dot_product_attention(
        query, key, value, bias=None, mask=None, *, return_residual=False, **options
    ):
        bias, mask = written_out(bias, query, key), written_out(mask, query, key)
        operands = query, key, value, bias, mask
        compares = options.get("is_causal") or options.get("local_window_size") is not None
        if compares and query.shape[-3] != key.shape[-3]:
            options["query_position"] = jnp.arange(query.shape[-3])
            options["key_position"] = jnp.arange(key.shape[-3])
        if options.get("implementation") in ("xla", "cudnn"):
            options["implementation"] = None
        if return_residual:
            out, residual = attn_jax.dot_product_attention_with_logsumexp(*operands, **options)
            return out, residual.astype(query.dtype)
        return attn_jax.dot_product_attention(*operands, **options)

    jax.nn.dot_product_attention = dot_product_attention


def swap_flax() -> None:
    """Replaces `nnx.dot_product_attention` by `flax_attention`, also as the default of layers."""
    import jax.numpy as jnp
    from flax import nnx
    from flax.nnx.nn import attention

    from attn_jax.modules import flax_attention

    def dot_product_attention(query, key, value, *args, **options):
        if options.get("is_causal") and query.shape[-3] != key.shape[-3]:
            options["query_position"] = jnp.arange(query.shape[-3])
            options["key_position"] = jnp.arange(key.shape[-3])
        return flax_attention(query, key, value, *args, **options)

    theirs = attention.dot_product_attention
    nnx.dot_product_attention = attention.dot_product_attention = dot_product_attention
    defaults = nnx.MultiHeadAttention.__init__.__kwdefaults__
    assert defaults["attention_fn"] is theirs
    defaults["attention_fn"] = dot_product_attention


class Swapped:
    """A pytest plugin that replaces their function by ours and lets documented differences fail."""

    def __init__(self, name: str) -> None:
        import jax

        suite = SUITES[name]
        on_cpus = suite.on_cpus if jax.default_backend() == "cpu" else {}
        self.differences = suite.differences | on_cpus
        (swap_flax if name == "flax" else swap_jax)()

    def pytest_collection_modifyitems(self, items):
        for item in items:
            for part, reason in self.differences.items():
                if item.nodeid.endswith(part):
                    item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


def run_here(name: str, clone: Path) -> int:
    """The tests of one clone in this process."""
    suite = SUITES[name]
    options = [
        "-q",
        "-rfEx",
        "--tb=short",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(clone),
        "-c",
        os.devnull,
    ]
    chosen = ["-k", suite.chosen] if suite.chosen else []
    files = [str(clone / file) for file in suite.files]
    return int(pytest.main([*options, *chosen, *files], plugins=[Swapped(name)]))


def missing(name: str, path: Path | None) -> str | None:
    """The message for a suite that cannot run, or None."""
    variable = name.upper()
    if path is None:
        return f"{name}: not run; give {variable}=/path/to a clone of {name}"
    absent = [file for file in SUITES[name].files if not (path / file).is_file()]
    if absent:
        return f"{name}: {variable}={path} has no {absent[0]}; give the root of a clone of {name}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in SUITES:
        parser.add_argument(f"--{name}", type=Path, help=f"the root of a clone of {name}")
    parser.add_argument("--here", choices=SUITES, help=argparse.SUPPRESS)
    paths = parser.parse_args()
    if paths.here:
        return run_here(paths.here, getattr(paths, paths.here).resolve())
    failed, ran = [], []
    for name in SUITES:
        path = getattr(paths, name)
        if advice := missing(name, path):
            print(advice, flush=True)
            failed += [name] if path is not None else []
            continue
        print(f"{name}: {path}", flush=True)
        before = [str(ROOT), *([str(path)] if name == "tokamax" else [])]
        python_path = os.pathsep.join([*before, os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, __file__, "--here", name, f"--{name}", str(path)]
        # JAX's own tests require that nothing else keeps compiled functions.
        environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
        environment["PYTHONPATH"] = python_path
        run = subprocess.run(command, env=environment, check=False)
        ran.append(name)
        failed += [name] if run.returncode else []
    print(f"ran: {', '.join(ran) or 'nothing'}; failed: {', '.join(failed) or 'nothing'}")
    return int(bool(failed) or not ran)


if __name__ == "__main__":
    sys.exit(main())
