r"""The three flows, and how they are built: position <- affine <- coupling layers <- base density.

    x = loc + scale * (C f(z)),   z ~ base,   log q(x) = log base(z) - log|det f'(z)| - sum log scale - log det C

`loc`, `scale` and the Cholesky factor C of the correlation matrix are set to the chains' mean and covariance by `fit`,
so the layers f and the base density only ever see numbers of order one; f starts at the identity. Gradients train f.
The affine part and the mixture come from `fit` alone: no gradient reaches them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from flowmcmc.base import Bijection, Flow, PyTree
from flowmcmc.flows import mixture as base
from flowmcmc.flows.affine import Affine, fit_base, flatten, log_det_affine, standardise, whiten
from flowmcmc.flows.coupling import Elementwise, affine, coupling
from flowmcmc.flows.mixture import Mixture
from flowmcmc.flows.spline import rational_quadratic
from flowmcmc.ground.arguments import as_arrays, check_counts, check_numbers

__all__ = ["FlowParams", "drop_unused_components", "gaussian_mixture", "real_nvp", "spline_flow"]


class FlowParams(NamedTuple):
    """`affine` and `mixture` are set by ``flow.fit``, `layers` (None without coupling layers) by gradients."""

    affine: Affine
    mixture: Mixture
    layers: PyTree


def gaussian_mixture(position: PyTree, *, num_components: int | None = None, defensive: float = 0.05) -> Flow:
    """A Gaussian mixture fitted by EM to the chains' states, with no coupling layers: cheap, and often enough.

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
    return build(position, None, 0, 1, num_components, defensive)


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
        Weight of the heavy-tailed part of the base density.
    """
    return build(position, affine(), num_layers, hidden, num_components, defensive)


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
    """
    check_counts({"num_bins": num_bins}, smallest=2)
    check_numbers({"bound": bound})
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}.")
    return build(position, rational_quadratic(num_bins, bound), num_layers, hidden, num_components, defensive)


def build(
    position: PyTree,
    elementwise: Elementwise | None,
    num_layers: int,
    hidden: int,
    num_components: int | None,
    defensive: float,
) -> Flow:
    """Assemble affine map, coupling layers (none without `elementwise`) and base density."""
    position = as_arrays(position, "position")
    vector, unravel = ravel_pytree(position)
    if num_components is None:
        size = max(1, vector.size) ** 2  # as many as can be fitted in a second or so
        num_components = max(min(40, 4096 // size), min(16, 65536 // size), 1)
    check_options(position, vector, num_layers if elementwise else 1, hidden, num_components, defensive)
    dim, dtype = vector.size, vector.dtype
    layers = elementwise and coupling(dim, elementwise, num_layers=num_layers, hidden=hidden, dtype=dtype)

    def init(rng_key, position):
        identity = Affine(jnp.zeros(dim, dtype), jnp.ones(dim, dtype), jnp.eye(dim, dtype=dtype))
        mixture = base.standard(num_components, dim, dtype)
        return FlowParams(identity, mixture, layers and layers.init(rng_key))

    def forward(params, z):
        loc, scale, cholesky = jax.lax.stop_gradient(params.affine)
        y, log_det = layers.forward(params.layers, z) if layers else (z, jnp.zeros((), dtype))
        return unravel(loc + scale * (cholesky @ y)), log_det + log_det_affine(scale, cholesky)

    def inverse(params, position):
        loc, scale, cholesky = jax.lax.stop_gradient(params.affine)
        y = solve_triangular(cholesky, (ravel_pytree(position)[0] - loc) / scale, lower=True)
        z, log_det = layers.inverse(params.layers, y) if layers else (y, jnp.zeros((), dtype))
        return z, log_det - log_det_affine(scale, cholesky)

    def sample_and_log_prob(rng_key, params):
        mixture = jax.lax.stop_gradient(params.mixture)
        z = base.sample(rng_key, mixture, defensive)
        position, log_det = forward(params, z)
        return position, base.log_prob(mixture, z, defensive) - log_det

    def log_prob(params, position):
        z, log_det = inverse(params, position)
        return base.log_prob(jax.lax.stop_gradient(params.mixture), z, defensive) + log_det

    def fit(rng_key, params, positions, weights, heldout, heldout_weights):
        key_layers, key_mixture = jax.random.split(rng_key) if layers else (None, rng_key)
        affine_map, points = standardise(flatten(positions), weights)
        fresh = init(key_layers, None)
        mixture = fresh.mixture
        if num_components > 1:
            heldout_rows = flatten(heldout)
            found = fit_base(
                key_mixture, affine_map, points, weights, heldout_rows, heldout_weights, mixture, params.mixture
            )
            mixture = whiten(found, affine_map.cholesky)
        return FlowParams(affine_map, mixture, fresh.layers)

    return Flow(init, sample_and_log_prob, log_prob, fit, Bijection(forward, inverse))


def drop_unused_components(params: PyTree, num_slots: int = 1) -> PyTree:
    """The same density without the mixture components of weight zero, which cost time, but for some up to `num_slots`;
    other flows' as they are."""
    if not num_components_of(params):
        return params
    is_unused = ~np.isfinite(np.asarray(params.mixture.log_weights))
    kept = np.argsort(is_unused, kind="stable")[: max(num_slots, np.sum(~is_unused))]
    return params._replace(mixture=jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[kept]), params.mixture))


def num_components_of(params: PyTree) -> int:
    """How many mixture components have a weight; 0 of a flow without them."""
    return int(np.isfinite(np.asarray(params.mixture.log_weights)).sum()) if hasattr(params, "mixture") else 0


def check_options(position, vector, num_layers, hidden, num_components, defensive) -> None:
    """Raise on a position or an option that no flow can be built from."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path) or "position"
            raise TypeError(f"position must be made of floating arrays, but {name} has dtype {leaf.dtype}: convert it.")
    if vector.size == 0:
        raise ValueError("position is empty: a flow needs at least one coordinate.")
    check_counts({"num_layers": num_layers, "hidden": hidden, "num_components": num_components})
    check_numbers({"defensive": defensive})
    if not 0.0 <= defensive < 1.0:
        raise ValueError(f"defensive must lie in [0, 1), got {defensive}.")
