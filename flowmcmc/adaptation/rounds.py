"""One round of the sampler on all chains: L local steps, then K flow proposals, with everything learned held fixed.

Warm-up (`adaptive`), `freeze` and production (`production`) all run this; only warm-up changes the `Tuning` between
rounds. Kernel states (cached density, gradient, weight) are rebuilt from the position whenever a kernel takes over, so
that nothing cached can be stale; but the density of a chain's position is handed on, not evaluated again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, num_chains
from flowmcmc.ground.arguments import check_callables, check_counts, check_flow_type, check_local, hashable
from flowmcmc.kernels.scaled import count_divergences, count_evaluations, scaled_kernel

__all__ = ["Moves", "RoundInfo", "RoundSteps", "Tuning", "check_steps", "take_round", "total_evaluations"]


class Tuning(NamedTuple):
    """What warm-up learns and production holds fixed: flow `params`, local `step_size`, and the `scale` it is in."""

    params: PyTree
    step_size: Array
    scale: PyTree


class RoundInfo(NamedTuple):
    """What one round did, each with the chain axis.

    Attributes
    ----------
    logdensity
        At the end of the round.
    local_acceptance_rate, flow_acceptance_rate
        Mean over the round's steps of a kind; NaN where there are none, or the kernel reports no rate.
    num_flow_accepted
        Flow proposals accepted.
    num_flow_invalid
        Flow proposals rejected because they, or their density, were NaN or infinite.
    num_diverging
        Local steps with no chance of acceptance (NaN or zero density), or divergent.
    num_local_evaluations, num_flow_evaluations
        Of the density (with its gradient or without: that counts one) by steps of a kind.
    """

    logdensity: Array
    local_acceptance_rate: Array
    flow_acceptance_rate: Array
    num_flow_accepted: Array
    num_flow_invalid: Array
    num_diverging: Array
    num_local_evaluations: Array
    num_flow_evaluations: Array


def total_evaluations(rounds: RoundInfo) -> int:
    """Of the density, over all rounds and chains of a trace."""
    return int(np.sum(rounds.num_local_evaluations)) + int(np.sum(rounds.num_flow_evaluations))


class RoundSteps(NamedTuple):
    """What a round is made of: so many steps of the `local` kernel, then so many of ``flow_kernel(density, flow)``."""

    local: LocalKernel
    flow: Flow | None
    num_local_steps: int
    num_flow_steps: int
    flow_kernel: Callable


class Moves(NamedTuple):
    """What a round of production is made of: the probability `local_share` with which all chains first take their local
    steps, and how many flow steps follow. Neither depends on where chains are, so any mixture keeps the target."""

    local_share: Array
    num_flow_steps: Array


class Local(NamedTuple):
    """Of the local steps of a round, as in `RoundInfo`."""

    acceptance_rate: Array
    num_diverging: Array
    num_evaluations: Array


def take_round(
    rng_key: Array,
    positions: PyTree,
    logdensity: Array | None,
    tuning: Tuning,
    logdensity_fn: LogDensity,
    steps: RoundSteps,
    moves: Moves | None = None,
) -> tuple[PyTree, RoundInfo, tuple]:
    """New positions, a `RoundInfo`, and the last step's flow proposals with their log weights (None without any).

    `logdensity`, (chain,), is that of `positions` where it is known. `moves` None means all of `steps`.
    """
    chains = num_chains(positions)
    key_choice, key_local, key_flow = jax.random.split(rng_key, 3)
    known: Any = logdensity
    if logdensity is None and not steps.num_local_steps:
        known = jax.vmap(logdensity_fn)(positions)

    def move():
        keys = jax.random.split(key_local, chains)
        return jax.vmap(lambda key, position: local_steps(key, position, tuning, logdensity_fn, steps))(keys, positions)

    def rest():
        zero = jnp.zeros(chains, jnp.int32)
        return positions, known, Local(jnp.full(chains, jnp.nan, known.dtype), zero, zero)

    if not steps.num_local_steps:
        positions, known, local = rest()
    elif moves is None:
        positions, known, local = move()
    else:
        positions, known, local = jax.lax.cond(jax.random.uniform(key_choice) < moves.local_share, move, rest)
    if not steps.num_flow_steps:
        zero, missing = jnp.zeros(chains, jnp.int32), jnp.full(chains, jnp.nan, known.dtype)
        info = RoundInfo(
            known, local.acceptance_rate, missing, zero, zero, local.num_diverging, local.num_evaluations, zero
        )
        return positions, info, (None, None)
    num_flow_steps = steps.num_flow_steps if moves is None else moves.num_flow_steps

    def propose(key, position, value):
        return flow_steps(key, position, value, num_flow_steps, tuning, logdensity_fn, steps)

    keys = jax.random.split(key_flow, chains)
    positions, (rate, num_accepted, num_invalid), last = jax.vmap(propose)(keys, positions, known)
    num_proposed = max(1, last.proposal_log_weight[0].size - 1)  # the pool of i-SIR has the position itself
    info = RoundInfo(
        last.logdensity,
        local.acceptance_rate,
        rate / num_flow_steps,
        num_accepted,
        num_invalid,
        local.num_diverging,
        local.num_evaluations,
        jnp.full(chains, num_proposed * num_flow_steps, jnp.int32),
    )
    return positions, info, (last.proposal, last.proposal_log_weight)


def local_steps(rng_key: Array, position: PyTree, tuning: Tuning, logdensity_fn: LogDensity, steps: RoundSteps):
    """Local steps of one chain: its new position, the log density there, and a `Local`."""
    kernel = scaled_kernel(steps.local, logdensity_fn, tuning.step_size, tuning.scale, tuning.params)
    keys = jax.random.split(rng_key, 1 + steps.num_local_steps)
    state, info = jax.lax.scan(lambda state, key: kernel.step(key, state), kernel.init(position, keys[0]), keys[1:])
    # the kernel's own log density may be that of other coordinates
    logdensity = logdensity_fn(state.position)
    rates = getattr(info, "acceptance_rate", None)
    rate = jnp.array(jnp.nan) if rates is None else jnp.mean(jnp.where(jnp.isnan(rates), 0.0, rates))
    # one before the first step, one after the last
    num_evaluations = 2 + count_evaluations(info, steps.num_local_steps)
    return state.position, logdensity, Local(rate.astype(logdensity.dtype), count_divergences(info), num_evaluations)


def flow_steps(
    rng_key: Array,
    position: PyTree,
    logdensity: Array,
    num_steps: Array | int,
    tuning: Tuning,
    logdensity_fn: LogDensity,
    steps: RoundSteps,
):
    """Flow steps of one chain, whose log density is known: its new position; acceptance rates, acceptances and invalid
    proposals added up; and the last step's info."""
    kernel = steps.flow_kernel(logdensity_fn, steps.flow, tuning.params)
    begun = steps.flow_kernel(lambda position: logdensity, steps.flow, tuning.params).init(position)
    shapes = jax.eval_shape(kernel.step, rng_key, begun)[1]

    def step(index, carry):
        state, (rate, num_accepted, num_invalid), _ = carry
        state, info = kernel.step(jax.random.fold_in(rng_key, index), state)
        sums = rate + info.acceptance_rate, num_accepted + info.is_accepted, num_invalid + info.num_invalid
        return state, sums, info

    zero = jnp.zeros((), jnp.int32)
    sums = jnp.zeros((), shapes.acceptance_rate.dtype), zero, zero
    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    state, sums, last = jax.lax.fori_loop(0, num_steps, step, (begun, sums, nothing))
    return state.position, sums, last


def check_steps(
    local: LocalKernel, flow: Flow | None, num_local_steps: int, num_flow_steps: int, flow_kernel: Callable
) -> RoundSteps:
    """What a round is made of; raise unless it does something, with a flow if flow steps are asked for."""
    check_counts({"num_local_steps": num_local_steps, "num_flow_steps": num_flow_steps}, smallest=0)
    if num_local_steps + num_flow_steps == 0:
        raise ValueError("num_local_steps and num_flow_steps are both 0: a round would do nothing.")
    if flow is None and num_flow_steps:
        raise ValueError(f"flow is None, but num_flow_steps is {num_flow_steps}: pass a flow, or num_flow_steps=0.")
    if flow is not None:
        check_flow_type(flow)
    if num_local_steps:
        check_local(local)
    check_callables({"flow_kernel": flow_kernel}, "flowmcmc.imh")
    local, flow, flow_kernel = hashable(local), hashable(flow), hashable(flow_kernel)
    return RoundSteps(local, flow, int(num_local_steps), int(num_flow_steps), flow_kernel)
