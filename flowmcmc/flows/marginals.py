r"""Independent coordinates, each with a mixture of normals of its own: the proposal for products of many wells.

    x = loc + scale * (C z),   q(z) = prod_i sum_k pi_ik N(z_i; m_ik, s_ik^2)

n independent double wells have 2^n modes, which no mixture of vectors can list; here each well is one mixture. C is the
Cholesky factor of the chains' correlation matrix or the identity, whichever is better on held-out states.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows.affine import Affine, from_position, identity_affine, standardise, to_position
from flowmcmc.flows.em import as_rows
from flowmcmc.flows.mixture import normal_and_uniform, student_draw, with_student
from flowmcmc.flows.pushforward import Base, Transport, check_options, pushforward
from flowmcmc.ground.trees import Layout, raveled

__all__ = ["MarginalParams", "Marginals", "marginal_mixtures"]

MAX_MARGINAL_ROWS = 4096  # rows that EM uses
NUM_MARGINAL_STEPS = 40  # EM steps at most
NUM_FIRST_STEPS = 8  # of them, after which one of the two choices of C is taken
MIN_STEP_GAIN = 1e-4  # nats per state and coordinate, below which they end


class Marginals(NamedTuple):
    """`log_weights`, `means` and `scales` of each coordinate's components, (d, K)."""

    log_weights: Array
    means: Array
    scales: Array


class MarginalParams(NamedTuple):
    """Parameters of `marginal_mixtures`, all set by ``flow.fit``; gradients train none of them."""

    affine: Affine
    marginals: Marginals


def marginal_mixtures(position: PyTree, *, num_components: int = 6, defensive: float = 0.05) -> Flow:
    """A mixture of normals for each coordinate by itself, fitted by EM: many independent wells at little cost.

    EM: Dempster, Laird and Rubin (1977). Defensive mixture: Hesterberg (1995).

    Parameters
    ----------
    position
        One position (any pytree of floating arrays, no chain axis): gives shapes and dtype.
    num_components
        Components of each coordinate's mixture.
    defensive
        Weight of a broad Student-t density, as in `gaussian_mixture`.

    Returns
    -------
    Flow
        Over positions like `position`. Its parameters are `MarginalParams`, set by ``flow.fit`` alone; log densities
        are in nats.

    Raises
    ------
    ValueError, TypeError
        For an option out of range, or a position that is not made of floating arrays.
    """
    layout = check_options(position, defensive, {"num_components": num_components})
    return build_marginals(layout, num_components, float(defensive))


@lru_cache(maxsize=64)
def build_marginals(layout: Layout, num_components: int, defensive: float) -> Flow:
    """Build the flow; equal arguments give the same object, so that programs compiled for it are found again."""
    dim, dtype, _ = raveled(layout)

    def init(rng_key):
        means = jnp.zeros((dim, num_components), dtype)
        start = Marginals(means - jnp.log(num_components), means, jnp.ones_like(means))
        return MarginalParams(identity_affine(dim, dtype), start)

    def sample_base(rng_key, params):
        normal, extra, uniform = normal_and_uniform(rng_key, dim, dim + 1, dtype)
        log_weights, means, scales = params.marginals
        cumulative = jnp.cumsum(jnp.exp(log_weights), axis=1)
        k = jnp.argmax(uniform[:dim, None] < cumulative / cumulative[:, -1:], axis=1)[:, None]
        z = (jnp.take_along_axis(means, k, 1) + jnp.take_along_axis(scales, k, 1) * normal[:, None])[:, 0]
        return jnp.where(uniform[dim] < defensive, student_draw(normal, extra), z) if defensive > 0 else z

    def log_base(params, z):
        log_probs = jax.nn.logsumexp(marginal_log_probs(params.marginals, z), axis=1)
        return with_student(jnp.sum(log_probs), z, defensive)

    def forward(params, z):
        return to_position(params.affine, z)

    def inverse(params, x):
        return from_position(params.affine, x)

    def fit(rng_key, params, rows, weights, heldout, heldout_weights):
        affine, points = standardise(rows, weights)
        heldout_points = (heldout - affine.loc[None]) / affine.scale[None]
        start = MarginalParams(affine, init(None).marginals)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), start)
        everything = jax.random.bits(rng_key, (4,), "uint32"), start, points, weights, heldout_points, heldout_weights
        return jax.pure_callback(fit_marginals, shapes, *everything, vmap_method="sequential")

    base, transport = Base(sample_base, log_base), Transport(forward, inverse)
    return pushforward(layout, base, transport, fit, init=init, trainable=lambda params: False)


