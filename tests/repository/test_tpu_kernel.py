"""The fused TPU kernel compiles for three TPUs with the real compiler, without a TPU.

`make test` compiles nine cases of the table in docs/tpu.md; its command compiles them all.
"""

import pytest

from tests.helpers.tpu_compiler import needs_the_compiler, output_of
from tests.programs import tpu_table
from tests.programs.compile_tpu_kernel import largest_on_chip, pair_arrays

MIB = 2**20
HELD_BY_PAIR = {
    "mask array": {"pred", "s8"},  # the mask, and its copy for the kernel
    "bias per head": {"bf16"},
    "shared bias": {"bf16"},
}
"""The dtypes of arrays with an entry for each pair, where a call has such an array itself."""


@pytest.fixture(scope="module")
def compiled():
    return output_of("check_tpu_kernel.py")


@needs_the_compiler
def test_a_pass_is_one_kernel_for_all_heads(compiled):
    kernels = {name: report["kernels"] for name, report in compiled["cases"].items()}
    biases = {"bias per head", "shared bias"}  # their gradient is one more
    assert kernels == {name: 4 if name in biases else 3 for name in kernels}


@needs_the_compiler
def test_no_array_has_an_entry_for_each_pair_unless_the_call_has_one(compiled):
    for name, report in compiled["cases"].items():
        dtypes = {array.partition("[")[0] for array in report["pair_arrays"]}
        assert dtypes == HELD_BY_PAIR.get(name, set()), f"{name}: {report['pair_arrays']}"


@needs_the_compiler
def test_a_dense_bias_takes_the_memory_of_the_bias(compiled):
    T = 2048
    for name, heads in (("shared bias", 1), ("bias per head", 4)):
        report = compiled["cases"][name]
        assert report["temporary_bytes"] < MIB
        # 129 MiB in float32, or with a copy for each of 8 heads
        assert report["largest_on_chip_bytes"] <= 2 * heads * T * T


@needs_the_compiler
def test_temporaries_of_long_attention_are_linear(compiled):
    short, long = compiled["long"].values()  # 4 times as long
    for name in ("temporary_bytes", "largest_on_chip_bytes"):
        assert long[name] <= 4.2 * short[name]
    assert long["pair_arrays"] == []


@needs_the_compiler
def test_forward_and_backward_of_128k_tokens_take_4_mib_of_the_main_memory(compiled):
    """Arrays in on-chip memory are not counted: none is larger than the output in float32."""
    *_, long = compiled["long"].values()
    assert 0 < long["temporary_bytes"] <= 4 * MIB
    assert long["largest_on_chip_bytes"] <= 4 * 2**17 * 128


@needs_the_compiler
def test_forward_and_backward_of_a_million_tokens_compile(compiled):
    T, H = 2**20, 128
    report = compiled["a million tokens"]
    assert report["kernels"] == 3
    assert report["pair_arrays"] == []
    # The output in float32, and tile lists of 4 million tiles
    assert report["temporary_bytes"] <= 4 * T * H + 64 * MIB


@needs_the_compiler
def test_forward_and_backward_compile_in_15_seconds(compiled):
    """CPU seconds of all threads: other work on the machine hardly counts."""
    reports = compiled["cases"] | {"a million": compiled["a million tokens"]}
    seconds = {name: report["cpu_seconds"] for name, report in reports.items()}
    assert max(seconds.values()) <= 15, seconds


def test_arrays_by_pair_are_found_in_any_order_and_padded():
    text = "%a = f32[2,512,1024]{2,1,0} add(...), %b = bf16[1024,500]{1,0} ... s32[500,7] ... u8[]"
    assert pair_arrays(text, (500, 1000)) == ["bf16[1024,500]", "f32[2,512,1024]"]
    assert pair_arrays("f32[2,512,128]", (512, 512)) == []
    assert pair_arrays("f32[512,512]", (512, 512)) == ["f32[512,512]"]


def test_the_largest_array_in_on_chip_memory_is_found():
    text = "bf16[4,8]{1,0:T(8,128)S(1)} pred[40]{0:S(1)} f32[100]{0} s32[9]{0:T(128)S(1)}"
    assert largest_on_chip(text) == 4 * 8 * 2
    assert largest_on_chip("f32[100]{0}") == 0


def test_the_page_has_the_table_of_the_stored_rows():
    page, rows = tpu_table.PAGE.read_text("utf-8"), tpu_table.stored()
    assert page == tpu_table.with_table(page, rows), "run python -m tests.programs.tpu_table"
    assert f"{rows[0]['cpu_seconds']:.1f} s" in page
    assert not any("error" in row for row in rows)
