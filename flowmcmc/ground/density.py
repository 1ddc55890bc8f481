"""Normalised densities to start from, or to tilt: log density and exact draws.

Anything with these two methods will do as well, say a NumPyro distribution over one position.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from flowmcmc.ground.arguments import describe_value
from flowmcmc.ground.conversions import as_arrays
from flowmcmc.ground.trees import Layout, layout_of, raveled

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

    Returns
    -------
    Density
        ``log_prob(position)``, a scalar in nats, constants included; and ``sample(rng_key)``, one position with the
        shapes and dtype of `position`.

    Raises
    ------
    ValueError
        If a scale is not positive, or an option not finite or of another shape.
    TypeError
        If `position` is not made of floating arrays.
    """
    layout = check_position(position)
    loc, scale = spread("loc", loc, layout), spread("scale", scale, layout)
    if not (scale > 0).all():
        raise ValueError(f"scale must be positive everywhere, got a smallest value of {np.min(scale)}.")
    return build_normal(layout, loc.tobytes(), scale.tobytes())


@lru_cache(maxsize=64)
def build_normal(layout: Layout, loc_bytes: bytes, scale_bytes: bytes) -> Density:
    """The same density for equal numbers, so that what is compiled for it is found again."""
    dim, dtype, unravel = raveled(layout)
    loc, scale = (np.frombuffer(numbers, dtype) for numbers in (loc_bytes, scale_bytes))
    constant = -np.sum(np.log(np.asarray(scale, float))) - 0.5 * dim * np.log(2 * np.pi)

    def log_prob(position):
        z = (ravel_pytree(position)[0] - loc) / scale
        return constant.astype(z.dtype) - 0.5 * jnp.sum(z**2)

    return Density(log_prob, lambda key: unravel(loc + scale * jax.random.normal(key, (dim,), dtype)))


def uniform(position, *, low, high) -> Density:
    """The box [low, high] in each coordinate; outside the log density is -inf, where adjusted kernels never go.

    Parameters
    ----------
    position
        Any pytree of floating arrays; gives the shape and dtype.
    low, high
        Ends of the box; they broadcast to the raveled length of `position`.

    Returns
    -------
    Density
        ``log_prob(position)``, a scalar in nats, constants included; and ``sample(rng_key)``, one position with the
        shapes and dtype of `position`.

    Raises
    ------
    ValueError
        If `low` is not below `high`, or either is not finite or of another shape.
    TypeError
        If `position` is not made of floating arrays.
    """
    layout = check_position(position)
    low, high = spread("low", low, layout), spread("high", high, layout)
    if not (low < high).all():
        raise ValueError("low must be below high in each coordinate: swap them, or widen the box.")
    return build_uniform(layout, low.tobytes(), high.tobytes())


@lru_cache(maxsize=64)
def build_uniform(layout: Layout, low_bytes: bytes, high_bytes: bytes) -> Density:
    """The same density for equal numbers, so that what is compiled for it is found again."""
    dim, dtype, unravel = raveled(layout)
    low, high = (np.frombuffer(numbers, dtype) for numbers in (low_bytes, high_bytes))
    inside = -np.sum(np.log(np.asarray(high, float) - np.asarray(low, float)))

    def log_prob(position):
        x = ravel_pytree(position)[0]
        return jnp.where(jnp.all((x >= low) & (x <= high)), inside.astype(x.dtype), -jnp.inf)

    def sample(rng_key):
        return unravel(low + (high - low) * jax.random.uniform(rng_key, (dim,), dtype))

    return Density(log_prob, sample)


def check_position(position) -> Layout:
    """Layout of a position made of floating arrays; raise unless it is."""
    position = as_arrays(position, "position")
    if sum(leaf.size for leaf in jax.tree.leaves(position)) == 0:
        raise ValueError("position is empty: pass one position, say jnp.zeros(3).")
    for leaf in jax.tree.leaves(position):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(f"position must be made of floating arrays, got dtype {leaf.dtype}: convert it.")
    return layout_of(position)


def spread(name: str, value, layout: Layout) -> np.ndarray:
    """An option as an array, one number for each coordinate."""
    dim, dtype, _ = raveled(layout)
    try:
        value = np.asarray(jnp.asarray(value, dtype))
    except (TypeError, ValueError):
        raise TypeError(
            f"{name} must be a number, or an array with one for each coordinate; got {describe_value(value)}."
        ) from None
    if value.shape not in ((), (1,), (dim,)):
        raise ValueError(f"{name} has shape {value.shape}, but a position has {dim} coordinates.")
    if not np.isfinite(value).all():
        raise ValueError(f"{name} must be finite, got {value}: no density is normalised there.")
    return np.ascontiguousarray(np.broadcast_to(value, (dim,)))
