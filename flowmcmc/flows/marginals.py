r"""Independent coordinates, each with a mixture of normals of its own: the proposal for products of many wells.

    x = loc + scale * (C z),   q(z) = prod_i sum_k pi_ik N(z_i; m_ik, s_ik^2)

n independent double wells have 2^n modes, which no mixture of vectors can list; here each well is one mixture. C is the
Cholesky factor of the chains' correlation matrix or the identity, whichever is better on held-out states.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.flows.affine import Affine, from_position, identity_affine, standardise, to_position
from flowmcmc.flows.mixture import normal_and_uniform, student_draw, with_student
from flowmcmc.flows.pushforward import Base, Transport, check_options, pushforward
from flowmcmc.ground.trees import Layout, raveled

__all__ = ["MarginalParams", "Marginals", "marginal_mixtures"]

MAX_MARGINAL_ROWS = 4096  # rows that EM uses
NUM_MARGINAL_STEPS = 40  # EM steps


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

    def log_prob(params, x):
        z, log_det = inverse(params, x)
        return log_base(params, z) + log_det

    def fit(rng_key, params, rows, weights, heldout, heldout_weights):
        affine, points = standardise(rows, weights)
        order = jnp.argsort(jnp.where(weights > 0, jax.random.uniform(rng_key, weights.shape), 2.0))[:MAX_MARGINAL_ROWS]

        def fitted(cholesky):
            rows = solve_triangular(cholesky, points[order].T, lower=True)
            found = jax.vmap(lambda row: fit_coordinate(row, weights[order], num_components))(rows)
            params = MarginalParams(affine._replace(cholesky=cholesky), found)
            log_probs = jax.vmap(log_prob, (None, 0))(params, heldout)
            return params, jnp.sum(jnp.where(heldout_weights > 0, log_probs, 0.0))

        factors = jnp.stack([affine.cholesky, jnp.eye(dim, dtype=dtype)])
        candidates, scores = jax.lax.map(fitted, factors)
        best = jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores))
        return jax.tree.map(lambda leaf: leaf[best], candidates)

    base, transport = Base(sample_base, log_base), Transport(forward, inverse)
    return pushforward(layout, base, transport, fit, init=init, trainable=lambda params: False)


def marginal_log_probs(marginals: Marginals, z: Array) -> Array:
    """log pi_ik + log N(z_i; m_ik, s_ik^2), shape (d, K); also (K,) for one coordinate."""
    log_weights, means, scales = marginals
    normal = -0.5 * ((z[..., None] - means) / scales) ** 2 - jnp.log(scales)
    return log_weights + normal - 0.5 * jnp.log(2 * jnp.pi).astype(z.dtype)


def fit_coordinate(values: Array, weights: Array, num_components: int) -> Marginals:
    """Fit one coordinate by EM, starting at its quantiles; `values` and `weights` are (n,)."""
    share = weights / jnp.sum(weights)
    order = jnp.argsort(values)
    levels = (jnp.arange(num_components) + 0.5) / num_components
    means = values[order][jnp.searchsorted(jnp.cumsum(share[order]), levels.astype(values.dtype))]
    spread = jnp.sqrt(jnp.sum(share * (values - jnp.sum(share * values)) ** 2)) + 1e-6
    start = Marginals(jnp.full_like(means, -jnp.log(num_components)), means, jnp.full_like(means, spread))
    start = start._replace(scales=start.scales / num_components)

    def step(_, marginals):
        log_joint = marginal_log_probs(marginals, values)
        r = jax.nn.softmax(log_joint, axis=1) * share[:, None]
        # a pseudo-count of 1e-3 / K at the coordinate's own variance keeps a component from shrinking onto one value
        count = jnp.sum(r, axis=0) + 1e-6
        mean = r.T @ values / count
        variance = jnp.sum(r * (values[:, None] - mean) ** 2, axis=0) + 1e-3 * spread**2 / num_components
        scales = jnp.sqrt(variance / (count + 1e-3 / num_components)) + 1e-3 * spread
        return Marginals(jnp.log(count / jnp.sum(count)), mean, scales)

    return jax.lax.fori_loop(0, NUM_MARGINAL_STEPS, step, start)
