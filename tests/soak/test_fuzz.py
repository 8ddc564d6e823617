"""A short fuzz of every reader; `python tests/soak/fuzz.py` is the long one."""

import fuzz


def test_damaged_files_give_answers_or_one_line():
    outcomes, broken = fuzz.fuzz(inputs=120, seed=1)
    assert not broken, broken
    assert sum(outcomes.values()) == 120 and sum(n for (_, what), n in outcomes.items() if what == "an error") > 40
