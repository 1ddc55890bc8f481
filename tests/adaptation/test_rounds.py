"""Rounds with everything learned held fixed: few chains keep their law, and what is counted."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.helpers import NUM_DRAWS, Target, gaussian_flow, invariance_z, is_exact, share_moved
from support.rounds import HALF_NORMAL, WALL_FLOW, halved

from flowmcmc import Tuning, freeze, jittered
from flowmcmc.kernels.scaled import pooled_scale

# two chains tell much about each other: what is taken from both would show here, not in an ensemble of thousands
PAIR = Target(
    lambda x: -0.5 * x**2, jax.random.normal, lambda x: jnp.array([x, x**2, jnp.abs(x), jnp.abs(x) > 1.5, x > 0])
)
LOCALS = {"mala": blackjax.mala, "jittered hmc": jittered(partial(blackjax.hmc, num_integration_steps=3))}


def pushed(local, num_flow_steps, tuning_of):
    """Exact draws in ensembles of two before and after five rounds; `tuning_of` is asked before each round."""
    before = PAIR.draws(61).reshape(-1, 2)
    tuning = Tuning((), jnp.array(0.8), jnp.array(1.0))
    options = {"num_local_steps": 2, "num_flow_steps": num_flow_steps}
    kernel = freeze(PAIR.logdensity, local, gaussian_flow(0.5, 1.5), tuning, **options)

    def one(key, positions):
        def round(state, key):
            return kernel.step(key, state._replace(tuning=tuning_of(state)))[0], None

        return jax.lax.scan(round, kernel.init(positions), jax.random.split(key, 5))[0].position

    after = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(62), len(before)), before)
    return before.reshape(NUM_DRAWS), after.reshape(NUM_DRAWS)


@pytest.mark.parametrize("num_flow_steps", [0, 1])
@pytest.mark.parametrize("local", LOCALS)
def test_two_chains_with_local_steps_keep_their_law(local, num_flow_steps):
    before, after = pushed(LOCALS[local], num_flow_steps, lambda state: state.tuning)
    assert is_exact(z := invariance_z(PAIR.functions, before, after)), z
    assert share_moved(before, after) > 0.9


def test_a_scale_taken_from_the_present_chains_is_found_out():
    def tuning_of(state):
        return state.tuning._replace(scale=pooled_scale(state.position, jnp.ones(2)))

    z = invariance_z(PAIR.functions, *pushed(blackjax.mala, 0, tuning_of))
    assert np.abs(z).max() > 9, z


@pytest.mark.parametrize(("value", "is_counted"), [(jnp.nan, True), (jnp.inf, True), (-jnp.inf, False)])
def test_rounds_count_invalid_flow_proposals(value, is_counted):
    kernel = freeze(
        halved(value),
        blackjax.mala,
        WALL_FLOW,
        Tuning((), jnp.array(0.5), jnp.array(1.0)),
        num_local_steps=0,
        num_flow_steps=4,
    )
    _, info = kernel.step(jax.random.key(0), kernel.init(HALF_NORMAL.draws(43, 1000)))
    counts = np.asarray(info.num_flow_invalid)
    # P(proposal < 0) = Phi(-0.3 / 1.2) = 0.4013
    assert counts.mean() == pytest.approx(4 * 0.4013 if is_counted else 0, abs=0.15)
    assert ((info.num_flow_accepted >= 0) & (info.num_flow_accepted <= 4 - counts)).all()
