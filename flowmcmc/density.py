"""Normalised densities to start from, or to tilt: log density and exact draws.

Anything with these two methods will do as well, say a NumPyro distribution over one position.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

__all__ = ["Density", "normal", "uniform"]


class Density(NamedTuple):
    """A normalised density: ``log_prob(position) -> scalar`` and ``sample(rng_key) -> position``."""

    log_prob: Callable
    sample: Callable


def normal(position, *, loc=0.0, scale=1.0) -> Density:
    """Independent normals over positions of one shape.

    Parameters
    ----------
    position
        Any pytree of floating arrays; gives the shape and dtype.
    loc, scale
        Mean and standard deviation; they broadcast to the raveled length of `position`.

    Raises
    ------
    ValueError
        If a scale is not positive.
    """
    vector, unravel = ravel_pytree(position)
    loc = jnp.broadcast_to(jnp.asarray(loc, vector.dtype), vector.shape)
    scale = jnp.broadcast_to(jnp.asarray(scale, vector.dtype), vector.shape)
    if not bool(jnp.all(scale > 0)):
        raise ValueError(f"scale must be positive everywhere, got a smallest value of {jnp.min(scale)}.")
    constant = -jnp.sum(jnp.log(scale)) - 0.5 * vector.size * jnp.log(2 * jnp.pi)

    def log_prob(position):
        z = (ravel_pytree(position)[0] - loc) / scale
        return constant.astype(z.dtype) - 0.5 * jnp.sum(z**2)

    return Density(log_prob, lambda key: unravel(loc + scale * jax.random.normal(key, vector.shape, vector.dtype)))


def uniform(position, *, low, high) -> Density:
    """The box [low, high] in each coordinate; outside the log density is -inf, where adjusted kernels never go.

    Parameters
    ----------
    position
        Any pytree of floating arrays; gives the shape and dtype.
    low, high
        Ends of the box; they broadcast to the raveled length of `position`.

    Raises
    ------
    ValueError
        If `low` is not below `high`.
    """
    vector, unravel = ravel_pytree(position)
    low = jnp.broadcast_to(jnp.asarray(low, vector.dtype), vector.shape)
    high = jnp.broadcast_to(jnp.asarray(high, vector.dtype), vector.shape)
    if not bool(jnp.all(low < high)):
        raise ValueError("low must be below high in each coordinate: swap them, or widen the box.")
    inside = -jnp.sum(jnp.log(high - low))

    def log_prob(position):
        x = ravel_pytree(position)[0]
        return jnp.where(jnp.all((x >= low) & (x <= high)), inside, -jnp.inf)

    def sample(rng_key):
        return unravel(low + (high - low) * jax.random.uniform(rng_key, vector.shape, vector.dtype))

    return Density(log_prob, sample)
