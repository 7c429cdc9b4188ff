"""All mutants can be planted, and a few of them, which change every day, are killed.

`python tests/programs/mutants.py --all` runs the whole table.
"""

import datetime
import os

import pytest

from tests.programs import mutants
from tests.programs.mutants import MUTANTS

COUNT = 2
TURN = os.environ.get("MUTANTS_SEED", str(datetime.date.today().timetuple().tm_yday))


def test_there_are_enough_and_their_names_differ():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_of_a_mutant_occurs_once(mutant):
    assert mutants.occurrences(mutant) == 1, f"{mutant.text!r} in attn_jax/{mutant.file}"
    assert mutant.text != mutant.replacement
    assert (mutants.ROOT / "tests" / mutant.tests.split()[0]).exists()


def test_the_mutants_of_the_day_are_killed():
    assert mutants.unkilled(mutants.draw_mutants(int(TURN), COUNT)) == []
