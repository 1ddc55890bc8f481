"""What states tell of the shape of a density before any flow for it is compiled: products, and ridges."""

import jax
import numpy as np
from scipy.stats import differential_entropy

from flowmcmc.adaptation.reservoir import Reservoir, capacity
from flowmcmc.choosing.calibration import CLIP, DOUBT, FEW, PRODUCT, RIDGE
from flowmcmc.ground.leaves import concatenate_coordinates

__all__ = ["is_product", "is_ridge", "product_entropy", "product_threshold", "stored_states"]


def stored_states(memory: Reservoir) -> np.ndarray:
    """States in use, as rows (n, d) of doubles."""
    in_use = min(capacity(memory), int(memory.count))
    leaves = [np.asarray(leaf, float)[None, :in_use] for leaf in jax.tree.leaves(memory.positions)]
    return concatenate_coordinates(leaves)[0]


def product_entropy(rows: np.ndarray) -> float:
    """Loss, in nats, of a flow that knows how each coordinate of `rows` (n, d) is distributed, but of no dependence;
    by spacings of order statistics (Vasicek 1976). Infinite where values repeat, or are few."""
    if len(rows) < FEW:
        return float("inf")
    with np.errstate(divide="ignore"):
        found = float(np.sum(differential_entropy(rows)))
    return found if np.isfinite(found) else float("inf")


def is_product(rows: np.ndarray, loss: float, *, is_hopeless: bool) -> bool:
    """Whether mixtures of single coordinates promise to do better on `rows` (n, d) than a flow with this held-out loss,
    or, where that is hopeless, nearly as well."""
    return loss - product_entropy(rows) > (-DOUBT if is_hopeless else PRODUCT)


def product_threshold(rows: np.ndarray) -> float:
    """Held-out loss of a mixture fitted to `rows` (n, d) alone from which on more states will not save it: mixtures of
    single coordinates promise more, though one component falls short by d (d + 3) / (4 n) on so few."""
    num_rows, dim = rows.shape
    return product_entropy(rows) + PRODUCT + dim * (dim + 3) / (4 * num_rows)


def is_ridge(rows: np.ndarray) -> bool:
    """Whether some coordinate of `rows` (n, d) is a parabola of another, rather than a straight line, up to noise."""

    def standardised(columns):
        columns = columns - columns.mean(axis=0)
        return columns / np.maximum(np.sqrt((columns**2).mean(axis=0)), 1e-300)

    units = standardised(np.clip(standardised(rows), -CLIP, CLIP))
    squares = standardised(units**2)
    bent = standardised(squares - units * (squares * units).mean(axis=0))
    line, parabola = (columns.T @ units / len(rows) for columns in (units, bent))
    return bool(np.any((parabola**2 > RIDGE * (1 - line**2)) & ~np.eye(len(line), dtype=bool)))
