"""r-hat and effective sample size from arrays are arviz's, and the quick one is near."""

import arviz as az
import numpy as np
import pytest

from flowmcmc.reading.convergence import quick_ess, worst_ess, worst_rhat


def autoregression(correlation, shape, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal(shape)
    for now, before in zip(rows[1:], rows):
        now[:] = correlation * before + np.sqrt(1 - correlation**2) * now
    return rows


POSITION = {"a": autoregression(0.3, (400, 100, 2)), "b": autoregression(0.8, (400, 100), seed=1)}


def test_they_are_those_of_arviz():
    tree = az.from_dict({"posterior": {name: np.swapaxes(leaf, 0, 1) for name, leaf in POSITION.items()}})
    smallest = min(float(az.ess(tree)[name].min()) for name in POSITION)
    largest = max(float(az.rhat(tree)[name].max()) for name in POSITION)
    assert worst_ess(POSITION) == pytest.approx(smallest) and worst_rhat(POSITION) == pytest.approx(largest)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_the_quick_one_is_near(correlation):
    rows = autoregression(correlation, (400, 100, 1))
    expected = rows.size * (1 - correlation) / (1 + correlation)
    assert quick_ess(rows) == pytest.approx(expected, rel=0.5)
    assert worst_ess(rows) == pytest.approx(expected, rel=0.2)


def test_what_cannot_be_told_is_not_a_number():
    assert np.isnan(quick_ess(np.zeros((10, 1, 2)))) and np.isnan(worst_ess(np.zeros((3, 5))))
    assert np.isnan(worst_rhat(np.zeros((3, 5))))
