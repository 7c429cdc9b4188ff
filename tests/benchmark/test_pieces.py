"""`benchmark.pieces`: each piece takes time, and the ratio is that of the call to their sum."""

from attn_jax.benchmark import pieces
from attn_jax.benchmark.timing import Budget


def test_the_call_and_each_of_its_pieces_are_timed():
    seconds = pieces.measured("float32", Budget(rounds=3, seconds=1.0), length=1024)
    assert list(seconds) == ["call", "logits", "softmax", "weighted values"]
    assert min(spread.median for spread in seconds.values()) > 0


def test_the_report_compares_the_call_with_the_sum(capsys):
    pieces.report("float32", {"call": 0.012, "one": 0.004, "two": 0.006})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].split() == ["call", "over", "its", "pieces", "1.20×"]
    assert lines[-2].split() == ["two", "6.0", "ms"]
