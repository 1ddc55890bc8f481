r"""Langevin dynamics without a Metropolis test, as constructors like ``blackjax.mala``.

    x' = x + eps grad log p(x) + sqrt(2 eps T) xi,   xi ~ N(0, I)

T = 1 is the unadjusted Langevin algorithm (biased by the step size), T = 0 plain ascent of the log density (CoopFlow).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.diffusions import DiffusionState, overdamped_langevin

from flowmcmc.base import SamplingAlgorithm

__all__ = ["gradient_ascent", "ula"]


class LangevinInfo(NamedTuple):
    """Whether the new position would not have been finite; the chain then stays."""

    is_divergent: jax.Array


def ula(logdensity_fn, step_size) -> SamplingAlgorithm:
    """Unadjusted Langevin, BlackJAX's integrator; a step into NaN or infinity is not taken, but counted.

    Reference: Roberts and Tweedie (1996).

    Parameters
    ----------
    logdensity_fn
        Unnormalised log density of one position.
    step_size
        Half the variance of the noise.

    Returns
    -------
    SamplingAlgorithm
        ``init(position, rng_key=None)`` and ``step(rng_key, state)`` for one chain; its info is ``is_divergent`` alone.

    Raises
    ------
    ValueError
        If `step_size` is a number that is not positive and finite.
    """
    return guarded_langevin(logdensity_fn, step_size, overdamped_langevin)


def gradient_ascent(logdensity_fn, step_size) -> SamplingAlgorithm:
    """Langevin without noise: ascent of the log density, the refinement of CoopFlow (Xie et al., arXiv 2205.06924).

    Parameters
    ----------
    logdensity_fn, step_size
        As in `ula`.

    Returns
    -------
    SamplingAlgorithm
        As in `ula`; its steps are deterministic, and it samples no distribution.

    Raises
    ------
    ValueError
        As in `ula`.
    """
    return guarded_langevin(logdensity_fn, step_size, ascent_integrator)


def guarded_langevin(logdensity_fn, step_size, integrator) -> SamplingAlgorithm:
    """A kernel that takes the integrator's step if the new state is finite, and stays otherwise."""
    # a learned step size is an array, which is not checked
    if isinstance(step_size, (int, float, np.number)) and not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be positive, got {step_size}.")
    value_and_grad = jax.value_and_grad(logdensity_fn)
    advance = integrator(value_and_grad)

    def init(position, rng_key=None):
        return DiffusionState(position, *value_and_grad(position))

    def step(rng_key, state):
        new = advance(rng_key, state, step_size)
        is_good = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]).all()
        return jax.tree.map(partial(jnp.where, is_good), new, state), LangevinInfo(~is_good)

    return SamplingAlgorithm(init, step)


def ascent_integrator(value_and_grad):
    """Langevin integrator at temperature zero, in BlackJAX's form."""

    def advance(rng_key, state, step_size):
        position = jax.tree.map(lambda x, g: x + step_size * g, state.position, state.logdensity_grad)
        return DiffusionState(position, *value_and_grad(position))

    return advance
