"""Finding modes by clustering draws: a Gaussian mixture, whose overlapping components are one mode.

With r_na the probability that draw n belongs to component a, two components belong together if

    sum_n min(r_na, r_nb) > 0.1 min(sum_n r_na, sum_n r_nb),

which for two equal normals means closer than 3.3 standard deviations. Chains of such pairs make a mode, so that a ring
or a banana is one. A group of components with less than one draw in a hundred is a tail, not a mode, and joins the
others: pass rarer modes to `mode_weights` yourself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.csgraph import connected_components

from flowmcmc.flows.em import fit_mixture
from flowmcmc.flows.mixture import Mixture, component_log_probs, standard_mixture
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
    key_rows, key_fit = jax.random.split(as_key(rng_key))
    scale = np.where(draws.std(0) > 0, draws.std(0), 1.0)
    points = (draws - draws.mean(0)) / scale
    points = jnp.asarray(points, jnp.result_type(float))
    rows = points[jax.random.permutation(key_rows, len(points))[:MAX_CLUSTER_ROWS]]
    rows, heldout = rows[len(rows) // 4 :], rows[: max(1, len(rows) // 4)]
    start = standard_mixture(MAX_COMPONENTS, points.shape[1], points.dtype)
    ones = jnp.ones(len(rows), points.dtype), jnp.ones(len(heldout), points.dtype)
    mixture = jax.jit(fit_mixture)(key_fit, rows, ones[0], heldout, ones[1], start)
    used = np.flatnonzero(np.exp(np.asarray(mixture.log_weights)) > 1e-3)
    mixture = Mixture(*(leaf[used] for leaf in mixture))
    log_joint = np.asarray(jax.jit(jax.vmap(component_log_probs, (None, 0)))(mixture, points), float)
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
