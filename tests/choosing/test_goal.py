"""When drawing stops, and why."""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import mixture_of, starts, tiny_run
from support.targets import two_modes

import flowmcmc
from flowmcmc.choosing.goal import Goal, draw_towards
from flowmcmc.ground.budget import Budget
from flowmcmc.running.run import Trace

CHAINS, EACH = 50, 3


class Info(NamedTuple):
    logdensity: np.ndarray
    num_local_evaluations: np.ndarray
    num_flow_evaluations: np.ndarray


def drawer(correlation=0.0, stop_at=10_000):
    """Draws of an autoregression, three evaluations each, that end at `stop_at` as if interrupted."""
    rng, sizes = np.random.default_rng(0), []
    last = rng.standard_normal(CHAINS)

    def draw(state, num_rounds):
        nonlocal last
        size = min(num_rounds, stop_at) - state.round
        rows = np.empty((size, CHAINS))
        for row in rows:
            last = correlation * last + np.sqrt(1 - correlation**2) * rng.standard_normal(CHAINS)
            row[:] = last
        sizes.append(size)
        evaluations = np.full(rows.shape, EACH)
        return SimpleNamespace(round=state.round + size), Trace(rows, Info(rows, 0 * evaluations, evaluations))

    return draw, sizes


def drawn(min_ess=None, budget=None, num_samples=1000, **options):
    draw, sizes = drawer(**options)
    state, trace, why = draw_towards(Goal(min_ess, budget or Budget()), draw, SimpleNamespace(round=0), num_samples)
    assert state.round == sum(sizes) == len(trace.position)
    return state.round, why, sizes


def test_all_are_drawn_at_once_where_no_number_is_enough():
    assert drawn(num_samples=700) == (700, "num_samples", [700])


def test_independent_draws_are_enough_soon_and_correlated_ones_later():
    rounds, why, _ = drawn(min_ess=4000)
    assert why == "targets met" and rounds == 100
    rounds, why, sizes = drawn(min_ess=4000, correlation=0.5)  # a third of the draws count
    assert why == "targets met" and 200 < rounds < 400 and len(sizes) <= 4


def test_never_more_than_num_samples():
    assert drawn(min_ess=1e9, num_samples=330)[:2] == (330, "num_samples")


def test_a_budget_of_evaluations_is_kept():
    rounds, why, _ = drawn(budget=Budget(max_evaluations=60_000))
    assert why == "max_evaluations" and 60_000 - EACH * CHAINS < rounds * CHAINS * EACH <= 60_000


def test_a_budget_of_seconds_ends_it():
    budget = Budget(max_seconds=1e-9)
    assert drawn(budget=budget)[1] == "max_seconds"


def test_an_interruption_is_one():
    assert drawn(min_ess=1e9, stop_at=130)[:2] == (130, "interrupted")


def test_chains_that_disagree_are_never_enough():
    def draw(state, num_rounds):
        size = num_rounds - state.round
        rows = np.random.default_rng(state.round).standard_normal((size, CHAINS)) + 3 * (np.arange(CHAINS) % 2)
        zero = np.zeros((size, CHAINS), int)
        return SimpleNamespace(round=num_rounds), Trace(rows, Info(rows, zero, zero))

    assert draw_towards(Goal(1.0, Budget()), draw, SimpleNamespace(round=0), 400)[2] == "num_samples"


@pytest.fixture(scope="module")
def result():
    return tiny_run(num_samples=None, min_ess=300)


def test_sample_stops_and_says_so(result):
    assert result.settings["stopped"] == "targets met" and result.settings["partial"] == 0
    drawn = result.trace.position.shape[0]
    assert result.settings["num_samples"] == drawn == result.state.round < 1000
    assert flowmcmc.reading.convergence.worst_ess(result.trace.position) >= 300
    more = result.more(1000 - drawn, progress_bar=False)
    whole = tiny_run(num_samples=1000)
    np.testing.assert_array_equal(more.trace.position, whole.trace.position)


def test_evaluations_are_told_by_stage(result):
    told = result.evaluations
    assert told["search"] == 0 and told["warmup"] > 0
    rows = result.trace.info
    assert told["drawing"] == rows.num_local_evaluations.sum() + rows.num_flow_evaluations.sum()


def test_a_budget_cuts_a_run_short_and_says_so():
    result = tiny_run(num_samples=100_000, max_evaluations=30_000)
    assert result.settings["stopped"] == "max_evaluations" and result.settings["partial"] == 1
    assert 25_000 < sum(result.evaluations.values()) <= 30_000
    assert "max_evaluations was reached" in flowmcmc.summary(result).verdict


def test_half_of_a_budget_is_for_warm_up():
    options = {"num_warmup": 10_000, "num_samples": 100_000, "max_evaluations": 20_000, "progress_bar": False}
    result = flowmcmc.sample(0, two_modes, starts(), flow=mixture_of(jnp.zeros(2)), **options)
    assert 10_000 <= result.evaluations["warmup"] < 14_000 and result.evaluations["drawing"] > 5_000


def test_a_budget_that_ends_in_the_search_is_told():
    wide = flowmcmc.normal(jnp.zeros(2), scale=10.0)
    with pytest.raises(RuntimeError, match=r"max_evaluations was reached in the search, at .* nothing to return yet"):
        flowmcmc.sample(0, two_modes, wide, num_particles=200, max_evaluations=100, progress_bar=False)


@pytest.mark.parametrize("name", ["min_ess", "max_seconds", "max_evaluations"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("many", TypeError)]
)
def test_limits_are_positive_numbers(name, value, error):
    with pytest.raises(error, match=f"{name} must be"):
        flowmcmc.sample(0, two_modes, jax.ShapeDtypeStruct((20, 2), "float64"), **{name: value})
