"""Where chains are cut off, r-hat and ESS look healthy; the acceptance at the ends of a coordinate does not."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import funnel

import flowmcmc
from flowmcmc.reading.edges import CUT_OFF, edges, reach

QUIET = {"progress_bar": False}


def test_the_end_with_few_accepted_steps_comes_first():
    positions = np.random.default_rng(0).standard_normal((20_000, 3))
    rate = np.where(positions[:, 1] < -2, 0.1, 0.8)
    found = edges(positions, rate, rate)
    assert found[0][:2] == (1, True) and found[0].bound == pytest.approx(-2.6, abs=0.1)
    assert reach(found) == pytest.approx(0.1 / rate.mean())
    assert all(edge.ratio > 0.8 for edge in found[1:])
    # one kind of step that leads away is enough, and one that is not there does not count
    assert reach(edges(positions, rate, np.full_like(rate, 0.5))) == pytest.approx(1)
    assert reach(edges(positions, rate, np.full_like(rate, np.nan))) == reach(found)
    assert reach(edges(positions, np.full_like(rate, np.nan), np.full_like(rate, np.nan))) == 1
    assert edges(positions[:2000], rate[:2000], rate[:2000]) == [] and reach([]) == 1


def local_rates(logdensity, starts, step_size, num_rounds=200):
    """Positions before each step of MALA, and acceptance rates."""
    tuning = flowmcmc.Tuning((), jnp.array(step_size), jnp.ones_like(starts[0]))
    frozen = flowmcmc.freeze(logdensity, blackjax.mala, None, tuning, num_local_steps=1, num_flow_steps=0)
    state = flowmcmc.run(0, frozen, starts, 20, **QUIET)[0]
    _, trace = flowmcmc.run(0, frozen, state, num_rounds, **QUIET)
    before = np.asarray(trace.position)[:-1].reshape(-1, starts.shape[1])
    return before, np.asarray(trace.info.local_acceptance_rate)[1:].ravel()


def draws(key, shape):
    return jax.random.normal(jax.random.key(key), shape)


HEALTHY = {
    "normal": (lambda x: -0.5 * jnp.sum(x**2), draws(1, (200, 3)), 0.5),
    "Laplace": (lambda x: -jnp.sum(jnp.abs(x)), jax.random.laplace(jax.random.key(2), (200, 3)), 0.5),
    "Student": (lambda x: -2 * jnp.sum(jnp.log1p(x**2 / 3)), jax.random.t(jax.random.key(3), 3.0, (200, 3)), 0.5),
    "box": (
        lambda x: jnp.where(jnp.all(jnp.abs(x) < 1), 0.0, -jnp.inf),
        jax.random.uniform(jax.random.key(4), (200, 1), minval=-1.0),
        0.05,
    ),
    "exponential": (
        lambda x: jnp.where(jnp.all(x > 0), -jnp.sum(x), -jnp.inf),
        jax.random.exponential(jax.random.key(5), (200, 1)),
        0.1,
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_tails_and_walls_are_no_necks(name):
    logdensity, starts, step_size = HEALTHY[name]
    positions, rate = local_rates(logdensity, starts, step_size)
    assert reach(edges(positions, rate, np.full_like(rate, np.nan))) > CUT_OFF


@pytest.mark.slow
def test_a_summary_names_the_neck_and_the_default_run_gets_into_it():
    wide = flowmcmc.normal(jnp.zeros(5), scale=10.0)
    mixture = flowmcmc.gaussian_mixture(jnp.zeros(5), num_components=4)
    cut = flowmcmc.sample(0, funnel, wide, flow=mixture, num_warmup=140, **QUIET)
    found = [problem for problem in flowmcmc.summary(cut).problems if "neck" in problem]
    assert len(found) == 1 and found[0].startswith("where x[0] is below -")
    assert "local steps" in found[0] and "flow proposals" in found[0]

    whole = flowmcmc.sample(0, funnel, wide, **QUIET)
    assert whole.settings["flow"] == "funnel"
    assert flowmcmc.summary(whole).problems == []
    v = whole.trace.position[..., 0]
    # 100,000 draws, 10,000 or more of them effective: three standard errors
    assert np.var(v) == pytest.approx(9, rel=0.05) and abs(v.mean()) < 0.1
    # of normal draws the lowest is at -13; the mixture's chains end near -6
    assert v.min() < -9 < cut.trace.position[..., 0].min()


def test_ends_with_few_local_steps_are_not_judged_by_proposals_alone():
    rng = np.random.default_rng(0)
    positions = rng.standard_normal((20_000, 2))
    flow = np.where(positions[:, 1] < -2.5, 0.1, 0.8)
    local = np.where(rng.random(20_000) < 0.03, 0.7, np.nan)
    assert reach(edges(positions, local, flow)) > 0.7
    # with enough of them an end is cut off only if both kinds are rejected there
    local = np.where(rng.random(20_000) < 0.5, np.where(positions[:, 1] < -2.5, 0.1, 0.7), np.nan)
    assert reach(edges(positions, local, flow)) < CUT_OFF
