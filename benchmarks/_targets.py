"""Targets with known truth: log density, a wide start, modes and their weights, mean and variance."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import flowmcmc


class Target(NamedTuple):
    """A density and what is known of it.

    Attributes
    ----------
    logdensity_fn
        Of one position, shape (dim,).
    start
        A wide normal that knows no mode.
    mean, variance
        Exact, of each coordinate, shape (dim,).
    modes
        Draws (n, dim) -> mode index (n,), or None.
    weights
        Exact weight of each mode, or None.
    judged
        Coordinates whose variance can be estimated (finite fourth moment in practice), a slice.
    """

    logdensity_fn: Callable
    start: flowmcmc.Density
    mean: np.ndarray
    variance: np.ndarray
    modes: Callable | None = None
    weights: np.ndarray | None = None
    judged: slice = slice(None)


def wide(dim: int, scale) -> flowmcmc.Density:
    """Independent normals about zero."""
    return flowmcmc.normal(jnp.zeros(dim), scale=scale)


def two_gaussians(dim: int) -> Target:
    """Weights 2:1, unit covariance, ten standard deviations apart along the diagonal."""
    shift = 5.0 / dim**0.5

    def logdensity(x):
        return jnp.logaddexp(
            jnp.log(2 / 3) - 0.5 * jnp.sum((x - shift) ** 2), jnp.log(1 / 3) - 0.5 * jnp.sum((x + shift) ** 2)
        )

    mean = shift / 3
    variance = np.full(dim, 1 + shift**2 - mean**2)
    modes = lambda x: (x.sum(-1) < 0).astype(int)
    return Target(logdensity, wide(dim, 10.0), np.full(dim, mean), variance, modes, np.array([2, 1]) / 3)


def eight_gaussians() -> Target:
    """Equal weights on the unit circle, standard deviation 0.15."""
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def logdensity(x):
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - jnp.asarray(centres, x.dtype)) ** 2, axis=1) / 0.15**2)

    modes = lambda x: np.argmin(((x[:, None] - centres) ** 2).sum(-1), axis=1)
    return Target(logdensity, wide(2, 5.0), np.zeros(2), np.full(2, 0.5 + 0.15**2), modes, np.full(8, 1 / 8))


def rings() -> Target:
    """Radius from an equal mixture of N(1..4, 0.15^2), uniform angle."""

    def logdensity(x):
        radius = jnp.sqrt(jnp.sum(x**2) + 1e-12)
        return jax.nn.logsumexp(-0.5 * ((radius - jnp.arange(1, 5)) / 0.15) ** 2) - jnp.log(radius)

    square = (1 + 4 + 9 + 16) / 4 + 0.15**2
    modes = lambda x: np.clip(np.round(np.linalg.norm(x, axis=1)), 1, 4).astype(int) - 1
    return Target(logdensity, wide(2, 10.0), np.zeros(2), np.full(2, square / 2), modes, np.full(4, 1 / 4))


def funnel(dim: int = 10) -> Target:
    """Neal's funnel, v ~ N(0, 9) and the rest N(0, exp(v)); the variance of v is judged."""

    def logdensity(x):
        return -(x[0] ** 2) / 18 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (dim - 1) * x[0]

    variance = np.array([9.0] + (dim - 1) * [np.exp(4.5)])
    return Target(logdensity, wide(dim, 10.0), np.zeros(dim), variance, judged=slice(0, 1))


def banana(dim: int = 10) -> Target:
    """Haario's banana, x_1 ~ N(0, 100), x_2 + 0.03 x_1^2 - 3 ~ N(0, 1), the rest N(0, 1)."""

    def logdensity(x):
        bent = x[1] + 0.03 * x[0] ** 2 - 3
        return -(x[0] ** 2) / 200 - 0.5 * bent**2 - 0.5 * jnp.sum(x[2:] ** 2)

    variance = np.array([100.0, 1 + 0.03**2 * 2 * 100**2] + (dim - 2) * [1.0])
    return Target(logdensity, wide(dim, 20.0), np.zeros(dim), variance)


def rosenbrock(dim: int = 10) -> Target:
    """Pairs of u ~ N(1, 10) and v ~ N(u^2, 0.1): Rosenbrock's valley, d / 2 times."""

    def logdensity(x):
        u, v = x[::2], x[1::2]
        return jnp.sum(-((u - 1) ** 2) / 20 - 5 * (v - u**2) ** 2)

    mean, variance = np.array([1.0, 11.0]), np.array([10.0, 0.1 + 4 * 10 + 2 * 10**2])
    return Target(logdensity, wide(dim, 20.0), np.tile(mean, dim // 2), np.tile(variance, dim // 2))


def laplace(dim: int = 20) -> Target:
    """Independent coordinates with density exp(-|x|) / 2: one mode, with a kink and tails heavier than a normal's."""
    return Target(lambda x: -jnp.sum(jnp.abs(x)), wide(dim, 10.0), np.zeros(dim), np.full(dim, 2.0))


def scales(dim: int = 13) -> Target:
    """A Gaussian with standard deviations 1e-6, 1e-5, ..., 1e6 and all correlations 0.5."""
    scale = np.logspace(-6, 6, dim)
    precision = np.linalg.inv(0.5 * np.eye(dim) + 0.5)

    def logdensity(x):
        z = x / jnp.asarray(scale, x.dtype)
        return -0.5 * z @ jnp.asarray(precision, x.dtype) @ z

    return Target(logdensity, wide(dim, 10 * scale), np.zeros(dim), scale**2)
