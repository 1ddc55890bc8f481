r"""A Gaussian mixture pushed along fitted parabolas: the proposal for curved ridges.

    x = loc + scale * y,   y_j = (m + L z)_j + sum_k (a_jk y_k + b_jk y_k^2),   k over the drivers before j,   z ~ base

Correlations of each coordinate with the squares of the others decide which coordinates are drivers, and in which order.
A regression on the drivers and their squares gives a and b, the mean and covariance of its residuals m and L. The base,
a mixture fitted by EM, corrects what a parabola does not describe.
Triangular maps as proposals: Parno, Marzouk (arXiv 1412.5492). Bananas: Haario, Saksman, Tamminen (1999).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows.affine import Affine, cholesky_by_qr
from flowmcmc.flows.warped import Warp, warped_mixture

__all__ = ["Bend", "bent_mixture"]

MAX_DRIVERS = 16
MAX_BEND_ROWS = 4096  # rows that the fit uses
DRIVER_SIGNIFICANCE = 25.0  # over rows: share of a coordinate's variance that a driver's square must explain
PARABOLA_END = 30.0  # standard deviations beyond which a parabola is continued as a constant
BEND_RIDGE = 1e-3  # of the regressions, relative to each standard deviation


class Bend(NamedTuple):
    """`drivers` (K,), indices, each before those that it bends; their effects `linear` a and `quadratic` b, (d, K);
    `shift` m, (d,); `cholesky` L and its `inverse`, (d, d)."""

    drivers: Array
    linear: Array
    quadratic: Array
    shift: Array
    cholesky: Array
    inverse: Array

    @property
    def driver(self) -> Array:
        """Index of the first driver, which no other driver bends."""
        return self.drivers[0]


def bent_mixture(position: PyTree, *, num_components: int = 4, defensive: float = 0.05) -> Flow:
    """A Gaussian mixture bent along parabolas: bananas, Rosenbrock's valleys, posteriors with curved ridges.

    Triangular maps as proposals: Parno and Marzouk (arXiv 1412.5492). Banana densities: Haario, Saksman and Tamminen
    (1999).

    Parameters
    ----------
    position
        One position (any pytree of floating arrays, no chain axis): gives shapes and dtype.
    num_components, defensive
        As in `gaussian_mixture`.

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `WarpedParams`, set by ``flow.fit`` alone; log densities are
        in nats. It has a `bijection`, so `neutra` can use it.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.

    Example
    -------
    >>> flow = bent_mixture(jnp.zeros(10))
    >>> result = sample(0, logdensity, wide, flow=flow, local=neutra(blackjax.mala, flow))
    """
    return warped_mixture(position, Warp(identity_bend, bend, straighten, fit_bend), num_components, defensive)


def identity_bend(dim: int, dtype) -> Bend:
    """The bend that maps z to itself."""
    num_drivers, eye = min(MAX_DRIVERS, dim), jnp.eye(dim, dtype=dtype)
    none = jnp.zeros((dim, num_drivers), dtype)
    return Bend(jnp.arange(num_drivers), none, none, jnp.zeros(dim, dtype), eye, eye)


def bend(warp: Bend, z: Array) -> tuple[Array, Array]:
    """Map z to y; return y and log|det dy/dz|."""

    def add(y, driver_and_effects):
        driver, linear, quadratic = driver_and_effects
        return y + linear * y[driver] + quadratic * clipped_square(y[driver]), None

    effects = warp.drivers, warp.linear.T, warp.quadratic.T
    y, _ = jax.lax.scan(add, warp.shift + warp.cholesky @ z, effects, unroll=True)
    return y, jnp.sum(jnp.log(jnp.diagonal(warp.cholesky)))


def straighten(warp: Bend, y: Array) -> tuple[Array, Array]:
    """Map y to z; return z and log|det dz/dy|."""
    c = y[warp.drivers]
    straight = y - warp.linear @ c - warp.quadratic @ clipped_square(c)
    return warp.inverse @ (straight - warp.shift), -jnp.sum(jnp.log(jnp.diagonal(warp.cholesky)))


def clipped_square(y: Array) -> Array:
    """y^2, constant beyond PARABOLA_END: otherwise repeated squares of heavy tails swamp what they are added to."""
    return jnp.clip(y, -PARABOLA_END, PARABOLA_END) ** 2


def fit_bend(points: Array, weights: Array, heldout: Array, heldout_weights: Array, affine: Affine) -> Bend:
    """Regress each coordinate on the drivers before it and on their squares, by weighted least squares."""
    count, dim = points.shape
    in_use = jnp.sum(weights > 0)
    num_rows = min(MAX_BEND_ROWS, count)
    chosen = jnp.arange(num_rows) * in_use // num_rows  # rows with a positive weight come first
    rows, share = points[chosen], (weights[chosen] / jnp.sum(weights[chosen]))[:, None]

    # entry (i, j): variance of coordinate i explained by the square of coordinate j, with its linear part removed
    squares = rows**2 - jnp.sum(share * rows**2, axis=0) - jnp.sum(share * rows**3, axis=0) * rows
    squares = squares / jnp.sqrt(jnp.sum(share * squares**2, axis=0) + 1e-6)
    explained = (rows.T @ (share * squares)) ** 2
    is_clear = (explained > DRIVER_SIGNIFICANCE / jnp.minimum(in_use, num_rows)) & ~jnp.eye(dim, dtype=bool)
    explained = jnp.where(is_clear, explained, 0.0)
    effect, lead = jnp.sum(explained, axis=0), jnp.sum(explained, axis=0) - jnp.sum(explained, axis=1)
    drivers = jax.lax.top_k(effect, min(MAX_DRIVERS, dim))[1]
    drivers = drivers[jnp.argsort(-lead[drivers])]
    is_driver = jnp.zeros(dim, bool).at[drivers].set(effect[drivers] > 0)
    rank = jnp.zeros(dim, int).at[drivers].set(jnp.arange(len(drivers)))
    num_before = jnp.where(is_driver, rank, len(drivers))

    # one QR of all columns turns each coordinate's regression on the leading columns into a triangular system
    candidates = jnp.where(is_driver[drivers], rows[:, drivers], 0.0)
    features = jnp.stack([candidates, clipped_square(candidates)], axis=2).reshape(num_rows, -1)
    columns = jnp.concatenate([jnp.ones_like(share), features, rows], axis=1)
    num_features = 1 + features.shape[1]
    ridge = BEND_RIDGE * jnp.eye(columns.shape[1], dtype=rows.dtype)
    factor = jnp.linalg.qr(jnp.concatenate([jnp.sqrt(share) * columns, ridge]), mode="r")
    is_before = jnp.arange(num_features)[:, None] < (1 + 2 * num_before)[None]
    right = jnp.where(is_before, factor[:num_features, num_features:], 0.0)
    found = solve_triangular(factor[:num_features, :num_features], right, lower=False)
    linear, quadratic = found[1::2].T, found[2::2].T

    straight = rows - candidates @ linear.T - clipped_square(candidates) @ quadratic.T
    shift = jnp.sum(share * straight, axis=0)
    factor = cholesky_by_qr(jnp.sqrt(share) * (straight - shift), BEND_RIDGE)
    cholesky = factor * jnp.sign(jnp.diagonal(factor))[None]
    inverse = solve_triangular(cholesky, jnp.eye(dim, dtype=rows.dtype), lower=True)
    return Bend(drivers, linear, quadratic, shift, cholesky, inverse)
