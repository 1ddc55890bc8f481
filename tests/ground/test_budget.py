"""What a run may spend."""

import time

import pytest

from flowmcmc.ground.budget import Budget


def test_without_limits_nothing_is_ever_spent():
    budget = Budget()
    assert not budget.spend(10**12) and budget.share_spent == 0 and not budget.is_limited
    assert budget.rounds_left(1.0, 1.0) == float("inf")


def test_the_nearer_limit_counts():
    budget = Budget(max_seconds=1000.0, max_evaluations=100)
    assert budget.is_limited and not budget.spend(60)
    assert budget.share_spent == pytest.approx(0.6) and budget.nearest == "max_evaluations"
    assert budget.rounds_left(1e-3, 10.0) == pytest.approx(4)
    assert budget.rounds_left(500.0, 1.0) == pytest.approx(2, rel=1e-2)
    assert budget.spend(40) and budget.rounds_left(1e-3, 10.0) == 0


def test_time_counts_from_the_start():
    budget = Budget(max_seconds=0.01)
    time.sleep(0.02)
    assert budget.share_spent > 1 and budget.nearest == "max_seconds" and budget.rounds_left(1.0, 1.0) == 0
