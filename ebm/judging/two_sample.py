r"""Two-sample tests: a kernel distance with its permutation test, and the accuracy of a classifier.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),   k(a, b) = exp(-|a - b|^2 / (2 h^2))

Gretton et al., JMLR 13 (2012); Lopez-Paz & Oquab, arXiv 1610.06545. Both take independent draws: thin chains first, or
the tests find differences where there are none.
"""

from typing import Any

import jax
import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist, squareform

from flowmcmc.base import num_chains
from flowmcmc.ground.arguments import describe_value
from flowmcmc.ground.conversions import as_key

__all__ = ["c2st", "mmd"]


def mmd(x: Any, y: Any, *, bandwidth: float | None = None, rng_key, num_permutations: int = 200) -> tuple[float, float]:
    """Unbiased squared MMD with a Gaussian kernel, and its p-value by permutation: Gretton et al. (2012).

    Memory grows with the square of the number of positions: pass a few thousand.

    Parameters
    ----------
    x, y
        Positions, leaves (n, ...) and (m, ...).
    bandwidth
        h in units of positions; None takes the median distance.
    rng_key
        A key or int seed, for the permutations.
    num_permutations
        The smallest possible p-value is 1 / (1 + num_permutations).

    Returns
    -------
    tuple of float
        The squared distance, without units (it can be slightly negative), and the p-value in (0, 1].

    Raises
    ------
    ValueError
        If the samples are too small or of different shape, or an option is not positive.
    """
    x, y = flatten_sample(x, "x"), flatten_sample(y, "y")
    check_pair(x, y)
    if num_permutations < 1:
        raise ValueError(f"num_permutations must be at least 1, got {num_permutations}.")
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}; None takes the median distance.")
    distances = pdist(np.concatenate([x, y]), "sqeuclidean")
    square = np.median(distances) if bandwidth is None else bandwidth**2
    kernel = squareform(np.exp(-0.5 * distances / (square if square > 0 else 1.0)))  # zeros on the diagonal
    rng = numpy_generator(rng_key)
    is_x = np.zeros((len(kernel), 1 + num_permutations), kernel.dtype)
    is_x[: len(x)] = 1.0
    is_x[:, 1:] = rng.permuted(is_x[:, 1:], axis=0)
    to_x, total = kernel @ is_x, kernel.sum()
    within_x, across = (is_x * to_x).sum(0), ((1 - is_x) * to_x).sum(0)
    within_y = total - within_x - 2 * across
    n, m = len(x), len(y)
    values = within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * across / (n * m)
    # a permutation may be the identity up to rounding
    p_value = (1 + np.sum(values[1:] >= values[0] - 1e-12)) / (1 + num_permutations)
    return float(values[0]), float(p_value)


def c2st(rng_key, x: Any, y: Any, *, num_neighbours: int | None = None) -> tuple[float, float]:
    """Accuracy of a nearest-neighbour classifier on held-out halves; near 0.5 the samples cannot be told apart.

    Classifier two-sample test: Lopez-Paz and Oquab, arXiv 1610.06545.

    Parameters
    ----------
    rng_key
        A key or int seed, for the split.
    x, y
        Positions, leaves (n, ...); the larger sample is cut to the smaller.
    num_neighbours
        Neighbours that vote, an odd number; None takes the square root of the training set's size.

    Returns
    -------
    tuple of float
        The accuracy in [0, 1], and the standard error that it has if the laws are the same: 0.5 / sqrt(number tested).

    Raises
    ------
    ValueError
        If the samples are too small or of different shape, or `num_neighbours` is even or out of range.
    """
    x, y = flatten_sample(x, "x"), flatten_sample(y, "y")
    check_pair(x, y)
    rng = numpy_generator(rng_key)
    half = min(len(x), len(y)) // 2
    neighbours = 2 * int(np.sqrt(2 * half) / 2) + 1 if num_neighbours is None else num_neighbours
    if neighbours % 2 == 0 or not 1 <= neighbours <= 2 * half:
        raise ValueError(f"num_neighbours must be odd and at most {2 * half}, got {neighbours}.")
    x, y = rng.permutation(x)[: 2 * half], rng.permutation(y)[: 2 * half]
    train, test = (np.concatenate([x[part], y[part]]) for part in (slice(half), slice(half, None)))
    spread = train.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    nearest = KDTree(train / scale).query(test / scale, k=neighbours)[1].reshape(2 * half, neighbours)
    says_x = (nearest < half).mean(axis=1) > 0.5
    accuracy = np.mean(says_x == (np.arange(2 * half) < half))
    return float(accuracy), float(0.5 / np.sqrt(2 * half))


def flatten_sample(positions: Any, name: str) -> np.ndarray:
    """Positions as an array (n, d)."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(positions)]
    if not leaves or any(leaf.ndim == 0 or leaf.dtype.kind not in "biuf" or not leaf.size for leaf in leaves):
        raise ValueError(
            f"{name} must be arrays of numbers (n, ...) with n of 4 or more, got {describe_value(positions)}."
        )
    num = num_chains(positions)
    array = np.concatenate([np.asarray(leaf, float).reshape(num, -1) for leaf in jax.tree.leaves(positions)], axis=1)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds {int((~np.isfinite(array)).sum())} numbers that are NaN or infinite.")
    return array


def check_pair(x: np.ndarray, y: np.ndarray) -> None:
    """Raise unless both samples are of one shape, and more than a few."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must be positions of one shape, got {x.shape[1]} and {y.shape[1]} numbers in each.")
    if min(len(x), len(y)) < 4:
        raise ValueError(f"x and y must hold at least 4 positions each, got {len(x)} and {len(y)}.")


def numpy_generator(rng_key) -> np.random.Generator:
    """A NumPy generator seeded by a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng_key))))
