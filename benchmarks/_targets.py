"""Targets with known truth: log density, starting positions, and functions whose exact expectations are known."""

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
    starts
        ``(rng_key, num_chains) -> (num_chains, dim)``.
    modes
        Draws (n, dim) -> mode index (n,), or None.
    weights
        Exact weight of each mode, or None.
    expectations
        Name -> (function of draws (..., dim), its exact expectation).
    start
        A wide normal that knows no mode.
    mean, variance
        Exact, of each coordinate, shape (dim,).
    judged
        Coordinates whose variance can be estimated (finite fourth moment in practice), a slice.
    """

    logdensity_fn: Callable
    starts: Callable
    modes: Callable | None
    weights: np.ndarray | None
    expectations: dict
    start: flowmcmc.Density
    mean: np.ndarray
    variance: np.ndarray
    judged: slice = slice(None)


def two_gaussians(dim: int) -> Target:
    """Weights 2:1, unit covariance, ten standard deviations apart along the diagonal; starts half and half."""
    shift = 5.0 / dim**0.5

    def logdensity(x):
        return jnp.logaddexp(
            jnp.log(2 / 3) - 0.5 * jnp.sum((x - shift) ** 2), jnp.log(1 / 3) - 0.5 * jnp.sum((x + shift) ** 2)
        )

    def starts(rng_key, num_chains):
        sign = jnp.where(jnp.arange(num_chains) % 2 == 0, 1.0, -1.0)[:, None]
        return shift * sign + jax.random.normal(rng_key, (num_chains, dim))

    mean = shift / 3
    return Target(
        logdensity,
        starts,
        lambda x: (x.sum(-1) < 0).astype(int),
        np.array([2, 1]) / 3,
        {"mean": (lambda x: x[..., 0], mean), "square": (lambda x: x[..., 0] ** 2, 1 + shift**2)},
        flowmcmc.normal(jnp.zeros(dim), scale=10.0),
        np.full(dim, mean),
        np.full(dim, 1 + shift**2 - mean**2),
    )


def eight_gaussians() -> Target:
    """Equal weights on the unit circle, standard deviation 0.15; starts from a unit normal that knows no mode."""
    angle = 2 * np.pi * np.arange(8) / 8
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)

    def logdensity(x):
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - jnp.asarray(centres, x.dtype)) ** 2, axis=1) / 0.15**2)

    return Target(
        logdensity,
        lambda rng_key, num_chains: jax.random.normal(rng_key, (num_chains, 2)),
        lambda x: np.argmin(((x[:, None] - centres) ** 2).sum(-1), axis=1),
        np.full(8, 1 / 8),
        {"mean": (lambda x: x[..., 0], 0.0), "square": (lambda x: x[..., 0] ** 2, 0.5 + 0.15**2)},
        flowmcmc.normal(jnp.zeros(2), scale=5.0),
        np.zeros(2),
        np.full(2, 0.5 + 0.15**2),
    )


def rings() -> Target:
    """Radius from an equal mixture of N(1..4, 0.15^2), uniform angle; starts from a normal of deviation 3."""

    def logdensity(x):
        radius = jnp.sqrt(jnp.sum(x**2) + 1e-12)
        return jax.nn.logsumexp(-0.5 * ((radius - jnp.arange(1, 5)) / 0.15) ** 2) - jnp.log(radius)

    square = (1 + 4 + 9 + 16) / 4 + 0.15**2
    return Target(
        logdensity,
        lambda rng_key, num_chains: 3 * jax.random.normal(rng_key, (num_chains, 2)),
        lambda x: np.clip(np.round(np.linalg.norm(x, axis=1)), 1, 4).astype(int) - 1,
        np.full(4, 1 / 4),
        {"mean": (lambda x: x[..., 0], 0.0), "square": (lambda x: x[..., 0] ** 2, square / 2)},
        flowmcmc.normal(jnp.zeros(2), scale=10.0),
        np.zeros(2),
        np.full(2, square / 2),
    )


def funnel(dim: int = 10) -> Target:
    """Neal's funnel, v ~ N(0, 9) and the rest N(0, exp(v)); starts from a unit normal."""

    def logdensity(x):
        return -(x[0] ** 2) / 18 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (dim - 1) * x[0]

    return Target(
        logdensity,
        lambda rng_key, num_chains: jax.random.normal(rng_key, (num_chains, dim)),
        None,
        None,
        {"v mean": (lambda x: x[..., 0], 0.0), "v square": (lambda x: x[..., 0] ** 2, 9.0)},
        flowmcmc.normal(jnp.zeros(dim), scale=10.0),
        np.zeros(dim),
        np.array([9.0] + (dim - 1) * [np.exp(4.5)]),
        judged=slice(0, 1),
    )


def banana(dim: int = 10) -> Target:
    """Haario's banana, x_1 ~ N(0, 100), x_2 + 0.03 x_1^2 - 3 ~ N(0, 1), the rest N(0, 1)."""

    def logdensity(x):
        bent = x[1] + 0.03 * x[0] ** 2 - 3
        return -(x[0] ** 2) / 200 - 0.5 * bent**2 - 0.5 * jnp.sum(x[2:] ** 2)

    second = 1 + 0.03**2 * 2 * 100**2
    return Target(
        logdensity,
        lambda rng_key, num_chains: 3 * jax.random.normal(rng_key, (num_chains, dim)),
        None,
        None,
        {"x1 square": (lambda x: x[..., 0] ** 2, 100.0), "x2 square": (lambda x: x[..., 1] ** 2, second)},
        flowmcmc.normal(jnp.zeros(dim), scale=20.0),
        np.zeros(dim),
        np.array([100.0, second] + (dim - 2) * [1.0]),
    )


def scales(dim: int = 13) -> Target:
    """A Gaussian with standard deviations 1e-6, 1e-5, ..., 1e6 and all correlations 0.5."""
    scale = np.logspace(-6, 6, dim)
    precision = np.linalg.inv(0.5 * np.eye(dim) + 0.5)

    def logdensity(x):
        z = x / jnp.asarray(scale, x.dtype)
        return -0.5 * z @ jnp.asarray(precision, x.dtype) @ z

    return Target(
        logdensity,
        lambda rng_key, num_chains: jnp.asarray(scale) * 2 * jax.random.normal(rng_key, (num_chains, dim)),
        None,
        None,
        {
            "smallest square": (lambda x: (x[..., 0] / scale[0]) ** 2, 1.0),
            "largest square": (lambda x: (x[..., -1] / scale[-1]) ** 2, 1.0),
            "product": (lambda x: x[..., 0] * x[..., -1] / scale[0] / scale[-1], 0.5),
        },
        flowmcmc.normal(jnp.zeros(dim), scale=10 * scale),
        np.zeros(dim),
        scale**2,
    )


TARGETS = {
    "two_gaussians_2": lambda: two_gaussians(2),
    "two_gaussians_16": lambda: two_gaussians(16),
    "two_gaussians_32": lambda: two_gaussians(32),
    "two_gaussians_64": lambda: two_gaussians(64),
    "eight_gaussians": eight_gaussians,
    "rings": rings,
    "funnel_10": funnel,
    "banana_10": banana,
    "scales_13": scales,
}
