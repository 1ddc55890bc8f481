"""Production: rounds of a random few local steps and a dynamic number of proposals keep the law, and count."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.counted import Counted
from support.helpers import NUM_DRAWS, Target, gaussian_flow, invariance_z, is_exact, share_moved

import flowmcmc
from flowmcmc import Tuning, freeze, imh, isir
from flowmcmc.adaptation import frozen, rounds
from flowmcmc.adaptation.frozen import production, with_tuning
from flowmcmc.adaptation.rounds import check_steps
from flowmcmc.choosing.price import moves_of

# two chains tell much about each other: what is taken from both would show here, not in an ensemble of thousands
PAIR = Target(
    lambda x: -0.5 * x**2, jax.random.normal, lambda x: jnp.array([x, x**2, jnp.abs(x), jnp.abs(x) > 1.5, x > 0])
)
TUNING = Tuning((), jnp.array(0.8), jnp.array(1.0))


def steps_of(local=blackjax.mala, flow_kernel=imh):
    return check_steps(local, gaussian_flow(0.5, 1.5), 2, 5, flow_kernel)


def pushed(moves, flow_kernel=imh, seed=61):
    """Exact draws in ensembles of two, before and after six rounds."""
    before = PAIR.draws(seed).reshape(-1, 2)
    kernel = production(PAIR.logdensity, steps_of(flow_kernel=flow_kernel), TUNING, moves)

    def one(key, positions):
        values = jax.vmap(PAIR.logdensity)(positions)
        state = frozen.ProductionState(positions, values, TUNING, moves, frozen.AT_TARGET)
        keys = jax.random.split(key, 6)
        return jax.lax.scan(lambda state, key: (kernel.step(key, state)[0], None), state, keys)[0].position

    after = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed + 1), len(before)), before)
    return before.reshape(NUM_DRAWS), after.reshape(NUM_DRAWS)


@pytest.mark.parametrize(
    ("moves", "flow_kernel"),
    [
        (moves_of(0.3, 2), imh),
        (moves_of(0.0, 1), imh),
        (moves_of(1.0, 3), imh),
        (moves_of(0.3, 2), partial(isir, num_proposals=3)),
    ],
)
def test_exact_draws_keep_their_law(moves, flow_kernel):
    before, after = pushed(moves, flow_kernel)
    assert is_exact(z := invariance_z(PAIR.functions, before, after)), z
    assert share_moved(before, after) > 0.9


def test_a_log_density_from_before_the_local_steps_is_found_out(monkeypatch):
    """What is handed on must be the density of where the chain is now."""
    whole = rounds.local_steps

    def stale(rng_key, position, tuning, logdensity_fn, steps):
        moved, _, local = whole(rng_key, position, tuning, logdensity_fn, steps)
        return moved, logdensity_fn(position), local

    monkeypatch.setattr(rounds, "local_steps", stale)
    z = invariance_z(PAIR.functions, *pushed(moves_of(0.5, 1)))
    assert np.abs(z).max() > 9, z


def test_a_choice_of_local_steps_by_where_chains_are_is_found_out(monkeypatch):
    """Local steps out in the tails and none in the middle are not a mixture of kernels that keep the law."""
    whole = rounds.local_steps

    def choosy(rng_key, position, tuning, logdensity_fn, steps):
        moved, logdensity, local = whole(rng_key, position, tuning, logdensity_fn, steps)
        is_out = jnp.abs(position) > 1
        return jnp.where(is_out, moved, position), jnp.where(is_out, logdensity, logdensity_fn(position)), local

    monkeypatch.setattr(rounds, "local_steps", choosy)
    z = invariance_z(PAIR.functions, *pushed(moves_of(1.0, 1)))
    assert np.abs(z).max() > 9, z


@pytest.mark.parametrize("flow_kernel", [imh, partial(isir, num_proposals=3)])
@pytest.mark.parametrize("local", [blackjax.mala, partial(blackjax.hmc, num_integration_steps=4)])
def test_evaluations_are_counted_as_they_are_made(local, flow_kernel):
    counted = Counted(PAIR.logdensity)
    kernel = production(counted, steps_of(local, flow_kernel), TUNING, moves_of(0.5, 2))
    state = kernel.init(jnp.zeros(4))
    state, trace = flowmcmc.run(0, kernel, flowmcmc.running.run.RunState(0, state), 1, progress_bar=False)
    before = counted.total()
    _, trace = flowmcmc.run(0, kernel, state, 20, progress_bar=False)
    told = trace.info.num_local_evaluations.sum() + trace.info.num_flow_evaluations.sum()
    has_local = ~np.isnan(trace.info.local_acceptance_rate)
    assert 0 < has_local[:, 0].sum() < 20 and (has_local == has_local[:, :1]).all()
    assert counted.total() - before == told


def test_other_moves_and_another_tuning_take_the_same_program():
    kernel = production(PAIR.logdensity, steps_of(), TUNING, moves_of(0.5, 2))
    other = with_tuning(kernel, TUNING._replace(step_size=jnp.array(0.1)), moves_of(0.0, 4))
    assert other.step is kernel.step
    _, trace = flowmcmc.run(0, other, jnp.zeros(4), 10, progress_bar=False)
    assert np.isnan(trace.info.local_acceptance_rate).all() and (trace.info.num_flow_evaluations == 4).all()


def test_log_densities_are_those_of_the_positions():
    kernel = production(PAIR.logdensity, steps_of(), TUNING, moves_of(0.5, 1))
    state, trace = flowmcmc.run(0, kernel, jnp.zeros(4), 30, progress_bar=False)
    assert np.allclose(trace.info.logdensity, -0.5 * trace.position**2, rtol=1e-12)
    assert np.array_equal(state.sampler.logdensity, trace.info.logdensity[-1])


def test_freeze_holds_nothing_that_depends_on_the_target():
    kernel = freeze(PAIR.logdensity, blackjax.mala, None, TUNING, num_flow_steps=0)
    assert kernel.init(jnp.zeros(2))._fields == ("position", "tuning")
