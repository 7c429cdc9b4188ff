"""The `cudnn` kernel without a GPU: layout, transforms and refusals.

Plain XLA by `jax.nn` replaces the cuDNN call, so that the numbers can be checked on a CPU. The
calls of cuDNN themselves are checked in the program that is lowered for CUDA.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

import attn_jax
from attn_jax import masks
from attn_jax._engine.kernels import cudnn
from tests.helpers import oracle
from tests.helpers.draws import draw
from tests.helpers.tolerance import assert_close, assert_differs

B, T, S, N, K, H = 2, 5, 7, 6, 2, 8
SELF = {"is_causal": True}


@pytest.fixture
def gpu(monkeypatch):
    """Pretends that there is a Hopper GPU: programs for it can be lowered, not run."""
    monkeypatch.setattr(cudnn, "_capability", lambda platform: 9)
    checks = {
        "check_cudnn_version": lambda: 91000,
        "check_compute_capability": lambda _: True,
        "is_cuda_compute_capability_equal": lambda version: version == "9.0",
    }
    for name, check in checks.items():
        monkeypatch.setattr(fused_attention_stablehlo, name, check)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def kernel(gpu, monkeypatch):
    """Replaces the kernel by XLA, which takes float32 and any length."""
    monkeypatch.setattr(cudnn, "_KERNEL", "xla")
    monkeypatch.setattr(cudnn, "_TILE", 1)
    monkeypatch.setattr(cudnn, "_DTYPES", (jnp.bfloat16, jnp.float16, jnp.float32))
    with jax.numpy_dtype_promotion("standard"):  # XLA's version promotes inside
        yield


def operands(seed, dtype=jnp.float32, keys=S):
    return draw(seed, (B, T, N, H), (B, keys, K, H), (B, keys, K, H), dtype=dtype)


def attend(implementation, **options):
    return partial(attn_jax.dot_product_attention, implementation=implementation, **options)


def loss(attention, *arrays):
    return jnp.sum(jnp.sin(attention(*arrays)))


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("options", [{}, SELF, {"scale": 0.75}], ids=str)
def test_output_and_gradients_are_the_oracles(options, dtype):
    arrays = operands(0, dtype, keys=T if "is_causal" in options else S)
    (cotangent,) = draw(1, (B, T, N, H), dtype=dtype)
    out, pull = jax.vjp(jax.jit(attend("cudnn", **options)), *arrays)
    exact = [np.asarray(array).astype(np.float64) for array in (*arrays, cotangent)]
    assert_close(out, oracle.multi_head(*exact[:3], **options), dtype=dtype, roundings=3)
    wanted = oracle.multi_head_gradients(*exact, **options)
    for ours, theirs in zip(pull(cotangent), wanted, strict=True):
        assert_close(ours, theirs, dtype=dtype, gradient=True, roundings=3)


@pytest.mark.skipif(cudnn._capability(jax.default_backend()) is None, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_on_a_gpu_the_kernel_computes_the_definition(dtype):
    options = {"is_causal": True, "scale": 0.2}
    shapes = (B, 256, N, 64), (B, 256, K, 64), (B, 256, K, 64), (B, 256, N, 64)
    *arrays, cotangent = draw(9, *shapes, dtype=dtype)
    out, pull = jax.vjp(jax.jit(attend("cudnn", **options)), *arrays)
    exact = [array.astype(jnp.float32) for array in (*arrays, cotangent)]
    with jax.default_matmul_precision("highest"):
        wanted, pull_exact = jax.vjp(jax.jit(attend("reference", **options)), *exact[:3])
        gradients = pull_exact(exact[3])
    assert_close(out, wanted, dtype=dtype, roundings=3)
    for ours, theirs in zip(pull(cotangent), gradients, strict=True):
        assert_close(ours, theirs, dtype=dtype, gradient=True, roundings=3)


def hessian_vector(attention, arrays, tangents):
    return jax.jvp(jax.grad(partial(loss, attention), argnums=(0, 1, 2)), arrays, tangents)[1]


def gradient_of_gradient(attention, arrays, tangents):
    def slope(*arrays):
        gradients = jax.grad(partial(loss, attention), argnums=(0, 1, 2))(*arrays)
        return sum(jnp.vdot(g, t) for g, t in zip(gradients, tangents, strict=True))

    return jax.grad(slope, argnums=(0, 1, 2))(*arrays)


TRANSFORMS = {
    "linearize": lambda attention, arrays, tangents: [
        jax.linearize(attention, *arrays)[1](*tangents)
    ],
    "jvp of grad": hessian_vector,
    "grad of grad": gradient_of_gradient,
    "grad of jvp": lambda attention, arrays, tangents: jax.grad(
        lambda query: jnp.sum(jax.jvp(attention, (query, *arrays[1:]), tangents)[1] ** 2)
    )(arrays[0])[None],
    "jit of grad of remat": lambda attention, arrays, tangents: jax.jit(
        jax.grad(partial(loss, jax.checkpoint(attention)), argnums=(0, 1, 2))
    )(*arrays),
    "reverse jacobian": lambda attention, arrays, tangents: jax.jacrev(
        lambda *arrays: attention(*arrays)[0, 1, 2], argnums=(0, 1, 2)
    )(*arrays),
}


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_every_transform_goes_through(transform):
    shapes = (T, 3, H), (T, H), (T, H)
    arrays, tangents = (tuple(draw(seed, *shapes, dtype=jnp.float32)) for seed in (2, 3))

    def derivative(name):
        head = partial(attn_jax.attend, mask=masks.causal(), implementation=name)
        group = jax.vmap(head, in_axes=(1, None, None), out_axes=1)
        return jax.jit(partial(transform, group))(arrays, tangents)

    for ours, wanted in zip(derivative("cudnn"), derivative("reference"), strict=True):
        assert_close(ours, wanted, gradient=True, roundings=3)


# For each `vmap`, outermost first: which of query, key and value it maps.
MAPS = {
    "all": [(0, 0, 0)],
    "keys shared": [(0, None, None)],
    "values alone": [(None, None, 0)],
    "query alone inside": [(0, 0, 0), (0, None, None)],
    "each in its own": [(0, None, None), (None, 0, None), (None, None, 0)],
    "grouped twice": [(0, 0, 0), (0, None, None), (0, 0, 0), (0, None, None)],
}
SIZES = (2, 3, 4, 2)


def mapped(function, maps):
    for axes in reversed(maps):
        function = jax.vmap(function, in_axes=axes)
    return function


def mapped_operands(maps):
    shapes = []
    for operand, core in enumerate([(T, H), (S, H), (S, H)]):
        shapes.append(
            (*(n for n, axes in zip(SIZES, maps, strict=False) if axes[operand] == 0), *core)
        )
    return draw(4, *shapes, dtype=jnp.float32)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("maps", MAPS.values(), ids=MAPS)
def test_gradients_of_vmap_and_vmap_of_gradients(maps):
    arrays = mapped_operands(maps)

    @partial(jax.jit, static_argnums=0)
    def both(name, *arrays):
        head = partial(attn_jax.attend, implementation=name)
        outside = jax.grad(partial(loss, mapped(head, maps)), argnums=(0, 1, 2))(*arrays)
        inside = mapped(jax.grad(partial(loss, head), argnums=(0, 1, 2)), maps)(*arrays)
        return (*outside, *inside)

    for ours, wanted in zip(both("cudnn", *arrays), both("reference", *arrays), strict=True):
        assert_close(ours, wanted, gradient=True)


@pytest.mark.usefixtures("kernel")
def test_second_derivatives_of_vmap_of_a_gradient():
    maps = MAPS["query alone inside"]
    arrays = mapped_operands(maps)

    @partial(jax.jit, static_argnums=0)
    def second(name, *arrays):
        head = partial(attn_jax.attend, implementation=name)
        gradient = mapped(jax.grad(partial(loss, head), argnums=(0, 1, 2)), maps)
        return jax.grad(lambda *a: sum(jnp.sum(g**2) for g in gradient(*a)), argnums=(0, 1, 2))(
            *arrays
        )

    for ours, wanted in zip(second("cudnn", *arrays), second("reference", *arrays), strict=True):
        assert_close(ours, wanted, gradient=True, roundings=3)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logsumexp_is_float32_with_gradients_and_so_is_the_sink(dtype):
    query, key, value = (array[0, :, 0] for array in operands(5, dtype))
    wide = [array.astype(jnp.float32) for array in (query, key, value)]
    heads = [
        partial(attn_jax.attend_with_logsumexp, implementation=name, sink=0.5)
        for name in ("cudnn", "reference")
    ]
    ours, wanted = heads[0](query, key, value)[1], heads[1](*wide)[1]
    assert_close(ours, wanted)
    gradients = [jax.grad(lambda scale, h=h: h(*wide, scale=scale)[1].sum())(0.3) for h in heads]
    assert_close(*gradients, gradient=True)
    assert_differs(wanted, heads[1](*wide, scale=0.1)[1])


def lowered_for_cuda(function, *arrays):
    lowered = jax.jit(function).trace(*arrays).lower(lowering_platforms=("cuda",))
    return lowered.as_text()


def calls(program):
    """The kernel calls of a program, each with the shapes of query, key and value."""
    pattern = r"custom_call @__cudnn\$(\w+)\(.*?: \(tensor<([\dx]+)xbf16>, tensor<([\dx]+)xbf16>, "
    return re.findall(pattern + r"tensor<([\dx]+)xbf16>", program)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("options", [{}, SELF, {"scale": 0.5}], ids=str)
def test_an_attention_call_is_one_kernel_call_without_repeated_keys(options):
    L = 256
    arrays = draw(6, (B, L, N, H), (B, L, K, H), (B, L, K, H), dtype=jnp.bfloat16)
    program = lowered_for_cuda(attend("cudnn", **options), *arrays)
    query, key = f"{B}x{L}x{N}x{H}", f"{B}x{L}x{K}x{H}"
    assert calls(program) == [("fmhaSoftmax", query, key, key)]
    assert ("CAUSAL" in program) == ("is_causal" in options)
    gradient = jax.grad(
        lambda *arrays: jnp.sum(attend("cudnn", **options)(*arrays)), argnums=(0, 1)
    )
    called = calls(lowered_for_cuda(gradient, *arrays))
    assert ("fmhaSoftmaxBackward", query, key, key) in called
    assert {row[1:] for row in called} == {(query, key, key)}


@pytest.mark.usefixtures("gpu")
def test_implementation_none_does_not_choose_the_kernel():
    arrays = draw(7, (B, 256, N, H), (B, 256, K, H), (B, 256, K, H), dtype=jnp.bfloat16)
    assert not calls(lowered_for_cuda(attend(None), *arrays))
    assert calls(lowered_for_cuda(attend("cudnn"), *arrays))


@pytest.mark.usefixtures("gpu")
def test_one_head_with_the_causal_mask_rule_is_accepted():
    head = draw(8, (128, H), (128, H), (128, H), dtype=jnp.bfloat16)
    causal = partial(attn_jax.attend, mask=masks.causal(), implementation="cudnn")
    program = lowered_for_cuda(causal, *head)
    assert calls(program) == [("fmhaSoftmax", *3 * [f"1x128x1x{H}"])]
    assert "CAUSAL" in program


@pytest.mark.usefixtures("kernel")
def test_a_tangent_that_examples_share_gets_the_sum_of_their_cotangents():
    query, keys, value, cotangents = draw(
        10, (T, H), (B, S, H), (S, H), (B, T, H), dtype=jnp.float32
    )

    def output_tangents(name, tangent):
        head = partial(attn_jax.attend, implementation=name)
        one = lambda key: jax.jvp(lambda k: head(query, k, value), (key,), (tangent,))[1]  # noqa: E731
        return jax.vmap(one)(keys)

    ours, wanted = (
        jax.linear_transpose(partial(output_tangents, name), keys[0])(cotangents)[0]
        for name in ("cudnn", "reference")
    )
    assert_close(ours, wanted, gradient=True)
