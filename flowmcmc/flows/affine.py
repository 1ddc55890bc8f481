"""Standardisation of chain states before a flow is fitted to them, and the affine map back to positions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flowmcmc.base import Array
from flowmcmc.flows.em import fit_mixture
from flowmcmc.flows.mixture import Mixture, from_cholesky
from flowmcmc.ground.trees import is_nonconstant

__all__ = [
    "Affine",
    "cholesky_by_qr",
    "covariance_cholesky",
    "fit_base",
    "from_position",
    "identity_affine",
    "standardise",
    "to_position",
    "whiten",
]


class Affine(NamedTuple):
    """x = loc + scale * (cholesky @ y); shapes (d,), (d,), (d, d), the last lower triangular."""

    loc: Array
    scale: Array
    cholesky: Array


def identity_affine(dim: int, dtype) -> Affine:
    """The identity map, with which a flow starts before its first fit."""
    return Affine(jnp.zeros(dim, dtype), jnp.ones(dim, dtype), jnp.eye(dim, dtype=dtype))


def to_position(affine: Affine, y: Array) -> tuple[Array, Array]:
    """Map y to x; return x and log|det dx/dy|."""
    return affine.loc + affine.scale * (affine.cholesky @ y), log_det_affine(affine.scale, affine.cholesky)


def from_position(affine: Affine, x: Array) -> tuple[Array, Array]:
    """Map x to y; return y and log|det dy/dx|."""
    y = solve_triangular(affine.cholesky, (x - affine.loc) / affine.scale, lower=True)
    return y, -log_det_affine(affine.scale, affine.cholesky)


def log_det_affine(scale: Array, cholesky: Array) -> Array:
    """log|det dx/dy| of the affine map."""
    return jnp.sum(jnp.log(scale)) + jnp.sum(jnp.log(jnp.diagonal(cholesky)))


def standardise(rows: Array, weights: Array) -> tuple[Affine, Array]:
    """Affine map with the weighted mean and covariance of `rows`, and the standardised rows (x - loc) / scale."""
    share = (weights / jnp.sum(weights))[:, None]
    loc = jnp.sum(share * rows, axis=0)
    deviation = jnp.sqrt(jnp.sum(share * (rows - loc[None]) ** 2, axis=0))
    is_constant = ~is_nonconstant(deviation, loc)
    scale = jnp.where(is_constant, 1.0, deviation)
    points = (rows - loc[None]) / scale[None]
    correlation = (share * points).T @ points
    correlation = correlation + jnp.diag(is_constant.astype(rows.dtype))
    return Affine(loc, scale, covariance_cholesky(correlation, jnp.sum(weights))), points


def covariance_cholesky(covariance: Array, count: Array) -> Array:
    """Cholesky factor of a covariance shrunk to its diagonal, by a share that vanishes as `count` states outgrow d."""
    dim = covariance.shape[0]
    variances = jnp.diagonal(covariance)
    pull = jnp.minimum(1.0, (dim / (dim + count)) ** 2).astype(covariance.dtype)
    ridge = 1e-5 if covariance.dtype == jnp.float32 else 1e-9
    floor = jnp.finfo(covariance.dtype).eps ** 2
    diagonal = jnp.diag(pull * variances + ridge * variances + floor)
    return jnp.linalg.cholesky((1 - pull) * covariance + diagonal)


def cholesky_by_qr(weighted: Array, ridge: float) -> Array:
    """Lower triangular L with L L^T = W^T W + D^2, for weighted rows W (n, d) and D = `ridge` times each column's norm.

    W^T W is never formed: its condition number is the square of W's, and in a neck all but one direction are tiny.
    """
    small = jnp.diag(ridge * jnp.sqrt(jnp.sum(weighted**2, axis=0)) + 1e-12)
    return jnp.linalg.qr(jnp.concatenate([weighted, small]), mode="r").T


def fit_base(
    rng_key: Array,
    affine_map: Affine,
    points: Array,
    weights: Array,
    heldout: Array,
    heldout_weights: Array,
    mixture: Mixture,
    earlier: Mixture,
) -> Mixture:
    """Fit the base mixture to `points`; these and `affine_map` come from `standardise`.

    The `heldout` rows are not standardised yet. Of the `earlier` mixture only the number of components in use is read.
    """
    heldout_points = (heldout - affine_map.loc[None]) / affine_map.scale[None]
    one = mixture.cholesky.at[0].set(affine_map.cholesky)
    start = from_cholesky(mixture.log_weights, mixture.means, one)
    in_use = jnp.sum(jnp.isfinite(earlier.log_weights))
    return fit_mixture(rng_key, points, weights, heldout_points, heldout_weights, start, in_use)


def whiten(mixture: Mixture, cholesky: Array) -> Mixture:
    """Express a mixture over x in coordinates y, where x = cholesky @ y."""

    def solve(right):
        return solve_triangular(cholesky, right, lower=True)

    return from_cholesky(mixture.log_weights, jax.vmap(solve)(mixture.means), jax.vmap(solve)(mixture.cholesky))
