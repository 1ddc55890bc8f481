r"""Iterated sampling importance resampling: one step chooses among the current position and N fresh draws of the flow.

With y_0 = x, y_1..y_N ~ q and weights w(y) = p(y) / q(y), the next position is y_i with probability
w(y_i) / sum_j w(y_j). The target is invariant for every N. N = 1 is Barker's rule, not Metropolis', so `imh` is not
its special case. The pool and its weights also make a Rao-Blackwellised training set (`flowmcmc.losses`).
Reference: Andrieu, Lee, Vihola 2018; Samsonov et al., arXiv 2111.02702.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.base import Array, Flow, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_counts, check_flow_type
from flowmcmc.kernels.imh import IMHState, imh_init, importance_weight

__all__ = ["ISIRInfo", "isir"]


class ISIRInfo(NamedTuple):
    """What one step did; the names shared with `IMHInfo` mean the same.

    Attributes
    ----------
    acceptance_rate
        Probability with which the chain was to leave its position, 1 - w_0 / sum w.
    is_accepted
        Whether it left.
    num_invalid
        How many of the N draws were NaN or infinite; they get weight zero.
    logdensity
        Log density of the position after the step.
    proposal, proposal_log_weight
        The pool, N + 1 positions with the current one first, and its log weights.
    """

    acceptance_rate: Array
    is_accepted: Array
    num_invalid: Array
    logdensity: Array
    proposal: PyTree
    proposal_log_weight: Array


def isir(logdensity_fn: LogDensity, flow: Flow, params: PyTree, *, num_proposals: int = 16) -> SamplingAlgorithm:
    """Iterated sampling importance resampling as a BlackJAX ``SamplingAlgorithm``.

    Reference: Andrieu, Lee and Vihola (2018); with flow proposals Samsonov et al., arXiv 2111.02702.

    Parameters
    ----------
    logdensity_fn
        Unnormalised log density of one position; returns a scalar.
    flow, params
        The proposal and its fixed parameters.
    num_proposals
        N, fresh draws for each step (the pool has one more, the current position).

    Returns
    -------
    SamplingAlgorithm
        ``init(position, rng_key=None) -> IMHState`` and ``step(rng_key, state) -> (IMHState, ISIRInfo)`` for one chain.
        The info holds the pool of N + 1 positions and its log weights, in nats.

    Raises
    ------
    ValueError
        If `num_proposals` is below one.
    """
    check_counts({"num_proposals": num_proposals})
    check_flow_type(flow)

    def init_fn(position, rng_key=None):
        return imh_init(position, logdensity_fn, flow, params)

    def step_fn(rng_key, state):
        key_proposal, key_choice = jax.random.split(rng_key)
        positions, log_probs = jax.vmap(flow.sample_and_log_prob, (0, None))(
            jax.random.split(key_proposal, num_proposals), params
        )
        logdensities = jax.vmap(logdensity_fn)(positions)
        logdensities, log_weights, is_invalid = jax.vmap(importance_weight)(positions, logdensities, log_probs)
        pool = jax.tree.map(
            lambda current, fresh: jnp.concatenate([current[None], fresh]),
            state,
            IMHState(positions, logdensities, log_weights),
        )
        # Gumbel-max keeps index 0 when every weight is zero
        index = jax.random.categorical(key_choice, pool.log_weight)
        new_state = jax.tree.map(lambda leaf: leaf[index], pool)
        log_stay = state.log_weight - jax.nn.logsumexp(pool.log_weight)
        acceptance_rate = jnp.where(jnp.isnan(log_stay), 0.0, -jnp.expm1(jnp.minimum(log_stay, 0.0)))
        return new_state, ISIRInfo(
            acceptance_rate,
            index > 0,
            jnp.sum(is_invalid, dtype=jnp.int32),
            new_state.logdensity,
            pool.position,
            pool.log_weight,
        )

    return SamplingAlgorithm(init_fn, step_fn)
