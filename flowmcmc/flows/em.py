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
from flowmcmc.flows.mixture import Mixture, component_log_probs, from_cholesky, standard_mixture

__all__ = ["covariance_cholesky", "fit_mixture"]

MAX_EM_STEPS = 30
FINAL_EM_STEPS = 5
SEARCH_ROWS = 2048  # rows in a chunk; the search uses one chunk, the final steps use all of them
MIN_SCORE_GAIN = 0.005  # nats per held-out state that a larger mixture must gain
MIXTURE_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
SEED_SCALE = 1e-3  # standard deviation of the seed components, so small that each row belongs to the nearest centre


class Search(NamedTuple):
    """State of the search: `stage`, sizes in a row without a gain, and the best mixture with its score and strength."""

    stage: Array
    misses: Array
    mixture: Mixture
    score: Array
    strength: Array


class Moments(NamedTuple):
    """Weighted moments of the rows about each component's current mean: `counts` (K,), `sums` (K, d), `products`
    (K, d, d); and `log_prob`, the log density summed over rows."""

    counts: Array
    sums: Array
    products: Array
    log_prob: Array


def fit_mixture(
    rng_key: Array,
    points: Array,
    weights: Array,
    heldout: Array,
    heldout_weights: Array,
    start: Mixture,
    in_use: Array | int = 1,
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
    in_use
        Components of an earlier fit to some of these rows: the search begins at the next smaller number.
    """
    max_size, dim = start.means.shape
    sizes = [size for size in MIXTURE_SIZES if size < max_size] + [max_size]
    # stages: `start` itself, each size, two more kinds of covariance, and the best mixture refined on all rows
    size_of = jnp.array([1, *sizes, 1, 1, 1])
    steps_of = jnp.array([0, *[MAX_EM_STEPS] * (len(sizes) + 2), FINAL_EM_STEPS])
    shrunk = jnp.array(dim * (dim + 1) / 2, points.dtype)
    strength_of = jnp.array([*[shrunk] * (1 + len(sizes)), jnp.inf, 1.0, jnp.nan], points.dtype)
    keys = jax.random.split(rng_key, 1 + len(sizes))
    order = jnp.argsort(jnp.where(weights > 0, jax.random.uniform(keys[0], weights.shape), 2.0))
    rows, row_weights = split_into_chunks(points[order]), split_into_chunks(weights[order])

    def body(search):
        stage = search.stage
        is_growing = (stage > 0) & (stage <= len(sizes))
        is_last = stage == len(size_of) - 1
        strength = jnp.where(is_last, search.strength, strength_of[stage])
        mixture = jax.lax.cond(
            is_growing,
            lambda: seed_mixture(
                keys[jnp.minimum(stage, len(sizes))], rows[0], row_weights[0], size_of[stage], max_size
            ),
            lambda: search.mixture,
        )
        num_chunks = jnp.where(is_last, len(rows), 1)
        mixture = expectation_maximisation(rows, row_weights, num_chunks, mixture, strength, steps_of[stage])
        score = weighted_mean(expectation(mixture, heldout)[1], heldout_weights)
        is_better = score > search.score + jnp.where(is_growing & (stage > 1), MIN_SCORE_GAIN, 0.0)
        misses = jnp.where(is_better | (stage <= 1), 0, search.misses + 1)
        # after two sizes in a row without a gain, compare the kinds of covariance
        following = jnp.where(is_growing & (misses >= 2), len(sizes) + 1, stage + 1)
        following = jnp.where(stage == 0, jnp.maximum(jnp.sum(jnp.array(sizes) < in_use), 1), following)
        found = Search(following, misses, mixture, score, strength)
        kept = search._replace(stage=following, misses=misses)
        return jax.tree.map(lambda new, old: jnp.where(is_better, new, old), found, kept)

    first = Search(jnp.array(0), jnp.array(0), start, jnp.array(-jnp.inf, points.dtype), shrunk)
    return jax.lax.while_loop(lambda search: search.stage < len(size_of), body, first).mixture


def split_into_chunks(rows: Array) -> Array:
    """Split rows into chunks (chunk, row, ...) of equal length, the last one padded with zeros."""
    size = min(SEARCH_ROWS, len(rows))
    num = -(-len(rows) // size)
    padded = jnp.pad(rows, [(0, num * size - len(rows))] + [(0, 0)] * (rows.ndim - 1))
    return padded.reshape(num, size, *rows.shape[1:])


def expectation(mixture: Mixture, points: Array) -> tuple[Array, Array]:
    """Responsibilities (n, K) and log densities (n,)."""
    log_joint = jax.vmap(component_log_probs, (None, 0))(mixture, points)
    log_prob = jax.nn.logsumexp(log_joint, axis=1)
    return jnp.exp(log_joint - log_prob[:, None]), log_prob


def moments(means: Array, points: Array, weights: Array, responsibilities: Array, log_prob: Array) -> Moments:
    """Moments about the current `means`, so near to the new ones that subtracting those loses little precision."""
    r = responsibilities * weights[:, None]
    centred = points[None] - means[:, None]
    weighted = r.T[:, :, None] * centred
    products = jnp.einsum("kni,knj->kij", weighted, centred)
    total = jnp.sum(jnp.where(weights > 0, weights * log_prob, 0.0))
    return Moments(jnp.sum(r, axis=0), jnp.sum(weighted, axis=1), products, total)


def maximisation(means: Array, sums: Moments, strength: Array) -> Mixture:
    """Weights, means and covariances given moments about `means`; `strength` is nu of the module's equation."""
    counts = sums.counts
    safe_counts = jnp.maximum(counts, 1e-6)
    shift = sums.sums / safe_counts[:, None]
    scatter = sums.products - counts[:, None, None] * shift[:, :, None] * shift[:, None, :]
    shared = jnp.sum(scatter, axis=0) / jnp.sum(counts)
    towards_shared = jnp.where(jnp.isinf(strength), 1.0, strength / (counts + strength))[:, None, None]
    covariances = (1 - towards_shared) * scatter / safe_counts[:, None, None] + towards_shared * shared[None]
    effective = jnp.where(jnp.isinf(strength), jnp.sum(counts), counts + strength)
    cholesky = jax.vmap(covariance_cholesky)(covariances, effective)
    return from_cholesky(jnp.log(counts / jnp.sum(counts)), means + shift, cholesky)


def expectation_maximisation(points, weights, num_chunks, mixture, strength, max_steps) -> Mixture:
    """EM on `num_chunks` chunks of rows until the gain per state is below 1e-3 nats, at most `max_steps` steps."""

    def is_running(carry):
        step, _, previous, current = carry
        return (step < max_steps) & ~(current - previous < 1e-3)

    def body(carry):
        step, mixture, _, current = carry

        def add(index, so_far):
            here, share = points[index], weights[index]
            return jax.tree.map(jnp.add, so_far, moments(mixture.means, here, share, *expectation(mixture, here)))

        nothing = Moments(
            *(jnp.zeros_like(leaf) for leaf in (mixture.log_weights, mixture.means, mixture.cholesky, current))
        )
        sums = jax.lax.fori_loop(0, num_chunks, add, nothing)
        log_prob = sums.log_prob / jnp.sum(sums.counts)
        return step + 1, maximisation(mixture.means, sums, strength), current, log_prob

    low = jnp.array(-jnp.inf, points.dtype)
    return jax.lax.while_loop(is_running, body, (0, mixture, low, low))[1]


def seed_mixture(rng_key: Array, points: Array, weights: Array, size: Array, max_size: int) -> Mixture:
    """Place `size` narrow components by greedy k-means++."""

    def squared_distance(centre):
        return jnp.sum((points - centre[None]) ** 2, axis=1)

    def add(nearest, uniform):
        cumulative = jnp.cumsum(weights * nearest)
        candidates = jnp.sum(cumulative[None] <= uniform[:, None] * cumulative[-1], axis=1)
        centres = points[jnp.minimum(candidates, len(points) - 1)]
        distances = jax.vmap(lambda centre: jnp.minimum(nearest, squared_distance(centre)))(centres)
        best = jnp.argmin(distances @ weights)
        return distances[best], centres[best]

    everywhere = jnp.full(len(points), 1e12, points.dtype)
    _, centres = jax.lax.scan(add, everywhere, jax.random.uniform(rng_key, (max_size, 4), points.dtype))
    log_weights = jnp.where(jnp.arange(max_size) < size, 0.0, -jnp.inf).astype(points.dtype)
    unit = standard_mixture(max_size, points.shape[1], points.dtype)
    return Mixture(log_weights, centres, SEED_SCALE * unit.cholesky, unit.inverse / SEED_SCALE)


def covariance_cholesky(covariance: Array, count: Array) -> Array:
    """Cholesky factor of a covariance shrunk to its diagonal, by a share that vanishes as `count` states outgrow d."""
    dim = covariance.shape[0]
    variances = jnp.diagonal(covariance)
    pull = jnp.minimum(1.0, (dim / (dim + count)) ** 2).astype(covariance.dtype)
    ridge = 1e-5 if covariance.dtype == jnp.float32 else 1e-9
    floor = jnp.finfo(covariance.dtype).eps ** 2
    diagonal = jnp.diag(pull * variances + ridge * variances + floor)
    return jnp.linalg.cholesky((1 - pull) * covariance + diagonal)


def weighted_mean(values: Array, weights: Array) -> Array:
    """Weighted mean over the rows with a positive weight; NaN if there are none."""
    return jnp.sum(jnp.where(weights > 0, weights * values, 0.0)) / jnp.sum(weights)
