r"""Fitting a Gaussian mixture to chain states by EM, its size and covariances chosen on held-out states.

M step, with responsibilities r_nk, N_k = sum_n r_nk and S the pooled within-component covariance:

    pi_k = N_k / N,   m_k = sum_n r_nk x_n / N_k,   C_k = (N_k S_k + nu S) / (N_k + nu)

nu = 1 is a full covariance for each component; nu = d(d+1)/2, as many pseudo-states as a covariance has numbers,
shrinks each towards the shared one (the MAP estimate under an inverse Wishart prior); nu = inf is one shared
covariance. The number of components grows until held-out states stop gaining; then the three kinds of covariance are
compared at the best number. Everything has a fixed shape, so that the fit can run inside compiled code.
Seeding: greedy k-means++ (Arthur and Vassilvitskii 2007).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array
from flowmcmc.flows.mixture import Mixture, component_log_probs, from_cholesky

__all__ = ["covariance_cholesky", "fit_mixture"]

MAX_STEPS = 30
SEARCH_ROWS = 2048  # the search looks at this many rows, the last steps at all
MIN_GAIN = 0.005  # nats for each held-out state that one more component must bring
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


class Search(NamedTuple):
    """Progress through the candidates: the best mixture so far, its held-out score, size and covariance strength."""

    index: Array
    misses: Array
    mixture: Mixture
    score: Array
    size: Array
    strength: Array


def fit_mixture(
    rng_key: Array, points: Array, weights: Array, heldout: Array, heldout_weights: Array, start: Mixture
) -> Mixture:
    """Best mixture of at most K components, K the length of `start`'s arrays.

    Parameters
    ----------
    rng_key
        For seeding and for the rows the search looks at.
    points, heldout
        Shapes (n, d) and (m, d), each coordinate of order one (seeding measures Euclidean distance).
    weights, heldout_weights
        Shapes (n,) and (m,); zero marks an unused row.
    start
        What to return if nothing beats it on the held-out rows (also when there are none).
    """
    max_size, dim = start.means.shape
    sizes = jnp.array([size for size in SIZES if size < max_size] + [max_size])
    strengths = jnp.array([jnp.inf, 1.0], points.dtype)
    key_rows, key_seed = jax.random.split(rng_key)
    shrunk = jnp.array(dim * (dim + 1) / 2, points.dtype)
    order = jnp.argsort(jnp.where(weights > 0, jax.random.uniform(key_rows, weights.shape), 2.0))[:SEARCH_ROWS]
    rows, row_weights = points[order], weights[order]

    def held_out_score(mixture):
        return weighted_mean(expectation(mixture, heldout)[1], heldout_weights)

    def body(search):
        is_growing = search.index < len(sizes)
        size = jnp.where(is_growing, sizes[jnp.minimum(search.index, len(sizes) - 1)], search.size)
        strength = jnp.where(is_growing, shrunk, strengths[jnp.maximum(search.index - len(sizes), 0)])
        responsibilities = jax.lax.cond(
            is_growing,
            lambda: seed(jax.random.fold_in(key_seed, search.index), rows, row_weights, size, max_size),
            lambda: expectation(search.mixture, rows)[0],
        )
        mixture = expectation_maximisation(rows, row_weights, responsibilities, strength, MAX_STEPS)
        score = held_out_score(mixture)
        is_better = score > search.score + jnp.where(is_growing, MIN_GAIN, 0.0)
        misses = jnp.where(is_better, 0, search.misses + 1)
        # two sizes in a row that do not help: go on to the kinds of covariance
        index = jnp.where(is_growing & (misses >= 2), len(sizes), search.index + 1)
        found = Search(index, misses, mixture, score, size, strength)
        kept = search._replace(index=index, misses=misses)
        return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), found, kept)

    zero, one = jnp.array(0), jnp.array(1)
    first = Search(zero, zero, start, jnp.array(-jnp.inf, points.dtype), one, shrunk)
    best = jax.lax.while_loop(lambda search: search.index < len(sizes) + len(strengths), body, first)
    final = expectation_maximisation(points, weights, expectation(best.mixture, points)[0], best.strength, 5)
    candidates = jax.tree.map(lambda *leaves: jnp.stack(leaves), start, best.mixture, final)
    scores = jax.lax.map(held_out_score, candidates)
    winner = jnp.argmax(jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    return jax.tree.map(lambda leaf: leaf[winner], candidates)


def expectation(mixture: Mixture, points: Array) -> tuple[Array, Array]:
    """Responsibilities (n, K) and log densities (n,)."""
    log_joint = jax.vmap(component_log_probs, (None, 0))(mixture, points)
    log_prob = jax.nn.logsumexp(log_joint, axis=1)
    return jnp.exp(log_joint - log_prob[:, None]), log_prob


def maximisation(points: Array, weights: Array, responsibilities: Array, strength: Array) -> Mixture:
    """Weights, means and covariances given the responsibilities; `strength` is nu of the module's equation."""
    r = responsibilities * weights[:, None]
    counts = jnp.sum(r, axis=0)
    safe_counts = jnp.maximum(counts, 1e-6)
    means = r.T @ points / safe_counts[:, None]
    centred = points[None] - means[:, None]
    scatter = jnp.einsum("nk,kni,knj->kij", r, centred, centred, optimize=[(0, 1), (0, 1)])
    shared = jnp.sum(scatter, axis=0) / jnp.sum(counts)
    towards_shared = jnp.where(jnp.isinf(strength), 1.0, strength / (counts + strength))[:, None, None]
    covariances = (1 - towards_shared) * scatter / safe_counts[:, None, None] + towards_shared * shared[None]
    effective = jnp.where(jnp.isinf(strength), jnp.sum(counts), counts + strength)
    cholesky = jax.vmap(covariance_cholesky)(covariances, effective)
    return from_cholesky(jnp.log(counts / jnp.sum(counts)), means, cholesky)


