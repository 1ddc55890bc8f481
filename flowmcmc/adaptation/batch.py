"""What a training loss reads, and the default one; the others are in `flowmcmc.losses`."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array, Flow, LogDensity, PyTree

__all__ = ["Batch", "Loss", "forward_kl"]


class Batch(NamedTuple):
    """What a loss may read.

    Attributes
    ----------
    positions
        States of the training chains, recent and older, (n, ...).
    pool, pool_log_weights
        The last pools of `isir`, (chains, N + 1, ...) and (chains, N + 1); for `imh` the last proposals, (chains, ...).
    """

    positions: PyTree
    pool: PyTree
    pool_log_weights: Array | None


Loss = Callable[[Array, PyTree, Batch, Flow, LogDensity], Array]
"""``(rng_key, params, batch, flow, logdensity_fn) -> scalar``, see `Batch`."""


def forward_kl(rng_key: Array, params: PyTree, batch: Batch, flow: Flow, logdensity_fn: LogDensity) -> Array:
    """Mean of -log q over the chain states: the forward Kullback-Leibler divergence up to a constant, in nats.

    Reference: Gabrié, Rotskoff and Vanden-Eijnden, arXiv 2105.12603.

    Parameters
    ----------
    rng_key, logdensity_fn
        Not used here.
    params, flow
        The density in training.
    batch
        Its `positions` are read.

    Returns
    -------
    Array
        A scalar, the mean over the batch.
    """
    return -jnp.mean(jax.vmap(flow.log_prob, (None, 0))(params, batch.positions))
