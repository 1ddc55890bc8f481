"""Normalised densities to start from, or to tilt: log density and exact draws.

Anything with these two methods will do as well, say a NumPyro distribution over one position.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from flowmcmc.ground.arguments import as_arrays, describe_value

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
        If a scale is not positive, or an option not finite or of another shape.
    TypeError
        If `position` is not made of floating arrays.
    """
    vector, unravel = one_vector(position)
    loc, scale = spread("loc", loc, vector), spread("scale", scale, vector)
    if not (np.asarray(scale) > 0).all():
        raise ValueError(f"scale must be positive everywhere, got a smallest value of {np.min(scale)}.")
    constant = -np.sum(np.log(np.asarray(scale, float))) - 0.5 * vector.size * np.log(2 * np.pi)

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
        If `low` is not below `high`, or either is not finite or of another shape.
    TypeError
        If `position` is not made of floating arrays.
    """
    vector, unravel = one_vector(position)
    low, high = spread("low", low, vector), spread("high", high, vector)
    if not (np.asarray(low) < np.asarray(high)).all():
        raise ValueError("low must be below high in each coordinate: swap them, or widen the box.")
    inside = -np.sum(np.log(np.asarray(high, float) - np.asarray(low, float)))

    def log_prob(position):
        x = ravel_pytree(position)[0]
        return jnp.where(jnp.all((x >= low) & (x <= high)), inside.astype(x.dtype), -jnp.inf)

    def sample(rng_key):
        return unravel(low + (high - low) * jax.random.uniform(rng_key, vector.shape, vector.dtype))

    return Density(log_prob, sample)


def one_vector(position):
    """A position raveled, and the way back."""
    position = as_arrays(position, "position")
    vector, unravel = ravel_pytree(position)
    if vector.size == 0:
        raise ValueError("position is empty: pass one position, say jnp.zeros(3).")
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(position)):
        raise TypeError(f"position must be made of floating arrays, got dtype {vector.dtype}: convert it.")
    return vector, unravel


def spread(name: str, value, vector):
    """An option as an array, one number for each coordinate."""
    try:
        value = jnp.asarray(value, vector.dtype)
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a number, or an array with one for each coordinate; got {describe_value(value)}."
        ) from None
    if value.shape not in ((), (1,), vector.shape):
        raise ValueError(f"{name} has shape {value.shape}, but a position has {vector.size} coordinates.")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got {value}: no density is normalised there.")
    return jnp.broadcast_to(value, vector.shape)
