"""How long a chain waits."""

import numpy as np

from flowmcmc.reading.waits import longest_run


def test_the_longest_run_of_rejections():
    assert longest_run(np.array([0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == 0
    assert longest_run(np.ones(4, bool)) == 4
