"""`make test-peers` without a clone names the variable to set."""

import pytest

from tests.programs import peers


@pytest.mark.parametrize("name", peers.SUITES)
def test_the_message_for_a_missing_clone_names_its_variable(name, tmp_path):
    variable, suite = name.upper(), peers.SUITES[name]
    assert f"give {variable}=/path/to a clone of {name}" in peers.missing(name, None)
    assert f"{variable}={tmp_path} has no {suite.files[0]}" in peers.missing(name, tmp_path)
    for file in suite.files:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert peers.missing(name, tmp_path) is None
