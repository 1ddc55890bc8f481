"""Adapting the local step size by BlackJAX's dual averaging, in units of a scale that follows the remembered states."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import DualAveragingAdaptationState, dual_averaging_adaptation

from flowmcmc.adaptation import reservoir
from flowmcmc.adaptation.reservoir import Reservoir
from flowmcmc.base import Array, PyTree
from flowmcmc.ground.arguments import check_numbers
from flowmcmc.kernels.scaled import pooled_scale

__all__ = ["StepSizeAdaptation", "step_size_adaptation"]


class StepSizeAdaptation(NamedTuple):
    """``init(step_size) -> state`` and ``update(state, rate, scale, seen, is_refit) -> (state, learned, scale)``, where
    `learned` is the averaged step size, what to freeze; `seen` are the states remembered, and at a round that
    `is_refit` the scale is taken from them anew."""

    init: Callable[[Array], DualAveragingAdaptationState]
    update: Callable[..., tuple[DualAveragingAdaptationState, Array, PyTree]]


def step_size_adaptation(target_acceptance_rate: float) -> StepSizeAdaptation:
    """Dual averaging towards a mean acceptance rate; it starts again when the scale changes.

    Raises
    ------
    ValueError
        If the rate is not between 0 and 1.
    """
    check_numbers({"target_acceptance_rate": target_acceptance_rate})
    if not 0 < target_acceptance_rate < 1:
        raise ValueError(f"target_acceptance_rate must lie between 0 and 1, got {target_acceptance_rate}.")
    da_init, da_update, _ = dual_averaging_adaptation(target_acceptance_rate)

    def init(step_size):
        # BlackJAX aims at ten times the start, right for a search from nothing; here the start is already good
        state = da_init(step_size)._replace(mu=jnp.log(step_size))
        return jax.tree.map(lambda value: jnp.asarray(value, step_size.dtype), state)

    def update(state, rate, scale: PyTree, seen: Reservoir, is_refit):
        # a kernel without an acceptance rate (slice sampling) keeps its step size
        state = da_update(state, jnp.where(jnp.isnan(rate), target_acceptance_rate, rate))
        dtype = state.log_step_size.dtype
        new_scale = jax.lax.cond(
            is_refit, lambda: pooled_scale(seen.positions, reservoir.weights(seen, dtype)), lambda: scale
        )
        pairs = zip(jax.tree.leaves(new_scale), jax.tree.leaves(scale))
        is_new = jnp.array([jnp.any(new != old) for new, old in pairs]).any()
        learned = jnp.exp(state.log_step_size_avg)
        state = jax.tree.map(lambda new, old: jnp.where(is_new, new, old), init(learned), state)
        return state, learned, new_scale

    return StepSizeAdaptation(init, update)
