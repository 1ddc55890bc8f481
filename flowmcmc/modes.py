"""Finding modes by clustering draws: a Gaussian mixture, whose overlapping components are one mode.

Two components belong together if the fitted density along the segment between their means never falls below half its
lower end; chains of such pairs make a mode, so that a ring or a banana is one. A group of components with less than one
draw in a hundred is a tail, not a mode, and joins the others: name rarer modes yourself.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.csgraph import connected_components

from flowmcmc.flows.em import fit_mixture
from flowmcmc.flows.mixture import Mixture, component_log_probs, standard

__all__ = ["find_modes"]

MAX_COMPONENTS = 24
MAX_ROWS = 6000
DIP = np.log(2.0)
MIN_WEIGHT = 0.01


def find_modes(draws: np.ndarray, *, rng_key=0) -> np.ndarray:
    """Label the rows of `draws` (n, d) with integers 0, 1, ..., the commonest mode first.

    Parameters
    ----------
    draws
        Pooled over chains.
    rng_key
        An int seed or JAX key; at most 6000 rows, picked with it, take part in the fit.
    """
    from flowmcmc.run import as_key

    key_rows, key_fit = jax.random.split(as_key(rng_key))
    scale = np.where(draws.std(0) > 0, draws.std(0), 1.0)
    points = (draws - draws.mean(0)) / scale
    points = jnp.asarray(points, jnp.result_type(float))
    rows = points[jax.random.permutation(key_rows, len(points))[:MAX_ROWS]]
    rows, heldout = rows[len(rows) // 4 :], rows[: max(1, len(rows) // 4)]
    start = standard(MAX_COMPONENTS, points.shape[1], points.dtype)
    ones = jnp.ones(len(rows), points.dtype), jnp.ones(len(heldout), points.dtype)
    mixture = jax.jit(fit_mixture)(key_fit, rows, ones[0], heldout, ones[1], start)
    used = np.flatnonzero(np.exp(np.asarray(mixture.log_weights)) > 1e-3)
    mixture = Mixture(*(leaf[used] for leaf in mixture))
    _, mode_of = connected_components(touching(mixture), directed=False)
    mass = np.bincount(mode_of, weights=np.exp(np.asarray(mixture.log_weights)))
    is_mode = jnp.asarray((mass >= MIN_WEIGHT)[mode_of])
    joint = jax.jit(jax.vmap(lambda z: jnp.where(is_mode, component_log_probs(mixture, z), -jnp.inf)))(points)
    _, labels = np.unique(mode_of[np.asarray(jnp.argmax(joint, axis=1))], return_inverse=True)
    order = np.argsort(-np.bincount(labels), kind="stable")
    return np.argsort(order)[labels]


def touching(mixture: Mixture) -> np.ndarray:
    """Which pairs of components have no dip of the density between their means, (K, K) booleans."""
    steps = jnp.linspace(0.0, 1.0, 21)
    density = jax.jit(jax.vmap(lambda z: jax.nn.logsumexp(component_log_probs(mixture, z))))

    def has_no_dip(a, b):
        along = np.asarray(density(a + steps[:, None] * (b - a)))
        return along.min() > min(along[0], along[-1]) - DIP

    means = mixture.means
    return np.array([[has_no_dip(a, b) for b in means] for a in means])
