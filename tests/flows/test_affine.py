"""The affine map: mean and covariance of rows, there and back, and a constant coordinate."""

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.flows.affine import cholesky_by_qr, from_position, standardise, to_position, whiten
from flowmcmc.flows.mixture import from_cholesky, log_prob

ROWS = jax.random.normal(jax.random.key(0), (4000, 3)) @ jnp.array([[2.0, 0, 0], [1.0, 0.1, 0], [0, 0, 50.0]]) + 7.0


def test_rows_are_standardised_by_their_weighted_moments():
    weights = jnp.arange(4000.0) % 3
    affine, points = standardise(ROWS, weights)
    np.testing.assert_allclose(affine.loc, np.average(ROWS, axis=0, weights=weights), rtol=1e-10)
    np.testing.assert_allclose(points * affine.scale + affine.loc, ROWS, rtol=1e-10)
    root = affine.scale[:, None] * affine.cholesky
    np.testing.assert_allclose(root @ root.T, np.cov(ROWS.T, aweights=weights, ddof=0), rtol=0.02, atol=0.05)


def test_a_constant_coordinate_keeps_its_unit():
    affine, points = standardise(ROWS.at[:, 1].set(3.0), jnp.ones(4000))
    assert affine.scale[1] == 1 and np.abs(points[:, 1]).max() < 1e-12 and np.isfinite(affine.cholesky).all()


def test_there_and_back_with_the_jacobian():
    affine, _ = standardise(ROWS, jnp.ones(4000))
    y = jnp.array([0.3, -1.0, 2.0])
    x, log_det = to_position(affine, y)
    back, log_det_back = from_position(affine, x)
    np.testing.assert_allclose(back, y, rtol=1e-10)
    jacobian = jax.jacfwd(lambda y: to_position(affine, y)[0])(y)
    np.testing.assert_allclose([log_det, -log_det_back], np.linalg.slogdet(jacobian)[1], rtol=1e-10)


def test_the_factor_is_a_root_of_the_squares():
    weighted = ROWS[:50] / 7
    lower = cholesky_by_qr(weighted, 0.0)
    np.testing.assert_allclose(lower @ lower.T, weighted.T @ weighted, rtol=1e-8)
    assert not np.triu(lower, 1).any()


def test_a_whitened_mixture_is_the_same_density_in_other_coordinates():
    cholesky = jnp.array([[2.0, 0.0], [1.0, 0.5]])
    roots = jnp.array([[[1.0, 0.0], [0.5, 2.0]], [[0.3, 0.0], [0.0, 0.4]]])
    mixture = from_cholesky(jnp.log(jnp.array([0.3, 0.7])), jnp.array([[1.0, -1.0], [3.0, 0.0]]), roots)
    y = jnp.array([0.2, -0.7])
    expected = log_prob(mixture, cholesky @ y, 0.0) + jnp.sum(jnp.log(jnp.diagonal(cholesky)))
    np.testing.assert_allclose(log_prob(whiten(mixture, cholesky), y, 0.0), expected, rtol=1e-10)
