"""r-hat and effective sample size of the worst coordinate, from arrays: arviz's, and a quick one."""

import jax
import numpy as np

from flowmcmc.base import PyTree
from flowmcmc.ground.leaves import concatenate_coordinates

__all__ = ["MAX_RHAT", "quick_ess", "worst_ess", "worst_rhat"]

MAX_RHAT = 1.01  # Vehtari et al., arXiv 1903.08008


def quick_ess(positions: PyTree) -> float:
    """Effective draws of the worst coordinate from the spread of the chains' means, good to 15 % with 100 chains; NaN
    with one chain.

    Parameters
    ----------
    positions
        Leaves (draw, chain, ...).
    """
    rows = concatenate_coordinates(jax.tree.leaves(positions))
    if rows.shape[1] < 2:
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore"):
        found = rows.var(axis=(0, 1)) / rows.mean(axis=0).var(axis=0, ddof=1) * rows.shape[1]
    return float(np.min(found))


def worst_ess(positions: PyTree) -> float:
    """Bulk ESS of the worst coordinate (arXiv 1903.08008); NaN, which meets no target, with fewer than 4 draws."""
    return worst(positions, "ess", np.min)


def worst_rhat(positions: PyTree) -> float:
    """Rank-normalised split r-hat of the worst coordinate (arXiv 1903.08008); NaN with fewer than 4 draws."""
    return worst(positions, "rhat", np.max)


def worst(positions: PyTree, statistic: str, pick) -> float:
    """NaN if any coordinate's value is NaN."""
    from arviz_stats.base.array import array_stats  # takes seconds to import

    rows = concatenate_coordinates(jax.tree.leaves(positions))
    if len(rows) < 4:
        return float("nan")
    return float(pick(getattr(array_stats, statistic)(rows, chain_axis=1, draw_axis=0)))
