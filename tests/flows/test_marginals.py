"""A mixture for each coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from flowmcmc import (
    marginal_mixtures,
)


def wells(key):
    """Three independent pairs of wells: 0.3 at -2, 0.7 at +2, each N(., 0.3^2)."""
    key_side, key_normal = jax.random.split(key)
    side = jnp.where(jax.random.bernoulli(key_side, 0.7, (3,)), 2.0, -2.0)
    return side + 0.3 * jax.random.normal(key_normal, (3,))


def fit_of(flow, rows):
    train, heldout = rows[:3000], rows[3000:]
    start = flow.init(jax.random.key(0), rows[0])
    return jax.jit(flow.fit)(jax.random.key(1), start, train, jnp.ones(len(train)), heldout, jnp.ones(len(heldout)))


def test_marginals_list_the_wells_and_leave_independent_coordinates_alone():
    rows = jax.vmap(wells)(jax.random.split(jax.random.key(3), 4000))
    flow = marginal_mixtures(rows[0])
    params = fit_of(flow, rows)
    assert np.array_equal(params.affine.cholesky, np.eye(3))
    fresh = jax.vmap(wells)(jax.random.split(jax.random.key(4), 4000))
    truth = np.logaddexp(
        np.log(0.3) + stats.norm(-2, 0.3).logpdf(fresh), np.log(0.7) + stats.norm(2, 0.3).logpdf(fresh)
    )
    divergence = truth.sum(1).mean() - float(jnp.mean(jax.vmap(flow.log_prob, (None, 0))(params, fresh)))
    assert 0 < divergence - -np.log(0.95) < 0.03  # nats, beside the defensive part
    # a correlated pair is another matter
    mixed = rows @ jnp.array([[1.0, 0.9, 0.0], [0.0, 0.2, 0.0], [0.0, 0.0, 1.0]])
    assert abs(fit_of(flow, mixed).affine.cholesky[1, 0]) > 0.8


def test_marginals_of_a_constant_coordinate_and_of_few_states_are_usable():
    rows = jnp.concatenate([jnp.zeros((40, 1)), jax.random.normal(jax.random.key(0), (40, 1))], axis=1)
    flow = marginal_mixtures(rows[0])
    params = jax.jit(flow.fit)(jax.random.key(1), None, rows, (jnp.arange(40) < 7).astype(float), rows, jnp.ones(40))
    assert np.isfinite(jax.vmap(flow.log_prob, (None, 0))(params, rows)).all()
