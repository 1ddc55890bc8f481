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
    rows = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(3), 3000)).astype(dtype)
    flow = constructor(rows[0])
    ones = jnp.ones(3000, dtype)
    start = jax.jit(flow.init)(jax.random.key(0), rows[0])
    params = jax.jit(flow.fit)(jax.random.key(1), start, rows, ones, rows, ones)
    keys = jax.random.split(jax.random.key(2), 5000)
    draws, log_q = jax.jit(jax.vmap(flow.sample_and_log_prob, (0, None)))(keys, params)
    again = jax.jit(jax.vmap(flow.log_prob, (None, 0)))(params, draws)
    assert {leaf.dtype for leaf in (draws, log_q, again)} == {jnp.dtype(dtype)}
    error = np.abs(log_q - again)
    if dtype == jnp.float64:
        assert np.quantile(error, 0.99) < 1e-10 and error.max() < 1e-5
        z = jax.random.normal(jax.random.key(4), (50, rows.shape[1]))

        @jax.jit
        @jax.vmap
        def derivative(z):
            forward = partial(flow.bijection.forward, params)
            return forward(z)[1], jax.jacfwd(lambda z: forward(z)[0])(z)

        log_det, jacobian = derivative(z)
        assert np.allclose(log_det, np.linalg.slogdet(np.asarray(jacobian)).logabsdet, atol=1e-10)
    assert np.quantile(error, 0.99) < 1e-2
    assert (
        error.max() < 0.1
    )  # wherever a draw lies: cut off, the far ends of a funnel spend no more digits than there are


@pytest.mark.parametrize("constructor", [funnel_mixture, bent_mixture])
def test_a_constant_coordinate_and_few_states_are_usable(constructor):
    rows = jnp.concatenate([jnp.zeros((40, 1)), jax.random.normal(jax.random.key(0), (40, 2))], axis=1)
    flow = constructor(rows[0])
    start = jax.jit(flow.init)(jax.random.key(0), rows[0])

    @jax.jit
    def of_fit(weights):
        params = flow.fit(jax.random.key(1), start, rows, weights, rows, jnp.ones(40))
        return jax.vmap(flow.log_prob, (None, 0))(params, rows)

    for used in (3, 7, 40):
        assert np.isfinite(of_fit((np.arange(40) < used).astype(float))).all(), used
