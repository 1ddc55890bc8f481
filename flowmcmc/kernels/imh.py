r"""Independent Metropolis-Hastings with a normalizing flow as the proposal.

With target p and flow q, a draw y ~ q replaces x with probability

    a(x, y) = min(1, w(y) / w(x)),    w(x) = p(x) / q(x).

The log weight of the current position is cached, so that a step costs one pass of the flow and one density.
Reference: Gabrié, Rotskoff, Vanden-Eijnden, arXiv 2105.12603.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array, Flow, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_flow_type

__all__ = ["IMHInfo", "IMHState", "imh", "imh_init", "importance_weight"]


class IMHState(NamedTuple):
    """Position, its log density, and its log importance weight log p - log q (also the state of `isir`)."""

    position: PyTree
    logdensity: Array
    log_weight: Array


class IMHInfo(NamedTuple):
    """What one step did.

    Attributes
    ----------
    acceptance_rate
        Probability with which the proposal was to be accepted.
    is_accepted
        Whether it was.
    num_invalid
        1 if the proposal, its density or its flow density was NaN or +inf (it is then rejected), else 0.
    logdensity
        Log density of the position after the step.
    proposal
        The proposed position.
    proposal_log_weight
        Its log weight, -inf where invalid.
    """

    acceptance_rate: Array
    is_accepted: Array
    num_invalid: Array
    logdensity: Array
    proposal: PyTree
    proposal_log_weight: Array


def imh(logdensity_fn: LogDensity, flow: Flow, params: PyTree) -> SamplingAlgorithm:
    """Independent Metropolis-Hastings as a BlackJAX ``SamplingAlgorithm`` (Gabrié et al., arXiv 2105.12603).

    Parameters
    ----------
    logdensity_fn
        Unnormalised log density of one position; returns a scalar.
    flow
        The proposal.
    params
        Its parameters, fixed: leaving the target invariant needs a proposal that does not learn from this chain.

    Returns
    -------
    SamplingAlgorithm
        ``init(position, rng_key=None) -> IMHState`` and ``step(rng_key, state) -> (IMHState, IMHInfo)`` for one chain.
        From a start of zero density the first valid proposal is accepted. A NaN or infinite proposal is rejected and
        counted.

    Example
    -------
    >>> algorithm = imh(logdensity_fn, flow, params)
    >>> state = algorithm.init(position)
    >>> state, info = algorithm.step(rng_key, state)
    """
    check_flow_type(flow)

    def init_fn(position, rng_key=None):
        return imh_init(position, logdensity_fn, flow, params)

    def step_fn(rng_key, state):
        key_proposal, key_accept = jax.random.split(rng_key)
        position, log_prob = flow.sample_and_log_prob(key_proposal, params)
        logdensity, log_weight, is_invalid = importance_weight(position, logdensity_fn(position), log_prob)
        log_ratio = log_weight - state.log_weight  # NaN, from -inf - -inf, means stay
        acceptance_rate = jnp.where(jnp.isnan(log_ratio), 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0)))
        is_accepted = jax.random.uniform(key_accept, dtype=acceptance_rate.dtype) < acceptance_rate
        proposed = IMHState(position, logdensity, log_weight)
        new_state = jax.tree.map(lambda new, old: jnp.where(is_accepted, new, old), proposed, state)
        num_invalid = is_invalid.astype(jnp.int32)
        return new_state, IMHInfo(acceptance_rate, is_accepted, num_invalid, new_state.logdensity, position, log_weight)

    return SamplingAlgorithm(init_fn, step_fn)


def imh_init(position: PyTree, logdensity_fn: LogDensity, flow: Flow, params: PyTree) -> IMHState:
    """State at `position`, with the log weight computed from the flow as it is now."""
    logdensity = logdensity_fn(position)
    log_weight = logdensity - flow.log_prob(params, position)
    # where its density is NaN the flow cannot propose this position either: the chain must wait for a local step
    log_weight = jnp.where(jnp.isnan(log_weight), jnp.inf, log_weight)
    # a start where the target is NaN or infinite counts as zero density, so that the chain can leave it
    return IMHState(position, logdensity, jnp.where(jnp.isfinite(logdensity), log_weight, -jnp.inf))


def importance_weight(position: PyTree, logdensity: Array, log_prob: Array) -> tuple[Array, Array, Array]:
    """Log density and log weight of one flow draw, and whether it is invalid, which makes its weight zero."""
    is_finite = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(position)]).all()
    log_weight = logdensity - log_prob
    is_invalid = ~is_finite | ~jnp.isfinite(log_prob) | jnp.isnan(log_weight) | (log_weight == jnp.inf)
    return logdensity, jnp.where(is_invalid, -jnp.inf, log_weight), is_invalid
