"""Finding modes by clustering draws: a Gaussian mixture, whose overlapping components are one mode.

With r_na the probability that draw n belongs to component a, two components belong together if

    sum_n min(r_na, r_nb) > 0.1 min(sum_n r_na, sum_n r_nb),

which for two equal normals means closer than 3.3 standard deviations. Chains of such pairs make a mode, so that a ring
or a banana is one. A group of components with less than one draw in a hundred is a tail, not a mode, and joins the
others: pass rarer modes to `mode_weights` yourself.
"""

import jax
import numpy as np
from scipy.sparse.csgraph import connected_components

from flowmcmc.flows.em import HostMixture, Rows, component_log_densities, search_mixture
from flowmcmc.ground.conversions import as_key

__all__ = ["find_modes"]

MAX_COMPONENTS = 24
MAX_CLUSTER_ROWS = 6000  # draws that the mixture is fitted to
MIN_OVERLAP = 0.1  # share of the smaller component above which two are one mode
MIN_WEIGHT = 0.01  # of a mode


def find_modes(draws: np.ndarray, *, rng_key=0) -> np.ndarray:
    """Label the rows of `draws` (n, d) with integers 0, 1, ..., the commonest mode first.

    Parameters
    ----------
    draws
        Pooled over chains.
    rng_key
        An int seed or JAX key; at most 6000 rows, picked with it, take part in the fit.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(as_key(rng_key))).ravel())
    scale = np.where(draws.std(0) > 0, draws.std(0), 1.0)
    points = np.asarray((draws - draws.mean(0)) / scale, float)
    rows = points[rng.permutation(len(points))[:MAX_CLUSTER_ROWS]]
    ones = np.ones(len(rows))
    num_heldout = max(1, len(rows) // 4)
    heldout, rows = (Rows(rows[part], ones[part]) for part in (slice(num_heldout), slice(num_heldout, None)))
    dim = points.shape[1]
    start = HostMixture(np.zeros(1), np.zeros((1, dim)), np.eye(dim)[None], np.eye(dim)[None])
    mixture = search_mixture(rng, rows, heldout, start, MAX_COMPONENTS)
    mixture = HostMixture(*(leaf[np.exp(mixture.log_weights) > 1e-3] for leaf in mixture))
    log_joint = component_log_densities(mixture, points).T
    responsibilities = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))
    _, mode_of = connected_components(overlap_matrix(responsibilities), directed=False)
    is_mode = (np.bincount(mode_of, weights=responsibilities.mean(axis=0)) >= MIN_WEIGHT)[mode_of]
    owner = np.argmax(np.where(is_mode, log_joint, -np.inf), axis=1)
    _, labels = np.unique(mode_of[owner], return_inverse=True)
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels]


def overlap_matrix(responsibilities: np.ndarray) -> np.ndarray:
    """Whether each pair of components overlaps, (K, K) booleans."""
    counts = responsibilities.sum(axis=0)
    shared = np.array([np.minimum(r[:, None], responsibilities).sum(axis=0) for r in responsibilities.T])
    return shared > MIN_OVERLAP * np.minimum(counts[:, None], counts[None])
