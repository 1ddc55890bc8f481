r"""What the flow is trained to minimise.

A loss is ``(rng_key, params, batch, flow, logdensity_fn) -> scalar``::

    forward_kl       -E_p[log q]              chain states as draws of p (arXiv 2105.12603)
    pool_forward_kl  -E sum_i w_i log q(y_i)  the pools of i-SIR, Rao-Blackwellised (Samsonov et al., arXiv 2111.02702)
    reverse_kl       E_q[log q - log p]       needs no draws of p, but forgets modes: mix it in, never use it alone
    mixture          sum_j c_j loss_j
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from flowmcmc.adaptation.batch import Batch, Loss, forward_kl
from flowmcmc.base import Array, Flow, LogDensity, PyTree
from flowmcmc.ground.arguments import check_callables, describe_value

__all__ = ["Batch", "Loss", "forward_kl", "mixture", "pool_forward_kl", "reverse_kl"]


def pool_forward_kl(rng_key: Array, params: PyTree, batch: Batch, flow: Flow, logdensity_fn: LogDensity) -> Array:
    """Forward KL over every i-SIR candidate, weighted with the probability of being chosen.

    Reference: Samsonov et al., arXiv 2111.02702.

    Parameters
    ----------
    rng_key, logdensity_fn
        Not used here.
    params, flow
        The density in training.
    batch
        Its pools are read.

    Returns
    -------
    Array
        A scalar, the mean over chains of -sum_i w_i log q(y_i), in nats.

    Raises
    ------
    ValueError
        If the flow kernel has no pools (`imh`).
    """
    if batch.pool_log_weights is None or batch.pool_log_weights.ndim < 2:
        raise ValueError("pool_forward_kl needs the pools of i-SIR: pass flow_kernel=flowmcmc.isir.")
    log_prob = jax.vmap(jax.vmap(flow.log_prob, (None, 0)), (None, 0))(params, batch.pool)
    weights = jax.nn.softmax(batch.pool_log_weights, axis=1)
    # 0 * -inf, a candidate of weight zero far outside, must not poison the sum
    terms = jnp.where(weights > 0, weights * log_prob, 0.0)
    return -jnp.mean(jnp.sum(terms, axis=1))


def reverse_kl(rng_key: Array, params: PyTree, batch: Batch, flow: Flow, logdensity_fn: LogDensity) -> Array:
    """Mean of log q - log p over fresh draws of the flow, as many as chain states in the batch.

    Reference: Rezende and Mohamed, arXiv 1505.05770.

    Parameters
    ----------
    rng_key
        For the draws.
    params, flow
        The density in training.
    batch
        Only its size is read.
    logdensity_fn
        log p of one position, up to a constant.

    Returns
    -------
    Array
        A scalar, the reverse Kullback-Leibler divergence up to the constant log Z, in nats.
    """
    keys = jax.random.split(rng_key, jax.tree.leaves(batch.positions)[0].shape[0])
    positions, log_prob = jax.vmap(flow.sample_and_log_prob, (0, None))(keys, params)
    return jnp.mean(log_prob - jax.vmap(logdensity_fn)(positions))


def mixture(*terms: tuple[float, Loss]) -> Loss:
    """Weighted sum of losses.

    Parameters
    ----------
    *terms
        Pairs of a coefficient and a loss.

    Returns
    -------
    Loss
        ``(rng_key, params, batch, flow, logdensity_fn) -> scalar``, the sum of coefficient times loss.

    Raises
    ------
    TypeError
        If a term is not a pair of a number and a function.
    ValueError
        If there are no terms, or a coefficient is not finite.

    Example
    -------
    >>> loss = mixture((0.6, pool_forward_kl), (0.4, reverse_kl))  # the weights of arXiv 2111.02702
    """
    if not terms:
        raise ValueError("mixture needs at least one (weight, loss) pair, got none.")
    for term in terms:
        check_term(term)

    def loss(rng_key, params, batch, flow, logdensity_fn):
        keys = jax.random.split(rng_key, len(terms))
        values = [
            coefficient * term(key, params, batch, flow, logdensity_fn) for key, (coefficient, term) in zip(keys, terms)
        ]
        return sum(values[1:], values[0])

    return loss


def check_term(term) -> None:
    """Raise TypeError or ValueError unless it is a finite number and a loss."""
    if not isinstance(term, (tuple, list)) or len(term) != 2:
        raise TypeError(f"mixture takes pairs such as (0.6, forward_kl); got {describe_value(term)}.")
    coefficient, loss = term
    is_number = isinstance(coefficient, (int, float, np.number, jax.Array)) and not isinstance(coefficient, bool)
    if not is_number or jnp.ndim(coefficient):
        raise TypeError(f"the coefficient of a mixture must be one number, got {describe_value(coefficient)}.")
    if not isinstance(coefficient, Tracer) and not np.isfinite(coefficient):
        raise ValueError(f"the coefficient of a mixture must be finite, got {coefficient}.")
    check_callables({"the loss of a mixture": loss}, "flowmcmc.losses.forward_kl")
