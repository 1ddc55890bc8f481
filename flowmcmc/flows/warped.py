r"""A Gaussian mixture pushed forward by a fitted map: the common part of `funnel_mixture` and `bent_mixture`.

    x = loc + scale * W(z),   z ~ base

The map W is fitted in closed form to standardised states. The base, a mixture fitted by EM in the coordinates z,
corrects what the map gets wrong.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows import mixture as base
from flowmcmc.flows.affine import fit_base, standardise
from flowmcmc.flows.layered import count_components, drop_unused_components
from flowmcmc.flows.mixture import Mixture, from_cholesky
from flowmcmc.flows.pushforward import Base, Transport, check_options, pushforward
from flowmcmc.ground.trees import Layout, raveled

__all__ = ["Warp", "WarpedParams", "warped_mixture"]


class Warp(NamedTuple):
    """A family of maps; their parameters have a `driver`, the index of a coordinate that others depend on.

    Attributes
    ----------
    identity
        ``(dim, dtype) -> warp``, the parameters of the identity map.
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
    """Parameters of a warped mixture, all set by ``flow.fit``; gradients train none. `loc` and `scale` are (d,)."""

    loc: Array
    scale: Array
    warp: Any
    mixture: Mixture


def warped_mixture(position: PyTree, warp: Warp, num_components: int, defensive: float) -> Flow:
    """Build the flow of one family of maps; `funnel_mixture` documents the options and errors."""
    layout = check_options(position, defensive, {"num_components": num_components})
    return build_warped(layout, warp, num_components, float(defensive))


@lru_cache(maxsize=64)
def build_warped(layout: Layout, warp: Warp, num_components: int, defensive: float) -> Flow:
    """Build the flow; equal arguments give the same object, so that programs compiled for it are found again."""
    dim, dtype, _ = raveled(layout)

    def init(rng_key):
        zero, one = jnp.zeros(dim, dtype), jnp.ones(dim, dtype)
        return WarpedParams(zero, one, warp.identity(dim, dtype), base.standard_mixture(num_components, dim, dtype))

    def forward(params, z):
        y, log_det = warp.forward(params.warp, z)
        return params.loc + params.scale * y, log_det + jnp.sum(jnp.log(params.scale))

    def inverse(params, x):
        z, log_det = warp.inverse(params.warp, (x - params.loc) / params.scale)
        return z, log_det - jnp.sum(jnp.log(params.scale))

    def fit(rng_key, params, rows, weights, heldout, heldout_weights):
        affine, points = standardise(rows, weights)
        heldout_points = (heldout - affine.loc[None]) / affine.scale[None]
        fitted = warp.fit(points, weights, heldout_points, heldout_weights, affine)
        latent, heldout_latent = (
            jax.vmap(warp.inverse, (None, 0))(fitted, rows)[0] for rows in (points, heldout_points)
        )
        # the mean and scale that the map leaves over become part of the mixture
        rest, latent = standardise(latent, weights)
        mixture = base.standard_mixture(num_components, dim, dtype)
        found = fit_base(rng_key, rest, latent, weights, heldout_latent, heldout_weights, mixture, params.mixture)
        means, cholesky = rest.loc + rest.scale * found.means, rest.scale[:, None] * found.cholesky
        mixture = from_cholesky(found.log_weights, means, cholesky)
        return WarpedParams(affine.loc, affine.scale, fitted, mixture)

    base_density = Base(
        lambda rng_key, params: sample_base(rng_key, params, defensive),
        lambda params, z: base_log_prob(params, z, defensive),
    )
    transport = Transport(forward, inverse)
    flow = pushforward(layout, base_density, transport, fit, init=init, trainable=lambda params: False)
    return flow._replace(num_components=count_components, drop_unused_components=drop_unused_components)


def sample_base(rng_key: Array, params: WarpedParams, defensive: float) -> Array:
    """One exact draw of z from the base density."""
    dim, dtype = params.loc.shape[0], params.loc.dtype
    normal, extra, (u_component, u_defensive) = base.normal_and_uniform(rng_key, dim, 2, dtype)
    z = base.component_draw(params.mixture, normal, u_component)
    student = base.student_draw(normal, extra)
    along = jnp.where(jnp.arange(dim) == params.warp.driver, student, normal)
    return jnp.where(u_defensive < defensive / 2, student, jnp.where(u_defensive < defensive, along, z))


def base_log_prob(params: WarpedParams, z: Array, defensive: float) -> Array:
    """Log density of the base at z; half of its defensive part has heavy tails along the driver only."""
    inside = base.log_prob(params.mixture, z, 0.0)
    if defensive == 0.0:
        return inside
    is_driver = jnp.arange(z.shape[0]) == params.warp.driver
    normal = -0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi).astype(z.dtype)
    along = jnp.sum(jnp.where(is_driver, jax.vmap(base.student_log_prob)(z[:, None]), normal))
    parts = jnp.stack([inside, base.student_log_prob(z), along])
    shares = jnp.array([1 - defensive, defensive / 2, defensive / 2], z.dtype)
    return jax.nn.logsumexp(parts + jnp.log(shares))
