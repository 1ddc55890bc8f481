r"""Log weights l = logdensity - log flow at draws of a flow and of its target, and what follows from them, in nats.

    forward   log mean exp(l),  on flow draws        reverse   -log mean exp(-l),  on target draws
    bridge    the root r of  s2 mean_flow sigmoid(c + l - r) = s1 mean_target sigmoid(r - c - l),  c = log(s1 / s2)

with shares s1 of target draws and s2 of flow draws: each is an estimate (log Z, standard error). Meng & Wong,
Statistica Sinica 6 (1996); errors of Frühwirth-Schnatter, Econometrics Journal 7 (2004).
"""

from typing import cast

import jax
import numpy as np
from scipy.optimize import root_scalar
from scipy.special import expit

from flowmcmc.base import Array, Flow, LogDensity, PyTree
from flowmcmc.ground.compiling import compile_for

__all__ = [
    "bridge",
    "effective_fraction",
    "flow_draws",
    "flow_log_weights",
    "forward",
    "log_mean_exp",
    "reverse",
    "tail_shape",
    "target_log_weights",
]

WEIGHT_BATCH = 2000  # positions at once, to bound memory


def flow_log_weights(rng_key: Array, logdensity_fn, flow: Flow, params, num_draws: int) -> np.ndarray:
    """Log weights log p - log q of fresh flow draws, (n,)."""
    return np.asarray(flow_draws(rng_key, logdensity_fn, flow, params, num_draws)[1], float)


def flow_draws(rng_key: Array, logdensity_fn, flow: Flow, params, num_draws: int) -> tuple[PyTree, Array]:
    """Fresh flow draws, leaves (n, ...), and their log p - log q (n,)."""
    return compile_for(weigh_flow, logdensity_fn, static=(flow,))(jax.random.split(rng_key, num_draws), params)


def target_log_weights(draws, logdensity_fn, flow: Flow, params) -> np.ndarray:
    """Log weights log p - log q of draws of the target, (chain, draw)."""
    return np.asarray(compile_for(weigh_target, logdensity_fn, static=(flow,))(draws, params), float)


def weigh_flow(flow: Flow, logdensity_fn: LogDensity, rng_keys: Array, params: PyTree) -> tuple[PyTree, Array]:
    """A draw of the flow for each key, and its log weight."""

    def one(rng_key):
        position, log_prob = flow.sample_and_log_prob(rng_key, params)
        return position, logdensity_fn(position) - log_prob

    return jax.lax.map(one, rng_keys, batch_size=WEIGHT_BATCH)


def weigh_target(flow: Flow, logdensity_fn: LogDensity, draws: PyTree, params: PyTree) -> Array:
    """Log weights (chain, draw) of draws (chain, draw, ...)."""
    shape = jax.tree.leaves(draws)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)
    weigh = lambda position: logdensity_fn(position) - flow.log_prob(params, position)
    return jax.lax.map(weigh, flat, batch_size=WEIGHT_BATCH).reshape(shape)


def forward(log_weights: np.ndarray) -> tuple[float, float]:
    """log Z as the log of the mean weight, and its error to first order."""
    value = log_mean_exp(log_weights)
    return value, float(np.std(np.exp(log_weights - value)) / np.sqrt(log_weights.size))


def reverse(log_weights: np.ndarray) -> tuple[float, float]:
    """log Z as -log mean exp(-l) over draws (chain, draw), and its error, autocorrelation included.

    Both are unreliable where the flow has the heavier tails, and then the value is mostly too high.
    """
    value = -log_mean_exp(-log_weights)
    return value, relative_error(np.exp(value - log_weights))


def bridge(on_flow: np.ndarray, on_target: np.ndarray) -> tuple[float, float]:
    """log Z by the optimal bridge, and its error; target draws count by their effective number."""
    finite = np.where(np.isfinite(on_target), on_target, np.max(on_target[np.isfinite(on_target)]))
    effective = min(effective_draws(finite), finite.size)
    # any share is consistent, this one most precise; far below 0.1 target draws could not contradict the flow's
    share = max(0.1, effective / (effective + on_flow.size))
    log_odds = np.log(share / (1 - share))

    def excess(log_r):
        ends = expit(log_odds + on_flow - log_r).mean(), expit(log_r - log_odds - on_target).mean()
        return (1 - share) * ends[0] - share * ends[1]

    # `excess` is monotone and its root is the fixed point of Meng and Wong's iteration. The search starts at the median
    # and only bisects: log weights reach -3e38, and far out the function is flat, where interpolation makes no progress
    centre, width = np.median(finite), 1.0
    while excess(centre - width) < 0 or excess(centre + width) > 0:
        width *= 2
    ends = centre - width, centre + width
    log_z = float(root_scalar(excess, bracket=ends, method="bisect", xtol=1e-10, maxiter=1000).root)
    on_flow, on_target = expit(log_odds + on_flow - log_z), expit(log_z - log_odds - on_target)
    flow_error = on_flow.std() / on_flow.mean() / np.sqrt(on_flow.size)
    return log_z, float(np.hypot(flow_error, relative_error(on_target)))


def log_mean_exp(values: np.ndarray) -> float:
    """log of the mean of exp(values), over all of them."""
    return float(np.logaddexp.reduce(values, axis=None) - np.log(values.size))


def relative_error(values: np.ndarray) -> float:
    """Standard error of the mean of positive values (chain, draw), over the mean."""
    return float(np.std(values) / np.mean(values) / np.sqrt(effective_draws(values)))


def effective_draws(values: np.ndarray) -> float:
    """Effective number of the draws (chain, draw); all of them if the values differ by rounding only."""
    from arviz_stats.base.array import array_stats

    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return float(values.size)
    return float(cast(float, array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")))


def effective_fraction(log_weights: np.ndarray) -> float:
    """(sum w)^2 / (n sum w^2); 0 if every weight is zero."""
    if not np.isfinite(log_weights).any():
        return 0.0
    return float(np.exp(2 * log_mean_exp(log_weights) - log_mean_exp(2 * log_weights)))


def tail_shape(log_weights: np.ndarray) -> float:
    """Pareto k of the largest weights (Vehtari et al., arXiv 1507.02646); inf if every weight is zero."""
    from arviz_stats.base.array import array_stats

    finite = log_weights[np.isfinite(log_weights)]
    if not finite.size:
        return np.inf
    # arviz takes log likelihoods, the negative log weights of leave-one-out
    return float(array_stats.psislw(finite.max() - finite)[1]) if len(np.unique(finite)) > 5 else 0.0
