r"""Fitting a Gaussian mixture to chain states by EM, its size and covariances chosen on held-out states.

M step, with responsibilities r_nk, N_k = sum_n r_nk and S the pooled within-component covariance:

    pi_k = N_k / N,   m_k = sum_n r_nk x_n / N_k,   C_k = (N_k S_k + nu S) / (N_k + nu)

nu = 1 is a full covariance for each component; nu = d(d+1)/2, as many pseudo-states as a covariance has numbers,
shrinks each towards the shared one (the MAP estimate under an inverse Wishart prior); nu = inf is one shared
covariance. The number of components grows until held-out states stop gaining; then the three kinds of covariance are
compared at the best number. Seeding: greedy k-means++ (Arthur and Vassilvitskii 2007).

All of it is NumPy in double precision; compiled code calls it back, so that nothing here is ever compiled.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import logsumexp
from threadpoolctl import ThreadpoolController

from flowmcmc.base import Array
from flowmcmc.flows.mixture import Mixture

__all__ = ["HostMixture", "Rows", "as_rows", "component_log_densities", "fit_mixture", "search_mixture"]

MAX_EM_STEPS = 30
BLOCK_STEPS = 6  # from one look at the held-out states to the next
FINAL_EM_STEPS = 5
SEARCH_ROWS = 2048  # rows that the search looks at; the final steps use all of them
MIN_SCORE_GAIN = 0.005  # nats per held-out state that a larger mixture must gain
MIXTURE_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
PATIENCE = 3  # sizes in a row without a gain, after which no larger one is tried
MAX_LOSS = 0.5  # nats per held-out state by which one size alone may fall behind for larger ones to be tried
SEED_SCALE = 1e-3  # standard deviation of the seed components, so small that each row belongs to the nearest centre
NEGLIGIBLE = 1e-12  # responsibilities below it are left out of sums over rows


class HostMixture(NamedTuple):
    """As `Mixture`, of NumPy arrays in double precision, all components in use."""

    log_weights: np.ndarray
    means: np.ndarray
    cholesky: np.ndarray
    inverse: np.ndarray


class Rows(NamedTuple):
    """States `points` (n, d) with positive `weights` (n,), doubles."""

    points: np.ndarray
    weights: np.ndarray


def fit_mixture(
    rng_key: Array,
    points: Array,
    weights: Array,
    heldout: Array,
    heldout_weights: Array,
    start: Mixture,
    in_use: Array | int = 1,
) -> Mixture:
    """Best mixture of at most K components, K the length of `start`'s arrays, from inside compiled code or not.

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
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), start)
    seed = jax.random.bits(rng_key, (4,), "uint32")
    everything = seed, points, weights, heldout, heldout_weights, start, in_use
    return jax.pure_callback(fit_padded, shapes, *everything, vmap_method="sequential")


def fit_padded(seed, points, weights, heldout, heldout_weights, start, in_use) -> Mixture:
    """`search_mixture` on rows of which some are not in use; its components fill the first places of `start`'s."""
    start = HostMixture(*map(np.asarray, start))
    dtype, max_size = start.means.dtype, len(start.means)
    rows, heldout_rows = as_rows(points, weights), as_rows(heldout, heldout_weights)
    is_used = np.isfinite(start.log_weights)
    first = HostMixture(*(leaf[is_used].astype(float) for leaf in start))
    rng = np.random.default_rng(np.asarray(seed))
    found = search_mixture(rng, rows, heldout_rows, first, max_size, int(in_use), dtype)
    if found is first:
        return Mixture(*start)  # type: ignore
    # standard normals without weight fill the rest
    size, dim = found.means.shape
    eye = np.broadcast_to(np.eye(dim), (max_size - size, dim, dim))
    rest = HostMixture(np.full(max_size - size, -np.inf), np.zeros((max_size - size, dim)), eye, eye)
    return Mixture(*(np.concatenate(pair).astype(dtype) for pair in zip(found, rest)))  # type: ignore


def as_rows(points, weights) -> Rows:
    """The rows in use."""
    weights = np.asarray(weights, float)
    return Rows(np.asarray(points, float)[weights > 0], weights[weights > 0])


@ThreadpoolController().wrap(limits=1, user_api="blas")  # threads would wait for one another longer than they compute
def search_mixture(
    rng: np.random.Generator,
    rows: Rows,
    heldout: Rows,
    start: HostMixture,
    max_size: int,
    in_use: int = 1,
    dtype: Any = float,
) -> HostMixture:
    """The mixture with the best held-out score, `start` itself if nothing beats it.

    Parameters
    ----------
    rng
        For seeding and for the rows the search looks at.
    rows, heldout
        What to fit, and what to choose by.
    start
        Of arrays without unused components.
    max_size
        The most components.
    in_use
        As in `fit_mixture`.
    dtype
        In which the mixture will be used: covariances stay invertible in it.
    """
    if not len(rows.points) or not len(heldout.points):
        return start
    dim = rows.points.shape[1]
    order = rng.permutation(len(rows.points))[:SEARCH_ROWS]
    few = Rows(rows.points[order], rows.weights[order])
    shrunk = dim * (dim + 1) / 2
    best, best_score, best_strength, misses = start, score(start, heldout), shrunk, 0
    sizes = [size for size in MIXTURE_SIZES if size < max_size] + [max_size]
    for size in sizes[max(0, sum(size < in_use for size in sizes) - 1) :]:
        mixture, found = search_steps(few, heldout, seed_mixture(rng, few, size), shrunk, dtype)
        if found > best_score + (MIN_SCORE_GAIN if size > 1 else 0.0):
            best, best_score, misses = mixture, found, 0
        elif (misses := misses + (size > 1)) == PATIENCE or found < best_score - MAX_LOSS:
            break
    for strength in (np.inf, 1.0):
        mixture, found = search_steps(few, heldout, best, strength, dtype)
        if found > best_score:
            best, best_score, best_strength = mixture, found, strength
    refined, _ = expectation_maximisation(rows, best, best_strength, FINAL_EM_STEPS, dtype)
    # all rows tell more than those of the search, whose luck on the held-out rows would otherwise be kept
    luck = 0.0 if best is start else MIN_SCORE_GAIN
    return refined if score(refined, heldout) > best_score - luck else best


