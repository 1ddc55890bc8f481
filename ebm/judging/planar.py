r"""2-d models on a grid of cells: log Z and mode weights, exact to its resolution.

    log Z = log sum_i exp(log rho(x_i) - E(x_i)) + log(area of a cell)

It needs no sampler, so it judges all that do.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ebm.model import Model, check_model
from flowmcmc.ground.checks import check_scalar

__all__ = ["Grid", "checked_labels", "grid", "grid_mode_weights", "log_densities"]

DENSITY_BATCH = 10_000  # positions at once, to bound memory
STRIPS_PER_SIDE = 20  # the strip checked for mass around the box has 1 / STRIPS_PER_SIDE of its width
MAX_LOST_MASS = 1e-3  # largest share of the mass that may lie in the strip


class Grid(NamedTuple):
    """Centres of cells `points` (n, 2), normalised log densities `log_prob` (n,) there, and `log_z` in nats."""

    points: np.ndarray
    log_prob: np.ndarray
    log_z: float


def grid(model: Model, theta: Any, *, low, high, num: int = 400) -> Grid:
    """The model on num x num cells of a box, for positions that are arrays (2,).

    Parameters
    ----------
    model, theta
        An energy with its tilt, and parameters.
    low, high
        Corners of the box: numbers, or one for each coordinate.
    num
        Cells along each side.

    Returns
    -------
    Grid
        ``points`` (num^2, 2), centres of the cells inside the box; ``log_prob`` (num^2,), normalised on the box, and
        ``log_z``, in nats.

    Raises
    ------
    ValueError
        If the box is empty, leaves out mass (seen in a strip around it, a twentieth of its width), or the density is
        NaN, +inf or zero on all of it.
    """
    low, high = np.broadcast_to(np.asarray(low, float), (2,)), np.broadcast_to(np.asarray(high, float), (2,))
    if not (low < high).all():
        raise ValueError(f"low must be below high in both coordinates, got {low} and {high}.")
    if num < 2:
        raise ValueError(f"num must be at least 2, got {num}.")
    check_model(model)
    check_scalar("the model's log density", lambda x: model.logdensity(theta, x), jnp.zeros(2))
    strip = max(1, num // STRIPS_PER_SIDE)
    width = (high - low) / num
    steps = np.arange(-strip, num + strip) + 0.5
    axes = [low[k] + width[k] * steps for k in range(2)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = np.asarray(log_densities(model, theta, jnp.asarray(points.reshape(-1, 2))), float).reshape(
        points.shape[:2]
    )
    is_inside = np.zeros(values.shape, bool)
    is_inside[strip:-strip, strip:-strip] = True
    if invalid := int((np.isnan(values) | (values == np.inf)).sum()):
        raise ValueError(f"the log density is NaN or +inf at {invalid} points in or beside the box: mend theta.")
    if not np.isfinite(values[is_inside]).any():
        raise ValueError(f"the density is zero at every point between low = {low} and high = {high}: move the box.")
    log_mass = np.logaddexp.reduce(values[is_inside])
    outside = np.exp(np.logaddexp.reduce(values[~is_inside]) - np.logaddexp.reduce(values, axis=None))
    if outside > MAX_LOST_MASS:
        raise ValueError(
            f"a share of {outside:.2g} of the mass lies just outside low = {low}, high = {high}: widen the box."
        )
    log_z = log_mass + np.log(width).sum()
    return Grid(points[is_inside], values[is_inside] - log_z, float(log_z))


@partial(jax.jit, static_argnums=0)
def log_densities(model, theta, positions):
    """Unnormalised log densities (n,) at positions (n, ...)."""
    return jax.lax.map(partial(model.logdensity, theta), positions, batch_size=DENSITY_BATCH)


def grid_mode_weights(grid: Grid, labels: Callable) -> np.ndarray:
    """Mass of each mode, (modes,).

    Parameters
    ----------
    grid
        Of `grid`.
    labels
        From points (n, 2) to integers (n,) from 0.

    Returns
    -------
    numpy.ndarray
        Shape (modes,) with one more mode than the largest label; fractions that sum to one.

    Raises
    ------
    ValueError
        If `labels` does not return one integer, at least 0, for each point.
    """
    mass = np.exp(grid.log_prob - np.logaddexp.reduce(grid.log_prob))
    return np.bincount(checked_labels(labels, grid.points, len(mass)), weights=mass)


def checked_labels(labels: Callable, positions, num: int) -> np.ndarray:
    """Labels of the positions, after checking that they are `num` integers from 0."""
    found = np.asarray(labels(positions))
    if found.shape != (num,) or not np.issubdtype(found.dtype, np.integer) or found.min() < 0:
        raise ValueError(
            f"labels must map {num} positions to {num} integers from 0; it returned shape {found.shape} of dtype "
            f"{found.dtype}{f' with a smallest of {found.min()}' if found.size else ''}."
        )
    return found
