r"""Gaussian mixture, RealNVP and spline flow: position <- affine <- coupling layers <- base density.

    x = loc + scale * (C f(z)),   z ~ base,   log q(x) = log base(z) - log|det f'(z)| - sum log scale - log det C

`loc`, `scale` and the Cholesky factor C of the correlation matrix are set to the chains' mean and covariance by `fit`,
so the layers f and the base density see numbers of order one only; f starts at the identity. Gradients train f.
The affine part and the mixture come from `fit` alone: no gradient reaches them.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows import mixture as base
from flowmcmc.flows.affine import Affine, fit_base, from_position, identity_affine, standardise, to_position, whiten
from flowmcmc.flows.coupling import Elementwise, affine, coupling
from flowmcmc.flows.mixture import Mixture
from flowmcmc.flows.pushforward import Base, Transport, check_options, pushforward
from flowmcmc.flows.spline import rational_quadratic
from flowmcmc.ground.arguments import check_counts, check_numbers
from flowmcmc.ground.trees import Layout, raveled

__all__ = ["FlowParams", "gaussian_mixture", "real_nvp", "spline_flow"]


class FlowParams(NamedTuple):
    """`affine` and `mixture` are set by ``flow.fit``, `layers` (None without coupling layers) by gradients."""

    affine: Affine
    mixture: Mixture
    layers: PyTree


def gaussian_mixture(position: PyTree, *, num_components: int | None = None, defensive: float = 0.05) -> Flow:
    """A Gaussian mixture fitted by EM to the chains' states, with no coupling layers: cheap, and often enough.

    EM: Dempster, Laird and Rubin (1977). Defensive mixture: Hesterberg (1995).

    Parameters
    ----------
    position
        One position (any pytree of floating arrays, no chain axis): gives shapes and dtype.
    num_components
        The most components that `fit` may use; it chooses their number, and whether covariances are full, shrunk or
        shared, on held-out states. None means 40 in up to 10 dimensions, 16 from 16 to 64, and fewer above, where each
        has d^2 numbers to learn.
    defensive
        Weight of a broad Student-t density (3 degrees of freedom, twice the chains' covariance scale), in [0, 1).

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `FlowParams` with ``layers=None``, set by ``flow.fit`` alone;
        log densities are in nats. It has a `metric`, the mean covariance of its components, (d, d) in squared units of
        the position.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.

    Example
    -------
    >>> flow = gaussian_mixture(jnp.zeros(2))
    >>> params = flow.init(jax.random.key(0), jnp.zeros(2))
    >>> position, log_prob = flow.sample_and_log_prob(jax.random.key(1), params)
    """
    return layered(position, None, 1, 1, num_components, defensive)


def real_nvp(
    position: PyTree,
    *,
    num_layers: int = 6,
    hidden: int = 32,
    num_components: int | None = None,
    defensive: float = 0.05,
) -> Flow:
    """RealNVP (arXiv 1605.08803): affine coupling layers on a fitted affine map and base density.

    Parameters
    ----------
    position
        One position (any pytree of floating arrays, no chain axis): gives shapes and dtype.
    num_layers, hidden
        Coupling layers, and the width of the two hidden layers in each.
    num_components
        1: the base is a standard normal. More: a Gaussian mixture of at most so many components, see
        `gaussian_mixture`; the layers then refine it from the identity.
    defensive
        Weight of the heavy-tailed part of the base density, in [0, 1); Hesterberg (1995).

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `FlowParams`: gradients train ``layers``, ``flow.fit`` sets
        the rest. Log densities are in nats.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.
    """
    return layered(position, affine(), num_layers, hidden, num_components, defensive)


def spline_flow(
    position: PyTree,
    *,
    num_layers: int = 4,
    hidden: int = 32,
    num_bins: int = 8,
    bound: float = 5.0,
    num_components: int | None = None,
    defensive: float = 0.05,
) -> Flow:
    """Neural spline flow (arXiv 1906.04032): rational-quadratic coupling layers, the identity beyond `bound`.

    Parameters
    ----------
    num_bins, bound
        Bins of each spline, on [-bound, bound] in units of the chains' standard deviations.
    position, num_layers, hidden, num_components, defensive
        As in `real_nvp`.

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `FlowParams`: gradients train ``layers``, ``flow.fit`` sets
        the rest. Log densities are in nats.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.
    """
    check_counts({"num_bins": num_bins}, smallest=2)
    check_numbers({"bound": bound})
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}.")
    return layered(position, rational_quadratic(num_bins, float(bound)), num_layers, hidden, num_components, defensive)


def layered(
    position: PyTree,
    elementwise: Elementwise | None,
    num_layers: int,
    hidden: int,
    num_components: int | None,
    defensive: float,
) -> Flow:
    """Check the options and build the flow, without coupling layers if `elementwise` is None."""
    counts = {"num_layers": num_layers, "hidden": hidden}
    asked = 1 if num_components is None else num_components
    layout = check_options(position, defensive, counts | {"num_components": asked})
    if num_components is None:
        size = raveled(layout)[0] ** 2  # as many components as EM fits in about a second
        num_components = max(min(40, 4096 // size), min(16, 65536 // size), 1)
    return build_layered(layout, elementwise, num_layers, hidden, num_components, float(defensive))


@lru_cache(maxsize=64)
def build_layered(
    layout: Layout,
    elementwise: Elementwise | None,
    num_layers: int,
    hidden: int,
    num_components: int,
    defensive: float,
) -> Flow:
    """Build the flow; equal arguments give the same object, so that programs compiled for it are found again."""
    dim, dtype, _ = raveled(layout)
    layers = elementwise and coupling(dim, elementwise, num_layers=num_layers, hidden=hidden, dtype=dtype)

    def init(rng_key):
        mixture = base.standard_mixture(num_components, dim, dtype)
        return FlowParams(identity_affine(dim, dtype), mixture, layers and layers.init(rng_key))

    def sample_base(rng_key, params):
        return base.sample(rng_key, params.mixture, defensive)

    def log_base(params, z):
        return base.log_prob(params.mixture, z, defensive)

    def forward(params, z):
        y, log_det = layers.forward(params.layers, z) if layers else (z, jnp.zeros((), dtype))
        x, log_det_affine = to_position(params.affine, y)
        return x, log_det + log_det_affine

    def inverse(params, x):
        y, log_det_affine = from_position(params.affine, x)
        z, log_det = layers.inverse(params.layers, y) if layers else (y, jnp.zeros((), dtype))
        return z, log_det + log_det_affine

    def fit(rng_key, params, rows, weights, heldout, heldout_weights):
        key_layers, key_mixture = jax.random.split(rng_key) if layers else (None, rng_key)
        affine_map, points = standardise(rows, weights)
        fresh = init(key_layers)
        mixture = fresh.mixture
        if num_components > 1:
            found = fit_base(
                key_mixture, affine_map, points, weights, heldout, heldout_weights, mixture, params.mixture
            )
            mixture = whiten(found, affine_map.cholesky)
        return FlowParams(affine_map, mixture, fresh.layers)

    trainable = lambda params: FlowParams(False, False, bool(layers))  # type: ignore
    base_density, transport = Base(sample_base, log_base), Transport(forward, inverse)
    flow = pushforward(layout, base_density, transport, fit, init=init, trainable=trainable)
    return flow._replace(
        num_components=count_components,
        drop_unused_components=drop_unused_components,
        metric=None if layers else mean_component_covariance,
    )


def mean_component_covariance(params: FlowParams) -> Array:
    """Weighted mean of the components' covariances in coordinates of the position, (d, d)."""
    weights, roots = jnp.exp(params.mixture.log_weights), params.mixture.cholesky
    whole = params.affine.scale[:, None] * params.affine.cholesky
    return whole @ jnp.einsum("k,kij,klj->il", weights, roots, roots) @ whole.T


def drop_unused_components(params: PyTree, num_slots: int = 1) -> PyTree:
    """Remove mixture components of weight zero as long as `num_slots` remain; the density stays the same."""
    is_unused = ~np.isfinite(np.asarray(params.mixture.log_weights))
    kept = np.argsort(is_unused, kind="stable")[: max(num_slots, np.sum(~is_unused))]
    return params._replace(mixture=jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[kept]), params.mixture))


def count_components(params: PyTree) -> int:
    """Number of mixture components with a positive weight."""
    return int(np.isfinite(np.asarray(params.mixture.log_weights)).sum())