def component_log_densities(mixture: HostMixture, points: np.ndarray) -> np.ndarray:
    """log pi_k + log N(x_n; m_k, C_k), shape (K, n)."""
    constant = 0.5 * points.shape[1] * np.log(2 * np.pi)
    found = []
    for log_weight, mean, inverse in zip(mixture.log_weights, mixture.means, mixture.inverse):
        white = inverse @ (points - mean).T
        log_det = np.sum(np.log(np.diagonal(inverse)))
        found.append(log_weight + log_det - constant - 0.5 * np.einsum("dn,dn->n", white, white))
    return np.array(found)


def score(mixture: HostMixture, rows: Rows) -> float:
    """Mean log density of the rows, nats."""
    log_density: Any = logsumexp(component_log_densities(mixture, rows.points), axis=0)
    return float(np.average(log_density, weights=rows.weights))


def search_steps(
    rows: Rows, heldout: Rows, mixture: HostMixture, strength: float, dtype: Any
) -> tuple[HostMixture, float]:
    """EM in blocks of steps while held-out states gain: the mixture and its score."""
    found = -np.inf
    for _ in range(MAX_EM_STEPS // BLOCK_STEPS):
        mixture, is_done = expectation_maximisation(rows, mixture, strength, BLOCK_STEPS, dtype)
        before, found = found, score(mixture, heldout)
        if is_done or not found > before:
            break
    return mixture, found


def expectation_maximisation(
    rows: Rows, mixture: HostMixture, strength: float, max_steps: int, dtype
) -> tuple[HostMixture, bool]:
    """At most `max_steps` steps of EM, fewer if the gain per state is below 1e-3 nats, and whether it was."""
    before = -np.inf
    for _ in range(max_steps):
        log_joint = component_log_densities(mixture, rows.points)
        log_density: Any = logsumexp(log_joint, axis=0)
        mixture = maximisation(rows, np.exp(log_joint - log_density), strength, dtype)
        now = np.average(log_density, weights=rows.weights)
        if now - before < 1e-3:
            return mixture, True
        before = now
    return mixture, False


def maximisation(rows: Rows, responsibilities: np.ndarray, strength: float, dtype=float) -> HostMixture:
    """Weights, means and covariances given responsibilities (K, n); `strength` is nu of the module's equation."""
    r = responsibilities * rows.weights
    counts = r.sum(axis=1)
    means, scatter = [], []
    for share, count in zip(r, counts):
        near = np.flatnonzero(share > NEGLIGIBLE * rows.weights)
        points, weights = rows.points[near], share[near]
        means.append(weights @ points / max(count, 1e-6))
        centred = points - means[-1]
        scatter.append((weights[:, None] * centred).T @ centred)
    scatter, total = np.array(scatter), counts.sum()
    shared = scatter.sum(axis=0) / total
    if np.isinf(strength):
        factors = np.broadcast_to(cholesky_factors(shared[None], np.array([total]), dtype), scatter.shape)
    else:
        covariances = (scatter + strength * shared) / (counts + strength)[:, None, None]
        factors = cholesky_factors(covariances, counts + strength, dtype)
    with np.errstate(divide="ignore"):
        return HostMixture(np.log(counts / total), np.array(means), factors, np.linalg.inv(factors))


def cholesky_factors(covariances: np.ndarray, counts: np.ndarray, dtype) -> np.ndarray:
    """Cholesky factors (K, d, d) of covariances that are shrunk to their diagonals, by a share that vanishes as the
    `counts` (K,) of states outgrow d; NaN where that does not make them positive."""
    dim, info = covariances.shape[1], np.finfo(dtype)
    pull = np.minimum(1.0, (dim / (dim + counts)) ** 2)[:, None]
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    diagonal = (pull + (1e-5 if info.bits == 32 else 1e-9)) * variances + info.eps**2
    shrunk = (1 - pull)[:, :, None] * covariances + diagonal[:, :, None] * np.eye(dim)
    try:
        return np.linalg.cholesky(shrunk)
    except np.linalg.LinAlgError:
        return np.full_like(shrunk, np.nan)


def seed_mixture(rng: np.random.Generator, rows: Rows, size: int) -> HostMixture:
    """Place `size` narrow components by greedy k-means++."""
    nearest, centres = np.full(len(rows.points), 1e12), []
    for _ in range(size):
        cumulative = np.cumsum(rows.weights * nearest)
        chosen = np.searchsorted(cumulative, rng.random(4) * cumulative[-1], side="right")
        candidates = rows.points[np.minimum(chosen, len(cumulative) - 1)]
        distances = np.sum((rows.points - candidates[:, None]) ** 2, axis=2)
        distances = np.minimum(nearest, distances)
        best = np.argmin(distances @ rows.weights)
        nearest = distances[best]
        centres.append(candidates[best])
    eye = np.broadcast_to(np.eye(rows.points.shape[1]), (size, rows.points.shape[1], rows.points.shape[1]))
    return HostMixture(np.zeros(size), np.array(centres), SEED_SCALE * eye, eye / SEED_SCALE)
