"""Known densities of the experiments: exact draws, normalised log densities, and the mode of a point.

A, B, C (8 Gaussians, Rings) and D of arXiv 2306.00684; D' is D with weights .1 .2 .3 .4.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Target", "eight_gaussians", "four_modes", "growing_dimension", "rings", "two_modes"]


class Target(NamedTuple):
    """``sample(rng_key, num) -> (num, d)``, normalised ``logdensity(x)``, ``labels(points) -> (n,)``, weights."""

    dim: int
    sample: Callable
    logdensity: Callable
    labels: Callable
    weights: np.ndarray


def isotropic_mixture(means, variances, weights) -> Target:
    """Isotropic Gaussians; a point belongs to the nearest mean."""
    means, variances, weights = (np.asarray(v, float) for v in (means, variances, weights))
    dim = means.shape[1]

    def sample(rng_key, num):
        key_mode, key_noise = jax.random.split(rng_key)
        k = jax.random.categorical(key_mode, jnp.log(weights), shape=(num,))
        noise = jax.random.normal(key_noise, (num, dim))
        return jnp.asarray(means, noise.dtype)[k] + jnp.sqrt(jnp.asarray(variances, noise.dtype))[k, None] * noise

    def logdensity(x):
        squared = jnp.sum((x - means) ** 2, axis=1)
        joint = jnp.log(weights) - 0.5 * squared / variances - 0.5 * dim * jnp.log(2 * jnp.pi * variances)
        return jax.nn.logsumexp(joint).astype(x.dtype)

    def labels(points):
        return jnp.argmin(jnp.stack([jnp.sum((points - mean) ** 2, axis=1) for mean in means]), axis=0)

    return Target(dim, sample, logdensity, labels, weights)


def two_modes() -> Target:
    """A: weights 1/3 and 2/3, of different width; mode 1 is the top right one."""
    return isotropic_mixture([[-1.5, -1.5], [1.5, 1.5]], [0.05, 0.1], [1 / 3, 2 / 3])


def four_modes() -> Target:
    """B: four modes in a row with unequal weights."""
    return isotropic_mixture([[-3, 0], [-1, 0], [1, 0], [3, 0]], 4 * [0.05], [0.1, 0.2, 0.3, 0.4])


def eight_gaussians() -> Target:
    """C: eight Gaussians on the unit circle, sd 0.15."""
    angle = 2 * np.pi * np.arange(8) / 8
    return isotropic_mixture(np.stack([np.cos(angle), np.sin(angle)], axis=1), 8 * [0.15**2], 8 * [1 / 8])


def rings() -> Target:
    """C: four rings of radii 1 to 4, sd 0.15 across."""
    radii = np.arange(1.0, 5.0)

    def sample(rng_key, num):
        key_ring, key_radius, key_angle = jax.random.split(rng_key, 3)
        ring = jax.random.randint(key_ring, (num,), 1, 5)
        radius = ring + 0.15 * jax.random.normal(key_radius, (num,))
        angle = jax.random.uniform(key_angle, (num,), maxval=2 * jnp.pi)
        return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    def logdensity(x):
        r = jnp.sqrt(jnp.sum(x**2) + 1e-20)
        joint = -0.5 * ((r - radii) / 0.15) ** 2 - jnp.log(4 * 0.15 * jnp.sqrt(2 * jnp.pi))
        return (jax.nn.logsumexp(joint) - jnp.log(2 * jnp.pi * r)).astype(x.dtype)

    def labels(points):
        return jnp.clip(jnp.round(jnp.linalg.norm(points, axis=1)), 1, 4).astype(int) - 1

    return Target(2, sample, logdensity, labels, np.full(4, 0.25))


def growing_dimension(dim: int, *, separation: float, weights=(0.25, 0.25, 0.25, 0.25)) -> Target:
    """D: four unit Gaussians at `separation` times (1..1), (-1..-1, 1..1) and their negatives."""
    ones = np.ones(dim)
    halves = np.where(np.arange(dim) < dim // 2, -1.0, 1.0)
    return isotropic_mixture(separation * np.stack([ones, halves, -halves, -ones]), 4 * [1.0], weights)
