"""The search from a density: the law of the particles, log Z, and `sample` from there."""

from types import SimpleNamespace

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.counted import Counted
from support.helpers import NUM_DRAWS, THRESHOLD, Target, gaussian_flow, invariance_z, is_exact
from support.targets import far_modes

import flowmcmc
from flowmcmc import Tuning, imh
from flowmcmc.adaptation import frozen
from flowmcmc.adaptation.frozen import ProductionState, production
from flowmcmc.adaptation.rounds import check_steps
from flowmcmc.choosing import temper as module
from flowmcmc.choosing.price import moves_of
from flowmcmc.choosing.temper import (
    correlation,
    temper,
)

START = flowmcmc.normal(jnp.zeros(2), scale=8.0)
QUIET = {"progress_bar": False, "num_particles": 400, "num_local_steps": 5}


def test_correlation_is_one_where_it_cannot_be_told():
    rng = np.random.default_rng(1)
    before, new = rng.standard_normal((2, 5000))
    assert correlation(before, 0.6 * before + 0.8 * new) == pytest.approx(0.6, abs=0.03)
    assert correlation(before, np.full(5000, 2.0)) == 1


def deviation(beta):
    """Of N(0, 1)^beta N(0, 4^2)^(1 - beta), the target without its constant."""
    return (beta + (1 - beta) / 16) ** -0.5


# --- moves below one -----------------------------------------------------------------------------------------------

COLD = Target(
    lambda x: -0.5 * x**2,
    lambda key: deviation(0.25) * jax.random.normal(key),
    lambda x: jnp.array([x, x**2, jnp.abs(x), jnp.abs(x) > 2]),
)
WIDE = lambda x: -0.5 * (x / 4) ** 2 - 1.0
TUNING = Tuning((), jnp.array(0.8), jnp.array(1.0))


def pushed(beta):
    steps = check_steps(blackjax.mala, gaussian_flow(0.5, 2.5), 1, 5, imh)
    kernel = production(COLD.logdensity, steps, TUNING, moves_of(0.5, 2), WIDE)
    before = COLD.draws(3)
    value = beta * COLD.logdensity(before) + (1 - beta) * WIDE(before)
    state = ProductionState(before, value, TUNING, moves_of(0.5, 2), jnp.float32(beta))
    for index in range(4):
        state, _ = jax.jit(kernel.step)(jax.random.key(index), state)
    return before.reshape(NUM_DRAWS), state.position


def test_rounds_keep_the_law_at_their_inverse_temperature():
    assert is_exact(z := invariance_z(COLD.functions, *pushed(0.25))), z


@pytest.mark.parametrize("fault", ["another temperature", "no start"])
def test_rounds_at_another_density_are_found_out(monkeypatch, fault):
    if fault == "no start":
        monkeypatch.setattr(frozen, "tempered", lambda density, start, beta, x: beta * density(x))
    z = invariance_z(COLD.functions, *pushed(0.25 if fault == "no start" else 0.5))
    assert np.abs(z).max() > 9, z


def test_at_the_target_the_start_is_not_looked_at():
    """It may be zero there, and its gradient no number."""
    start = lambda x: jnp.log(-jnp.abs(x))
    at = jax.value_and_grad(lambda x: frozen.tempered(COLD.logdensity, start, jnp.float32(1.0), x))
    assert at(2.0) == (-2.0, -2.0)


# --- the search ----------------------------------------------------------------------------------------------------


def found(seed, logdensity=far_modes, **options):
    """What a small search leaves, as `sample` makes it: positions of all particles and log Z."""
    options = {
        "num_chains": 20,
        "num_particles": 300,
        "num_warmup": 5,
        "num_samples": 4,
    } | options
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "temper", lambda *arguments: seen.append(temper(*arguments)) or seen[-1])
        flowmcmc.sample(seed, logdensity, START, flow=flow, progress_bar=False, **options)
    (one,) = seen
    return SimpleNamespace(log_z=one.log_z, particles=np.concatenate([one.positions, one.particles]))


def z_scores(number, logdensity=far_modes):
    """Of the weight of the left mode, E[x_2], E[x_2^2] and Z, over independent searches."""
    rows = []
    for seed in range(number):
        one = found(seed, logdensity)
        x = one.particles
        rows.append([np.mean(x[:, 0] < 0), x[:, 1].mean(), (x[:, 1] ** 2).mean(), np.exp(one.log_z)])
    truth = np.array([0.3, 0.7, 0.3 * 0.25 + 0.7 * 2.0, 5.0])
    return (np.mean(rows, axis=0) - truth) / (np.std(rows, axis=0, ddof=1) / np.sqrt(number))


def test_particles_and_log_z_have_the_right_law():
    z = z_scores(30)
    assert np.abs(z).max() < THRESHOLD, z


def test_a_search_that_does_not_weigh_is_found_out(monkeypatch):
    """All particles alike, whatever temperature they are of."""
    monkeypatch.setattr(module, "resample", lambda rng, values, number: rng.integers(len(values), size=number))
    assert np.abs(z_scores(15)).max() > 9


def test_evaluations_are_counted(monkeypatch):
    counted, totals = Counted(far_modes), []

    def watched(real):
        return lambda *arguments: totals.append(counted.total()) or real(*arguments)

    for name in ("first_wave", "split"):
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    options = {"num_chains": 20, "num_particles": 300, "num_warmup": 5, "num_samples": 4, "progress_bar": False}
    told = flowmcmc.sample(0, counted, START, flow=flow, **options).evaluations["search"]
    assert told == totals[-1] - totals[0] > 1000


def test_a_flow_that_particles_promise_to_be_better_takes_over():
    """Twelve wells: 4096 modes, which no mixture of vectors can list."""
    seen = []
    real = module.make_machine
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "make_machine", lambda plan, candidate: seen.append(candidate.name) or real(plan, candidate)
        )
        wide = flowmcmc.normal(jnp.zeros(12), scale=3.0)
        options = {"num_chains": 50, "num_particles": 1000, "num_warmup": 20, "num_samples": 20, "progress_bar": False}
        flowmcmc.sample(0, lambda x: jnp.sum(-(x**4) + 6 * x**2 + x / 2), wide, **options)
    assert seen == ["mixture", "marginals"]


def test_a_start_that_is_too_far_is_told(monkeypatch):
    monkeypatch.setattr(module, "MAX_STAGES", 3)
    with pytest.raises(ValueError, match=r"after 3 stages the tempering is still at .* of 1: start is too far"):
        found(0, lambda x: -0.5 * jnp.sum((x - 3.0) ** 2) * 1e6)
