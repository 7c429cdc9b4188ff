"""The library compiles for 4 to 256 TPU chips with the real compiler, without a TPU."""

import pytest

from tests.helpers.tpu_compiler import needs_the_compiler, output_of

pytestmark = needs_the_compiler


@pytest.fixture(scope="module")
def compiled():
    return output_of("compile_for_tpu.py")


@pytest.fixture(scope="module")
def kernel():
    return output_of("compile_kernel_for_tpu.py")


def test_dot_product_attention_compiles_and_moves_nothing_between_chips(compiled):
    report = compiled["dot_product_attention"]
    assert report["chips"] == 4
    assert report["flops"] > 0
    assert report["collectives"] == {}


def test_a_training_step_compiles_and_exchanges_gradients_only(compiled):
    report = compiled["training_step"]
    assert report["chips"] == 4
    assert set(report["collectives"]) == {"all-reduce"}
    assert 0 < report["temporary_bytes"] < 16 * 2**30  # a v5e chip has 16 GiB


def test_tensor_parallelism_on_256_chips_needs_all_reduces_only(compiled):
    report = compiled["tensor_parallel_step"]
    assert report["chips"] == 256
    assert set(report["collectives"]) == {"all-reduce"}
    # Two forward and two backward in each of two blocks. The others are of the sharded vocabulary
    # (embedding lookup; maximum, sum and target of the loss) and of the gradients.
    assert 8 <= report["collectives"]["all-reduce"] <= 14


@pytest.mark.parametrize(("name", "chips"), [("v5e:2x2", 4), ("v6e:16x16", 256)])
def test_memory_of_long_attention_is_linear_on_every_chip(compiled, name, chips):
    short, long = compiled["long_attention"][name]  # 4 times as long
    assert short["chips"] == long["chips"] == chips
    assert short["collectives"] == long["collectives"] == {}
    # Arrays in on-chip memory are not counted, so the ratio is a little over 4.
    assert 3 * short["temporary_bytes"] < long["temporary_bytes"] < 4.4 * short["temporary_bytes"]


DEVICES = {"batch": 2, "heads": 2, "both": 4, "neither": 1}


@pytest.mark.parametrize("key_heads", ["all", "half", "one"])
@pytest.mark.parametrize("layout", DEVICES)
def test_with_explicit_axes_each_chip_calls_a_kernel_with_its_own_heads(kernel, layout, key_heads):
    """Nothing is gathered. Gradients of a key head that chips share are summed over these chips."""
    report = kernel["v5e:2x2"][f"{layout}, {key_heads}"]
    heads = 4 * 4 // DEVICES[layout]
    assert report["heads"] == [heads, heads]  # forward and backward
    is_shared = key_heads == "one" and layout in ("heads", "both")
    assert set(report["collectives"]) == ({"all-reduce"} if is_shared else set())


@pytest.mark.parametrize("key_heads", ["all", "half", "one"])
def test_on_256_chips_a_kernel_gathers_nothing(kernel, key_heads):
    report = kernel["v6e:16x16"][f"both, {key_heads}"]
    assert report["heads"] == [4, 4]
    assert set(report["collectives"]) == ({"all-reduce"} if key_heads == "one" else set())


@pytest.mark.parametrize(("mesh", "heads"), [("v5e:2x2", 4), ("v6e:16x16", 4)])
def test_the_forward_pass_alone_is_one_call_on_each_chip(kernel, mesh, heads):
    assert kernel[mesh]["forward"] == {"collectives": {}, "heads": [heads]}


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("spmd_axis_name", [1]),
        ("shard_map, check_vma=True", [4, 4]),
        ("shard_map, check_vma=False", [4, 4]),
    ],
)
def test_where_the_caller_says_how_axes_are_divided_automatic_axes_will_do(kernel, name, heads):
    assert kernel["automatic"][name] == {"collectives": {}, "heads": heads}


def test_with_automatic_axes_a_named_kernel_is_refused_with_the_remedies(kernel):
    report = kernel["automatic"]["named kernel"]
    assert report["error"] == "NotImplementedError"
    assert "implementation 'toy' cannot take this call" in report["message"]
    for remedy in ("AxisType.Explicit", "spmd_axis_name", "jax.shard_map", "'blockwise'"):
        assert remedy in report["message"]


def test_with_automatic_axes_the_library_chooses_what_the_compiler_divides(kernel):
    assert kernel["automatic"]["library's choice"] == {"collectives": {}, "heads": []}


def test_the_compiler_for_tpus_still_lacks_custom_partitioning(kernel):
    """When this fails, `partition.can_divide` may say True for TPUs."""
    message = kernel["automatic"]["custom partitioning"]["message"]
    assert "Custom emitter for CustomSPMDPartitioning not found" in message
