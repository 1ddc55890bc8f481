"""One round of the sampler on all chains: L local steps, then K flow proposals, with everything learned held fixed.

Warm-up (`adaptive`) and production (`freeze`) both run this; only warm-up changes the `Tuning` between rounds.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_callables, check_counts, check_flow_type, check_has, check_local, hashable
from flowmcmc.ground.compiling import as_partial
from flowmcmc.ground.sharding import on_chains
from flowmcmc.kernels.compose import cycle, vmap_chains
from flowmcmc.kernels.imh import imh
from flowmcmc.kernels.scaled import count_divergences, scaled_kernel

__all__ = ["FrozenState", "RoundInfo", "RoundSteps", "Tuning", "freeze", "take_round", "with_tuning"]


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
    """

    logdensity: Array
    local_acceptance_rate: Array
    flow_acceptance_rate: Array
    num_flow_accepted: Array
    num_flow_invalid: Array
    num_diverging: Array


class FrozenState(NamedTuple):
    """Positions, chain axis first, and the tuning that does not change."""

    position: PyTree
    tuning: Tuning


class RoundSteps(NamedTuple):
    """What a round is made of: so many steps of the `local` kernel, then so many of ``flow_kernel(density, flow)``."""

    local: LocalKernel
    flow: Flow | None
    num_local_steps: int
    num_flow_steps: int
    flow_kernel: Callable


def freeze(
    logdensity_fn: LogDensity,
    local: LocalKernel,
    flow: Flow | None,
    tuning: Tuning,
    *,
    num_local_steps: int = 5,
    num_flow_steps: int = 5,
    flow_kernel: Callable = imh,
) -> SamplingAlgorithm:
    """End adaptation: a Markov kernel on all chains that leaves the target invariant.

    Parameters
    ----------
    logdensity_fn, local, flow, num_local_steps, num_flow_steps, flow_kernel
        As in `flowmcmc.adaptive`.
    tuning
        ``state.tuning`` of `adaptive`; any other flow parameters, step size and scale do too.

    Returns
    -------
    SamplingAlgorithm
        ``init(positions, rng_key=None)`` and ``step``, whose info is a `RoundInfo`.

    Raises
    ------
    TypeError, ValueError
        If a round would do nothing, or an argument is not what it should be.
    """
    steps = check_steps(local, flow, num_local_steps, num_flow_steps, flow_kernel)
    check_has("tuning", tuning, Tuning._fields, "a Tuning, say state.tuning of adaptive")
    step = Partial(hashable(partial(take_frozen_round, steps)), as_partial(logdensity_fn))
    return SamplingAlgorithm(Partial(frozen_state, tuning), step)


def frozen_state(tuning: Tuning, positions: PyTree, rng_key: Array | None = None) -> FrozenState:
    """The `init` of `freeze`."""
    return FrozenState(positions, tuning)


def with_tuning(frozen: SamplingAlgorithm, tuning: Tuning) -> SamplingAlgorithm:
    """The same rounds, compiled if they were, with another tuning."""
    return frozen._replace(init=Partial(frozen_state, tuning))


def take_frozen_round(steps: RoundSteps, logdensity_fn: LogDensity, rng_key: Array, state: FrozenState):
    """The step of `freeze`."""
    positions, info, _ = take_round(rng_key, state.position, state.tuning, logdensity_fn, steps)
    return FrozenState(on_chains(positions), state.tuning), info


def take_round(
    rng_key: Array, positions: PyTree, tuning: Tuning, logdensity_fn: LogDensity, steps: RoundSteps
) -> tuple[PyTree, RoundInfo, tuple]:
    """New positions, a `RoundInfo`, and the last step's flow proposals with their log weights (None without any)."""
    parts = []
    if steps.num_local_steps:
        kernel = scaled_kernel(steps.local, logdensity_fn, tuning.step_size, tuning.scale, tuning.params)
        parts.append((kernel, steps.num_local_steps))
    if steps.num_flow_steps:
        parts.append((steps.flow_kernel(logdensity_fn, steps.flow, tuning.params), steps.num_flow_steps))
    ensemble = vmap_chains(cycle(*parts))
    state, info = ensemble.step(rng_key, ensemble.init(positions))
    missing = jnp.full(jax.tree.leaves(positions)[0].shape[0], jnp.nan)
    zero = jnp.zeros(missing.shape, jnp.int32)
    local_rate, diverging = missing, zero
    if steps.num_local_steps:
        local_info = info.parts[0]
        if (rates := getattr(local_info, "acceptance_rate", None)) is not None:
            local_rate = jnp.mean(jnp.where(jnp.isnan(rates), 0.0, rates), axis=1)
        diverging = jax.vmap(count_divergences)(local_info)
    if not steps.num_flow_steps:
        logdensity = jax.vmap(logdensity_fn)(state.position)
        return state.position, RoundInfo(logdensity, local_rate, missing, zero, zero, diverging), (None, None)
    flow_info = info.parts[-1]
    round_info = RoundInfo(
        flow_info.logdensity[:, -1],
        local_rate,
        jnp.mean(flow_info.acceptance_rate, axis=1),
        jnp.sum(flow_info.is_accepted, axis=1, dtype=jnp.int32),
        jnp.sum(flow_info.num_invalid, axis=1, dtype=jnp.int32),
        diverging,
    )
    proposals = jax.tree.map(lambda leaf: leaf[:, -1], (flow_info.proposal, flow_info.proposal_log_weight))
    return state.position, round_info, proposals


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
