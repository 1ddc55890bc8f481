r"""A Gaussian mixture in coordinates that a fitted map has made round: what `funnel_mixture`, `bent_mixture` share.

    x = loc + scale * W(z),   z ~ base

The map W is fitted in closed form to states in units of their deviations; the base, a mixture fitted by EM in the new
coordinates, mends what the map gets wrong.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, Bijection, Flow, PyTree
from flowmcmc.flows import mixture as base
from flowmcmc.flows.affine import fit_base, flatten, standardise
from flowmcmc.flows.layered import check_options
from flowmcmc.flows.mixture import Mixture, from_cholesky
from flowmcmc.ground.arguments import as_arrays

__all__ = ["Warp", "WarpedParams", "warped_mixture"]


class Warp(NamedTuple):
    """A family of maps; their parameters have a `driver`, the index of the coordinate that sets how others lie.

    Attributes
    ----------
    identity
        ``(dim, dtype) -> warp``.
    forward, inverse
        ``(warp, z) -> (y, log|det dy/dz|)`` and ``(warp, y) -> (z, log|det dz/dy|)``, shapes (d,).
    fit
        ``(points, weights, heldout, heldout_weights, affine) -> warp``, rows (n, d) in units of `affine.scale` about
        `affine.loc`.
    """

    identity: Callable[[int, Any], Any]
    forward: Callable[[Any, Array], tuple[Array, Array]]
    inverse: Callable[[Any, Array], tuple[Array, Array]]
    fit: Callable[..., Any]


class WarpedParams(NamedTuple):
    """All set by ``flow.fit``; there are no `layers`, nothing for gradients. `loc` and `scale` are (d,)."""

    loc: Array
    scale: Array
    warp: Any
    mixture: Mixture
    layers: None = None


def warped_mixture(position: PyTree, warp: Warp, num_components: int, defensive: float) -> Flow:
    """The flow of one family of maps; see `funnel_mixture` for the options and what is raised."""
    position = as_arrays(position, "position")
    vector, unravel = ravel_pytree(position)
    check_options(position, vector, 1, 1, num_components, defensive)
    dim, dtype = vector.size, vector.dtype

    def init(rng_key, position):
        zero, one = jnp.zeros(dim, dtype), jnp.ones(dim, dtype)
        return WarpedParams(zero, one, warp.identity(dim, dtype), base.standard(num_components, dim, dtype))

    def forward(params, z):
        y, log_det = warp.forward(params.warp, z)
        return unravel(params.loc + params.scale * y), log_det + jnp.sum(jnp.log(params.scale))

    def inverse(params, position):
        z, log_det = warp.inverse(params.warp, (ravel_pytree(position)[0] - params.loc) / params.scale)
        return z, log_det - jnp.sum(jnp.log(params.scale))

    def sample_and_log_prob(rng_key, params):
        z = sample_base(rng_key, params, defensive)
        position, log_det = forward(params, z)
        return position, log_base(params, z, defensive) - log_det

    def log_prob(params, position):
        z, log_det = inverse(params, position)
        return log_base(params, z, defensive) + log_det

    def fit(rng_key, params, positions, weights, heldout, heldout_weights):
        affine, points = standardise(flatten(positions), weights)
        heldout_points = (flatten(heldout) - affine.loc[None]) / affine.scale[None]
        fitted = warp.fit(points, weights, heldout_points, heldout_weights, affine)
        latent, heldout_latent = (
            jax.vmap(warp.inverse, (None, 0))(fitted, rows)[0] for rows in (points, heldout_points)
        )
        # what is left of mean and scale goes into the mixture
        rest, latent = standardise(latent, weights)
        mixture = base.standard(num_components, dim, dtype)
        found = fit_base(rng_key, rest, latent, weights, heldout_latent, heldout_weights, mixture, params.mixture)
        means, cholesky = rest.loc + rest.scale * found.means, rest.scale[:, None] * found.cholesky
        mixture = from_cholesky(found.log_weights, means, cholesky)
        return WarpedParams(affine.loc, affine.scale, fitted, mixture)

    return Flow(init, sample_and_log_prob, log_prob, fit, Bijection(forward, inverse))


def sample_base(rng_key: Array, params: WarpedParams, defensive: float) -> Array:
    """One exact draw of z."""
    dim, dtype = params.loc.shape[0], params.loc.dtype
    normal, extra, (u_component, u_defensive) = base.noise(rng_key, dim, 2, dtype)
    z = base.component_draw(params.mixture, normal, u_component)
    student = base.student_draw(normal, extra)
    along = jnp.where(jnp.arange(dim) == params.warp.driver, student, normal)
    return jnp.where(u_defensive < defensive / 2, student, jnp.where(u_defensive < defensive, along, z))


def log_base(params: WarpedParams, z: Array, defensive: float) -> Array:
    """Its log density: half of the defensive part has heavy tails along the driver alone, where the ridge goes on."""
    inside = base.log_prob(params.mixture, z, 0.0)
    if defensive == 0.0:
        return inside
    is_driver = jnp.arange(z.shape[0]) == params.warp.driver
    normal = -0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi).astype(z.dtype)
    along = jnp.sum(jnp.where(is_driver, jax.vmap(base.student_log_prob)(z[:, None]), normal))
    parts = jnp.stack([inside, base.student_log_prob(z), along])
    shares = jnp.array([1 - defensive, defensive / 2, defensive / 2], z.dtype)
    return jax.nn.logsumexp(parts + jnp.log(shares))
