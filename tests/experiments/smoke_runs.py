"""What the programs print at the end of a run with the preset smoke."""

import re
from pathlib import Path

TEST_RUN = "This is a test run: the preset smoke only tests the program."


def assert_is_a_test_run(said: str, report: Path) -> None:
    """The output and the report say after the failed claims that this run only tests the program.

    Args:
      said: what a run of three training steps a network printed.
      report: the run's report.md.
    """
    assert re.findall(r"step 3/3 .* 0:00:00 left \(whole run (.*)\)", said)[-1] == "0:00:00"
    assert len(re.findall(r"\(whole run", said)) >= 2
    assert said.index("FAIL") < said.rindex(TEST_RUN)
    assert TEST_RUN in report.read_text()
