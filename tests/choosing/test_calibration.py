"""The numbers of the rule: each is explained, and inside the range that its unit allows."""

import re
from pathlib import Path

from flowmcmc.choosing import calibration

NUMBERS = {name: value for name, value in vars(calibration).items() if name.isupper()}


def test_each_number_says_what_it_is():
    text = Path(calibration.__file__).read_text()
    for name in NUMBERS:
        # a long line is broken before the number, and its comment stands behind that
        assert re.search(rf"^{name} = (?:\(\s*)?[\d.]+  # \w", text, flags=re.MULTILINE), name


def test_shares_are_shares_and_counts_are_whole():
    for name in ("ENOUGH", "OFTEN", "HOPELESS", "BLOCK", "LAST_FIT", "STARVED", "GAINS", "CUT_OFF_WORTH", "RIDGE"):
        assert 0 < NUMBERS[name] < 1, name
    for name in ("MAX_WAIT", "CHEAP_WAIT", "MAX_BLOCKS", "ROUNDS", "SLOTS", "SLOT_NUMBERS", "RECENT", "SMC_STEPS"):
        assert isinstance(NUMBERS[name], int) and NUMBERS[name] > 0, name
    assert NUMBERS["CHEAP_WAIT"] > NUMBERS["MAX_WAIT"] > NUMBERS["SHORT_WAIT"]
