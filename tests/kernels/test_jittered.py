"""Steps of a random size, and in the metric of a mixture, keep the law; a metric that depends on the place does not."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import helpers
from support.helpers import TARGETS, flow_params, invariance_z, is_exact, share_moved
from support.helpers import small_flow as flow_for
from support.rounds import frozen, small_isir, tuning

from flowmcmc import gaussian_mixture, jittered
from flowmcmc.kernels.jittered import within_modes


def test_the_local_part_alone_and_isir_as_flow_kernel():
    target = TARGETS["mixture"]
    before = target.draws(33)
    for options in (
        {"num_flow_steps": 0},
        {"local": partial(blackjax.hmc, num_integration_steps=3), "flow_kernel": small_isir},
        {"local": jittered(partial(blackjax.hmc, num_integration_steps=3)), "num_flow_steps": 0},
        {"local": jittered(blackjax.mala, lowest=0.1), "num_flow_steps": 0},
    ):
        make = partial(frozen, target, flow_for("mixture"), **options)
        after = helpers.push_ensemble(make, 2)(jax.random.key(34), flow_params("mixture")["trained"], before)
        z = invariance_z(target.functions, before, after)
        assert is_exact(z), (options, z)
        assert share_moved(before, after) > 0.3


def bent_mixture(target):
    """A flow and parameters whose covariances are far from round."""
    flow = gaussian_mixture(target.position, num_components=2)
    params = flow.init(jax.random.key(0), target.position)
    dim = params.affine.loc.size
    lower = jnp.tril(jax.random.normal(jax.random.key(1), (2, dim, dim)), -1)
    roots = lower + jnp.diag(jnp.linspace(0.3, 1.5, dim))
    return flow, params._replace(
        affine=params.affine._replace(scale=jnp.linspace(1.0, 2.0, dim), cholesky=roots[0]),
        mixture=params.mixture._replace(cholesky=roots, log_weights=jnp.log(jnp.array([0.3, 0.7]))),
    )


def test_the_metric_of_a_mixture_keeps_the_law_and_one_that_depends_on_the_place_is_found_out():
    target = TARGETS["mixture"]
    before = target.draws(33)
    flow, params = bent_mixture(target)
    hmc = partial(blackjax.hmc, num_integration_steps=3)

    def uneven(logdensity_fn, step_size, scale, params):
        def step(rng_key, state):
            is_even = jnp.sin(3 * jax.flatten_util.ravel_pytree(state.position)[0][0]) > 0
            size = jnp.where(is_even, 0.3, 0.06)
            bent = params._replace(affine=params.affine._replace(scale=size * params.affine.scale))
            return within_modes(hmc, flow)(logdensity_fn, step_size, scale=scale, params=bent).step(rng_key, state)

        return within_modes(hmc, flow)(logdensity_fn, step_size, scale=scale, params=params)._replace(step=step)

    def z_of(local, num_steps):
        make = partial(frozen, target, flow, local=local, num_flow_steps=0)
        after = helpers.push_ensemble(make, num_steps)(jax.random.key(34), params, before)
        assert share_moved(before, after) > 0.1
        return invariance_z(target.functions, before, after)

    assert is_exact(z := z_of(within_modes(hmc, flow), 2)), z
    assert is_exact(z := z_of(within_modes(jittered(hmc), flow), 2)), z
    assert not is_exact(z_of(uneven, 60))


def test_the_metric_is_the_covariance_within_components():
    target = TARGETS["mixture"]
    flow, params = bent_mixture(target)
    flow_alone = gaussian_mixture(target.position, num_components=2, defensive=0.0)
    known = []

    def recorder(logdensity_fn, step_size, inverse_mass_matrix):
        known.append(inverse_mass_matrix)
        return blackjax.hmc(logdensity_fn, step_size, inverse_mass_matrix, 3)

    scale = tuning(target, params).scale
    within_modes(recorder, flow)(target.logdensity, 0.1, scale=scale, params=params)
    draws = []
    for log_weights in (jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])):
        alone = params._replace(mixture=params.mixture._replace(log_weights=log_weights))
        keys = jax.random.split(jax.random.key(2), 40_000)
        x, _ = jax.vmap(flow_alone.sample_and_log_prob, (0, None))(keys, alone)
        x = jax.vmap(lambda x: jax.flatten_util.ravel_pytree(x)[0])(jax.tree.map(jnp.divide, x, scale))
        draws.append(np.cov(np.asarray(x).T))
    expected = 0.3 * draws[0] + 0.7 * draws[1]
    size = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((known[0] - expected) / size).max() < 0.03  # 40,000 draws: standard error 0.007


def test_jittered_checks_its_range():
    with pytest.raises(ValueError, match="lowest must lie between 0 and 1"):
        jittered(blackjax.mala, lowest=1.5)
