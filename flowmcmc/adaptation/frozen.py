"""The end of adaptation: rounds of `adaptive` with everything learned held fixed.

`freeze` makes them of a fixed number of steps; its state holds nothing that depends on the target. `production`, which
`sample` draws with, keeps the log density of each chain's position and takes what a round is made of as an argument.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer
from jax.tree_util import Partial

from flowmcmc.adaptation.rounds import Moves, RoundSteps, Tuning, check_steps, take_round
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.arguments import check_has, hashable
from flowmcmc.ground.compiling import as_partial, compile_for
from flowmcmc.ground.sharding import on_chains
from flowmcmc.kernels.imh import imh

__all__ = ["FrozenState", "ProductionState", "freeze", "production", "with_tuning"]


AT_TARGET: Any = np.float32(1.0)  # inverse temperature of the target itself


class FrozenState(NamedTuple):
    """Positions, chain axis first, and the tuning that does not change."""

    position: PyTree
    tuning: Tuning


class ProductionState(NamedTuple):
    """Positions and their log densities, chain axis first; the tuning, the moves and the inverse temperature `beta`,
    which do not change."""

    position: PyTree
    logdensity: Array
    tuning: Tuning
    moves: Moves
    beta: Array


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


def take_frozen_round(steps: RoundSteps, logdensity_fn: LogDensity, rng_key: Array, state: FrozenState):
    """The step of `freeze`."""
    positions, info, _ = take_round(rng_key, state.position, None, state.tuning, logdensity_fn, steps)
    return FrozenState(on_chains(positions), state.tuning), info


def production(
    logdensity_fn: LogDensity,
    steps: RoundSteps,
    tuning: Tuning,
    moves: Moves,
    start_log_prob: LogDensity | None = None,
) -> SamplingAlgorithm:
    """Rounds of at most `steps`, a Markov kernel on all chains that leaves the target invariant.

    Parameters
    ----------
    logdensity_fn
        As in `flowmcmc.adaptive`.
    steps
        Of `check_steps`.
    tuning, moves
        Held fixed. Others take the same compiled program.
    start_log_prob
        Of a density to come from: a state with an inverse temperature below one is moved at the geometric mean of both.

    Returns
    -------
    SamplingAlgorithm
        ``init(positions, rng_key=None)`` and ``step``, whose info is a `RoundInfo`.
    """
    density = as_partial(logdensity_fn)
    start = start_log_prob if start_log_prob is None else as_partial(start_log_prob)
    step = Partial(hashable(partial(take_production_round, steps)), density, start)
    return SamplingAlgorithm(Partial(production_state, density, tuning, moves), step)


def with_tuning(sampler: SamplingAlgorithm, tuning: Tuning, moves: Moves) -> SamplingAlgorithm:
    """The same `production`, compiled if it was, with another tuning and other moves."""
    density, *_ = sampler.init.args
    return sampler._replace(init=Partial(production_state, density, tuning, moves))


def production_state(
    logdensity_fn: LogDensity, tuning: Tuning, moves: Moves, positions: PyTree, rng_key: Array | None = None
) -> ProductionState:
    """The `init` of `production`."""
    if isinstance(jax.tree.leaves(positions)[0], Tracer):  # part of a program that is being compiled
        logdensity = logdensities(logdensity_fn, positions)
    else:
        logdensity = compile_for(logdensities, logdensity_fn, is_brief=True)(positions)
    return ProductionState(positions, logdensity, tuning, moves, AT_TARGET)


def logdensities(logdensity_fn: LogDensity, positions: PyTree) -> Array:
    """Of all chains."""
    return jax.vmap(logdensity_fn)(positions)


def take_production_round(
    steps: RoundSteps,
    logdensity_fn: LogDensity,
    start_log_prob: LogDensity | None,
    rng_key: Array,
    state: ProductionState,
):
    """The step of `production`."""
    density = logdensity_fn
    if start_log_prob is not None:
        density = partial(tempered, logdensity_fn, start_log_prob, state.beta)
    positions, info, _ = take_round(
        rng_key, state.position, state.logdensity, state.tuning, density, steps, state.moves
    )
    return state._replace(position=on_chains(positions), logdensity=on_chains(info.logdensity)), info


def tempered(logdensity_fn: LogDensity, start_log_prob: LogDensity, beta: Array, position: PyTree) -> Array:
    """beta log p + (1 - beta) log start; at beta = 1 the start is not even looked at, as it may be zero there."""

    def between():
        share = beta.astype(jax.eval_shape(logdensity_fn, position).dtype)
        return share * logdensity_fn(position) + (1 - share) * start_log_prob(position)

    return jax.lax.cond(beta < 1, between, lambda: logdensity_fn(position))
