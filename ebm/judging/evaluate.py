r"""Comparison with the truth: mode weights by importance sampling, divergence from a known density.

W_k = sum_i w_i 1[x_i in mode k] / sum_i w_i        KL(p* | p_theta) = E_{p*}[log p*(x) - log p_theta(x)]
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ebm.judging.planar import DENSITY_BATCH, Grid, checked_labels, grid, grid_mode_weights, log_densities
from ebm.model import Model
from flowmcmc import Flow
from flowmcmc.base import Array, num_chains
from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.conversions import as_key
from flowmcmc.reading.weights import effective_fraction, tail_shape

__all__ = ["Grid", "ImportanceModeWeights", "grid", "grid_mode_weights", "kl_divergence", "mode_weights_importance"]


class ImportanceModeWeights(NamedTuple):
    """`weights` of the modes and their standard `errors` (modes,); `ess` as a fraction and `pareto_k` of the draws'
    weights. A mode that the flow lost has weight and error zero: compare with chains."""

    weights: np.ndarray
    errors: np.ndarray
    ess: float
    pareto_k: float


def mode_weights_importance(
    rng_key,
    model: Model,
    theta: Any,
    flow: Flow,
    params: Any,
    labels: Callable,
    num_modes: int,
    *,
    num_draws: int = 10_000,
) -> ImportanceModeWeights:
    """Self-normalised importance weights of the modes, from flow draws.

    Self-normalised importance sampling: Geweke (1989). Pareto k: Vehtari et al., arXiv 1507.02646.

    Parameters
    ----------
    rng_key
        A key or int seed.
    model, theta
        An energy with its tilt, and parameters.
    flow, params
        A normalised density that covers the model.
    labels
        Positions, leaves (n, ...), to integers (n,) in [0, num_modes).
    num_modes
        How many.
    num_draws
        Flow draws.

    Returns
    -------
    ImportanceModeWeights
        ``weights`` (num_modes,), fractions that sum to one, and their standard ``errors`` (num_modes,); ``ess``, a
        fraction of `num_draws`, and ``pareto_k``.

    Raises
    ------
    ValueError
        If `labels` returns anything else, or no draw has a finite weight.
    """
    check_counts({"num_draws": num_draws, "num_modes": num_modes})
    positions, log_weights = weighted_draws(as_key(rng_key), model, theta, flow, params, num_draws)
    found = checked_labels(labels, positions, num_draws)
    if found.max() >= num_modes:
        raise ValueError(f"labels returned {found.max()}, but num_modes is {num_modes}: labels start at 0.")
    log_weights = np.asarray(log_weights, float)
    log_weights = np.where(log_weights < np.inf, log_weights, -np.inf)
    if not np.isfinite(log_weights).any():
        raise ValueError("no flow draw has a finite weight: train the flow on draws of the model.")
    shares = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    is_in = found[:, None] == np.arange(num_modes)
    weights = shares @ is_in
    errors = np.sqrt(shares**2 @ (is_in - weights) ** 2)  # to first order, for a ratio of means
    return ImportanceModeWeights(weights, errors, effective_fraction(log_weights), tail_shape(log_weights))


@partial(jax.jit, static_argnums=(1, 3, 5))
def weighted_draws(rng_key, model, theta, flow, params, num_draws):
    """Flow draws, leaves (num_draws, ...), and their log weights."""

    def one(key):
        position, log_prob = flow.sample_and_log_prob(key, params)
        return position, model.logdensity(theta, position) - log_prob

    return jax.lax.map(one, jax.random.split(rng_key, num_draws), batch_size=DENSITY_BATCH)


def kl_divergence(
    true_logdensity: Callable[[Any], Array], draws: Any, model: Model, theta: Any, log_z: float
) -> tuple[float, float]:
    """KL(p* | p_theta) in nats and its Monte Carlo error, which leaves out the error of `log_z`.

    Reference: Kullback and Leibler (1951).

    Parameters
    ----------
    true_logdensity
        log p*, normalised, of one position.
    draws
        Independent draws of p*, leaves (n, ...); not those that the model was trained on.
    model, theta
        An energy with its tilt, and parameters.
    log_z
        Of the model, nats.

    Returns
    -------
    tuple of float
        The divergence and its standard error, in nats.

    Raises
    ------
    ValueError
        If there are fewer than two draws.
    """
    num = num_chains(draws)
    if num < 2:
        raise ValueError(f"draws must hold at least 2 positions, got {num}.")
    difference = np.asarray(jax.jit(jax.vmap(true_logdensity))(draws)) - np.asarray(log_densities(model, theta, draws))
    return float(difference.mean() + log_z), float(difference.std() / np.sqrt(num))
