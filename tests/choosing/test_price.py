"""Which flow is worth its price: a dearer one must be more efficient by a factor."""

from types import SimpleNamespace

import numpy as np
import pytest

from flowmcmc.choosing.calibration import CHEAP_WAIT, MAX_WAIT, MIN_GAIN
from flowmcmc.choosing.price import BlockStats, Trial, block_stats, choose, efficiency, is_enough, is_sufficient
from flowmcmc.running.run import Trace


def stats(rate, longest=3, is_even=False):
    return BlockStats(rate, longest, is_even, 0.0, 0.0)


def test_a_dearer_flow_must_be_more_efficient_by_a_factor():
    cheap = Trial(stats(0.4), 1.0, 1.0)
    worth = efficiency(cheap)
    rate_of = lambda target: 2 * target / (1 + target)  # of an efficiency r / (2 - r)
    for factor, taken in ((MIN_GAIN * 0.95, 0), (MIN_GAIN * 1.05, 1)):
        assert choose([cheap, Trial(stats(rate_of(factor * worth)), 1.0, 10.0)]) == taken
    for factor, taken in ((0.95, 0), (1.05, 1)):
        assert choose([cheap, Trial(stats(rate_of(factor * worth)), 1.0, 1.0)]) == taken


def test_waits_and_ends_that_are_cut_off_count_against_a_flow():
    good = Trial(stats(0.6), 1.0, 1.0)
    assert efficiency(good) == pytest.approx(0.6 / 1.4)
    assert efficiency(good._replace(stats=stats(0.6, 4 * MAX_WAIT))) == pytest.approx(efficiency(good) / 4)
    assert efficiency(good._replace(worst_end=0.0)) < 0.2 * efficiency(good)


def test_what_is_sufficient():
    assert is_enough(stats(0.5, MAX_WAIT), MAX_WAIT) and not is_enough(stats(0.5, MAX_WAIT + 1), MAX_WAIT)
    assert not is_enough(stats(0.3), MAX_WAIT)
    assert is_sufficient(stats(0.5, CHEAP_WAIT), 1.0, is_fitted=True)
    assert not is_sufficient(stats(0.5, CHEAP_WAIT), 1.0, is_fitted=False)
    assert is_sufficient(stats(0.2, 99, is_even=True), 1.0, is_fitted=True)
    assert not is_sufficient(stats(0.9), 0.0, is_fitted=True), "chains are cut off"


def test_of_no_round_nothing_is_known():
    rounds = SimpleNamespace(num_flow_accepted=np.zeros((0, 4)), flow_acceptance_rate=np.zeros((0, 4)))
    training = SimpleNamespace(heldout_loss=np.zeros(0))
    found = block_stats(Trace(None, SimpleNamespace(round=rounds, training=training)))
    assert found == BlockStats(0.0, 0, False, 0.0, np.inf)
