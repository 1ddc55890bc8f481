"""Local steps in coordinates of unit scale: a step size that depends on the place is found out."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from support import helpers
from support.helpers import TARGETS, flow_params, invariance_z
from support.helpers import small_flow as flow_for
from support.rounds import frozen

from flowmcmc.kernels.scaled import pooled_scale


def test_a_step_size_that_depends_on_the_place_is_found_out():
    def uneven(logdensity_fn, step_size):
        plain = blackjax.mala(logdensity_fn, step_size)

        def step(rng_key, state):
            share = jnp.where(jnp.sin(3 * jax.flatten_util.ravel_pytree(state.position)[0][0]) > 0, 1.0, 0.02)
            return blackjax.mala(logdensity_fn, share * step_size).step(rng_key, state)

        return plain._replace(step=step)

    target = TARGETS["mixture"]
    before = target.draws(33)
    make = partial(frozen, target, flow_for("mixture"), local=uneven, num_flow_steps=0)
    after = helpers.push_ensemble(make, 12)(jax.random.key(34), flow_params("mixture")["trained"], before)
    z = invariance_z(target.functions, before, after)
    assert np.abs(z).max() > 2 * helpers.THRESHOLD, z


def test_scales_are_powers_of_two_near_the_deviation():
    rows = jnp.array([1e-6, 1.0, 1e6]) * jax.random.normal(jax.random.key(0), (1000, 3))
    scale = np.asarray(pooled_scale(rows, jnp.ones(1000)))
    assert (np.log2(scale) == np.round(np.log2(scale))).all()
    np.testing.assert_allclose(np.log2(scale / [1e-6, 1.0, 1e6]), 0.0, atol=0.6)
    assert pooled_scale(jnp.full((5, 1), 3.0), jnp.ones(5)) == 1.0
