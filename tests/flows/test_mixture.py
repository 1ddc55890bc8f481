"""The base density: its log density and its draws, with components of weight zero and a heavy-tailed part."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from flowmcmc.flows import mixture as base

ROOTS = jnp.array([[[1.0, 0.0], [0.5, 2.0]], [[0.3, 0.0], [0.0, 0.4]], [[1.0, 0.0], [0.0, 1.0]]])
MEANS = jnp.array([[-2.0, 0.0], [3.0, 1.0], [50.0, 50.0]])
SHARES = np.array([0.3, 0.7])
MIXTURE = base.from_cholesky(jnp.log(jnp.array([0.3, 0.7, 0.0])), MEANS, ROOTS)  # the last is not in use


def by_hand(z, defensive):
    covariances = ROOTS @ jnp.swapaxes(ROOTS, 1, 2)
    normal = sum(share * stats.multivariate_normal(m, c).pdf(z) for share, m, c in zip(SHARES, MEANS, covariances))
    return np.log((1 - defensive) * normal + defensive * stats.multivariate_t(np.zeros(2), 4 * np.eye(2), 3).pdf(z))


def test_its_density_is_that_of_scipy():
    z = np.random.default_rng(0).normal(size=(50, 2)) * 3
    for defensive in (0.0, 0.2):
        found = jax.vmap(lambda z: base.log_prob(MIXTURE, z, defensive))(z)  # noqa: B023
        np.testing.assert_allclose(found, by_hand(z, defensive), rtol=1e-9)


def test_its_draws_are_exact_and_never_of_a_component_without_weight():
    draws = jax.jit(jax.vmap(lambda key: base.sample(key, MIXTURE, 0.0)))(jax.random.split(jax.random.key(0), 20_000))
    first = np.asarray(draws[:, 0])
    assert first.max() < 10
    expected = lambda x: 0.3 * stats.norm(-2, 1).cdf(x) + 0.7 * stats.norm(3, 0.3).cdf(x)
    assert stats.kstest(first, expected).pvalue > 1e-4


def test_the_standard_one_is_a_normal():
    z = jnp.array([0.3, -1.0, 2.0])
    found = base.log_prob(base.standard_mixture(4, 3, z.dtype), z, 0.0)
    np.testing.assert_allclose(found, stats.norm.logpdf(z).sum(), rtol=1e-12)