def expectation_maximisation(points, weights, responsibilities, strength, max_steps) -> Mixture:
    """Iterate to a gain below 1e-3 nats for each state, or `max_steps` times."""

    def is_running(carry):
        step, _, previous, current, _ = carry
        return (step < max_steps) & ~(current - previous < 1e-3)

    def body(carry):
        step, responsibilities, _, current, _ = carry
        mixture = maximisation(points, weights, responsibilities, strength)
        responsibilities, log_prob = expectation(mixture, points)
        return step + 1, responsibilities, current, weighted_mean(log_prob, weights), mixture

    # the first step is one of the loop's, or it would be compiled twice
    low = jnp.array(-jnp.inf, points.dtype)
    shapes = jax.eval_shape(maximisation, points, weights, responsibilities, strength)
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.while_loop(is_running, body, (0, responsibilities, low, low, nothing))[-1]


def seed(rng_key: Array, points: Array, weights: Array, size: Array, max_size: int) -> Array:
    """Greedy k-means++: one-hot responsibilities (n, max_size), columns from `size` on empty."""

    def squared_distance(centre):
        return jnp.sum((points - centre[None]) ** 2, axis=1)

    def add(nearest, inputs):
        key, k = inputs
        candidates = jax.random.categorical(key, jnp.log(weights * nearest), shape=(4,))
        distances = jax.vmap(lambda row: jnp.minimum(nearest, squared_distance(points[row])))(candidates)
        best = jnp.argmin(distances @ weights)
        is_used = k < size
        return jnp.where(is_used, distances[best], nearest), points[candidates[best]]

    everywhere = jnp.ones(points.shape[0], points.dtype)
    keys = jax.random.split(rng_key, max_size)
    _, centres = jax.lax.scan(add, 1e12 * everywhere, (keys, jnp.arange(max_size)))
    distances = jax.vmap(squared_distance, out_axes=1)(centres)
    owner = jnp.argmin(jnp.where(jnp.arange(max_size)[None] < size, distances, jnp.inf), axis=1)
    return jax.nn.one_hot(owner, max_size, dtype=points.dtype)


def covariance_cholesky(covariance: Array, count: Array) -> Array:
    """Cholesky factor after a pull to the diagonal that vanishes as `count`, the states behind it, outgrows d."""
    dim = covariance.shape[0]
    variances = jnp.diagonal(covariance)
    pull = jnp.minimum(1.0, (dim / (dim + count)) ** 2).astype(covariance.dtype)
    ridge = 1e-5 if covariance.dtype == jnp.float32 else 1e-9
    floor = jnp.finfo(covariance.dtype).eps ** 2
    diagonal = jnp.diag(pull * variances + ridge * variances + floor)
    return jnp.linalg.cholesky((1 - pull) * covariance + diagonal)


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean over the rows in use; NaN if there are none."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0)) / jnp.sum(weights)