def marginal_log_probs(marginals: Marginals, z: Array) -> Array:
    """log pi_ik + log N(z_i; m_ik, s_ik^2), shape (d, K); also (K,) for one coordinate."""
    log_weights, means, scales = marginals
    normal = -0.5 * ((z[..., None] - means) / scales) ** 2 - jnp.log(scales)
    return log_weights + normal - 0.5 * jnp.log(2 * jnp.pi).astype(z.dtype)


def fit_marginals(seed, start: MarginalParams, points, weights, heldout, heldout_weights) -> MarginalParams:
    """Both choices of C, NumPy in double precision: the one that is better on held-out rows. `points` and `heldout` are
    in units of the scale about the mean; of `start` the affine map is kept."""
    affine, shape = start.affine, np.shape(start.marginals.means)
    dtype = np.asarray(start.marginals.means).dtype
    (rows, share), (judged, _) = as_rows(points, weights), as_rows(heldout, heldout_weights)
    chosen = np.random.default_rng(np.asarray(seed)).permutation(len(rows))[:MAX_MARGINAL_ROWS]
    rows, share = rows[chosen], share[chosen] / share[chosen].sum()
    best, best_score = None, -np.inf
    for cholesky in (np.asarray(affine.cholesky, float), np.eye(shape[0])):
        columns, judged_columns = (solve_triangular(cholesky, some.T, lower=True) for some in (rows, judged))
        found = fit_coordinates(columns, share, quantile_mixtures(columns, share, shape[1]), NUM_FIRST_STEPS)
        score = np.sum(logsumexp(log_joint(found, judged_columns), axis=1)) / max(1, len(judged))
        score -= np.sum(np.log(np.diagonal(cholesky)))
        if best is None or score > best_score:
            best, best_score = (cholesky, columns, found), score
    cholesky, columns, found = best
    found = fit_coordinates(columns, share, found, NUM_MARGINAL_STEPS - NUM_FIRST_STEPS)
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), MarginalParams(affine._replace(cholesky=cholesky), found))


def log_joint(marginals: Marginals, columns: np.ndarray) -> np.ndarray:
    """log pi_ik + log N(z_in; m_ik, s_ik^2) of columns (d, n), shape (d, K, n)."""
    log_weights, means, scales = (leaf[:, :, None] for leaf in marginals)
    return log_weights - np.log(scales) - 0.5 * np.log(2 * np.pi) - 0.5 * ((columns[:, None] - means) / scales) ** 2


def quantile_mixtures(columns: Any, share: Any, num_components: int) -> Marginals:
    """Components at the quantiles of each of the `columns` (d, n); `share` (n,) adds up to one."""
    order = np.argsort(columns, axis=1)
    levels = (np.arange(num_components) + 0.5) / num_components
    rank = np.array([np.searchsorted(np.cumsum(share[row]), levels) for row in order])
    means = np.take_along_axis(columns, np.take_along_axis(order, np.minimum(rank, len(share) - 1), axis=1), axis=1)
    ones = np.ones_like(means)
    started: Any = -np.log(num_components) * ones, means, spread_of(columns, share) * ones / num_components
    return Marginals(*started)


def spread_of(columns: Any, share: Any) -> np.ndarray:
    """Standard deviation of each coordinate, (d, 1)."""
    return np.sqrt((columns - columns @ share[:, None]) ** 2 @ share)[:, None] + 1e-6


def fit_coordinates(columns: Any, share: Any, found: Marginals, max_steps: int) -> Marginals:
    """EM for each of the `columns` (d, n), from `found` on."""
    spread, num_components, before = spread_of(columns, share), np.shape(found.means)[1], -np.inf
    for _ in range(max_steps):
        joint = log_joint(found, columns)
        log_density = logsumexp(joint, axis=1, keepdims=True)
        r = np.exp(joint - log_density) * share
        # a pseudo-count of 1e-3 / K at the coordinate's own variance keeps a component from shrinking onto one value
        count = r.sum(axis=2) + 1e-6
        mean = np.einsum("dkn,dn->dk", r, columns) / count
        variance = np.einsum("dkn,dkn->dk", r, (columns[:, None] - mean[:, :, None]) ** 2)
        variance += 1e-3 * spread**2 / num_components
        scales = np.sqrt(variance / (count + 1e-3 / num_components)) + 1e-3 * spread
        fitted: Any = np.log(count / count.sum(axis=1, keepdims=True)), mean, scales
        found = Marginals(*fitted)
        now = float(np.sum(log_density[:, 0] @ share))
        if now - before < MIN_STEP_GAIN * len(columns):
            break
        before = now
    return found
