r"""Particles of all stages of a search, weighed as draws of the mixture of the densities that they were drawn from.

    log w_b(x) = log pi_b(x) - log sum_s (n_s / n) pi_{b_s}(x) / Z_s,   pi_b = start^(1 - b) p^b

Karamanis and Seljak, arXiv 2407.20722.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.adaptation.training import HOLD_OUT
from flowmcmc.base import PyTree
from flowmcmc.ground.budget import Budget

__all__ = [
    "HOPELESS",
    "Found",
    "Kept",
    "ess_of",
    "log_mean",
    "log_weights",
    "next_beta",
    "raise_if_spent",
    "resample",
    "separate",
    "split",
    "tempered_density",
]

HOPELESS = -1e20  # log density of what cannot be: finite, so that zero times it is zero


class Found(NamedTuple):
    """What the search leaves: `positions` of the chains, other `particles` of the target, both with an axis first; the
    estimate `log_z` of its integral, nats; inverse temperatures; and evaluations of the density."""

    positions: PyTree
    particles: PyTree
    log_z: float
    tempering: np.ndarray
    num_evaluations: int


class Kept(NamedTuple):
    """All particles so far, NumPy arrays, particle axis first: `positions`, log densities of the target and of the
    start; of each stage the number of particles, its inverse temperature and log Z."""

    positions: PyTree
    target: np.ndarray
    start: np.ndarray
    numbers: tuple[int, ...]
    betas: tuple[float, ...]
    log_zs: tuple[float, ...]


def log_weights(kept: Kept, beta: float, mixture: np.ndarray | None = None) -> np.ndarray:
    """Of all particles at an inverse temperature, as in the module's equation; `mixture` saves `log_mixture`."""
    return tempered_density(kept, beta) - (log_mixture(kept) if mixture is None else mixture)


def log_mixture(kept: Kept) -> np.ndarray:
    """Log density, at all particles, of the mixture that they are draws of."""
    shares = np.log(np.array(kept.numbers) / sum(kept.numbers)) - np.array(kept.log_zs)
    return np.logaddexp.reduce([tempered_density(kept, b) + share for b, share in zip(kept.betas, shares)])


def tempered_density(kept: Kept, beta: float) -> np.ndarray:
    """Log densities of all particles at an inverse temperature; at 1 the start may be zero."""
    return kept.target if beta == 1 else beta * kept.target + (1 - beta) * kept.start


def log_mean(values: np.ndarray) -> float:
    """log of the mean of exp."""
    return float(np.logaddexp.reduce(values) - np.log(len(values)))


def ess_of(values: np.ndarray) -> float:
    """Effective sample size of log weights."""
    return float(np.exp(2 * np.logaddexp.reduce(values) - np.logaddexp.reduce(2 * values)))


def next_beta(kept: Kept, wanted: float) -> float:
    """The largest inverse temperature at which all particles have so many effective draws, by bisection."""
    low, high, mixture = kept.betas[-1], 1.0, log_mixture(kept)
    if ess_of(log_weights(kept, 1.0, mixture)) >= wanted:
        return 1.0
    while high - low > 1e-4 * high and high > 1e-30:
        middle = np.sqrt(max(low, 1e-3 * high) * high)  # of a range that starts at zero, a thousandth
        low, high = (middle, high) if ess_of(log_weights(kept, middle, mixture)) >= wanted else (low, middle)
    # the rounds know it in single precision
    return float(np.float32(low if low > kept.betas[-1] else high))


def resample(rng: np.random.Generator, values: np.ndarray, number: int) -> np.ndarray:
    """Indices of `number` particles, systematic resampling with these log weights, in random order."""
    share = np.cumsum(np.exp(values - np.logaddexp.reduce(values)))
    chosen = np.searchsorted(share / share[-1], (rng.random() + np.arange(number)) / number)
    return rng.permutation(np.minimum(chosen, len(values) - 1))


def separate(rng: np.random.Generator, chosen: np.ndarray, num_chains: int) -> np.ndarray:
    """The same indices in another random order, in which copies of one particle are all held out or all fitted to, as
    `training.remember` splits the chains and the others. Otherwise a fit would be judged by what it has seen."""
    index = np.concatenate([np.arange(num_chains), np.arange(len(chosen) - num_chains)])
    is_heldout = index % HOLD_OUT == HOLD_OUT - 1
    _, ancestor, counts = np.unique(chosen, return_inverse=True, return_counts=True)
    order = rng.permutation(len(counts))
    held_out = order[np.cumsum(counts[order]) <= is_heldout.sum()]
    is_first = np.isin(ancestor, held_out)
    rows = np.concatenate([rng.permutation(chosen[is_first]), rng.permutation(chosen[~is_first])])
    arranged = np.empty_like(rows)
    arranged[is_heldout], arranged[~is_heldout] = np.split(rows, [is_heldout.sum()])
    return arranged


def raise_if_spent(budget: Budget, reached: float) -> None:
    """End a search that has spent its budget at this inverse temperature."""
    if budget.share_spent >= 1:
        raise RuntimeError(
            f"{budget.nearest} was reached in the search, at {reached:.3g} of 1 of the tempering: there is nothing to "
            "return yet. Allow more, take fewer num_particles, or give starting positions."
        )


def split(particles: PyTree, num_chains: int) -> tuple[PyTree, PyTree]:
    """Those of the chains, and the others; they are in random order."""
    parts = slice(num_chains), slice(num_chains, None)
    chains, others = (jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), particles) for rows in parts)  # noqa: B023
    return chains, others
