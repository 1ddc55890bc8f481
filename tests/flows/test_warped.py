"""Mixtures in fitted coordinates: the map has its Jacobian, and few states are enough for it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.curved import neck, valley

from flowmcmc import bent_mixture, funnel_mixture


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(
    "constructor, draw", [(funnel_mixture, neck), (bent_mixture, valley), (bent_mixture, partial(valley, width=1e-2))]
)
def test_the_map_has_its_jacobian_and_its_two_passes_agree(constructor, draw, dtype):
    rows = jax.vmap(draw)(jax.random.split(jax.random.key(3), 3000)).astype(dtype)
    flow = constructor(rows[0])
    ones = jnp.ones(3000, dtype)
    params = jax.jit(flow.fit)(jax.random.key(1), flow.init(jax.random.key(0), rows[0]), rows, ones, rows, ones)
    draws, log_q = jax.vmap(flow.sample_and_log_prob, (0, None))(jax.random.split(jax.random.key(2), 5000), params)
    again = jax.vmap(flow.log_prob, (None, 0))(params, draws)
    assert {leaf.dtype for leaf in (draws, log_q, again)} == {jnp.dtype(dtype)}
    error = np.abs(log_q - again)
    if dtype == jnp.float64:
        assert np.quantile(error, 0.99) < 1e-10 and error.max() < 1e-5
        z = jax.random.normal(jax.random.key(4), (50, rows.shape[1]))
        exact = jax.vmap(lambda z: jnp.linalg.slogdet(jax.jacfwd(lambda z: flow.bijection.forward(params, z)[0])(z)))(z)
        assert np.allclose(jax.vmap(flow.bijection.forward, (None, 0))(params, z)[1], exact.logabsdet, atol=1e-10)
    assert np.quantile(error, 0.99) < 1e-2
    assert (
        error.max() < 0.1
    )  # wherever a draw lies: cut off, the far ends of a funnel spend no more digits than there are


@pytest.mark.parametrize("constructor", [funnel_mixture, bent_mixture])
def test_a_constant_coordinate_and_few_states_are_usable(constructor):
    rows = jnp.concatenate([jnp.zeros((40, 1)), jax.random.normal(jax.random.key(0), (40, 2))], axis=1)
    flow = constructor(rows[0])
    for used in (3, 7, 40):
        weights = (jnp.arange(40) < used).astype(float)
        params = jax.jit(flow.fit)(
            jax.random.key(1), flow.init(jax.random.key(0), rows[0]), rows, weights, rows, jnp.ones(40)
        )
        assert np.isfinite(jax.vmap(flow.log_prob, (None, 0))(params, rows)).all(), used
