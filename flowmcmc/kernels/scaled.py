"""The local kernel: any BlackJAX algorithm, run in coordinates where every chain coordinate has unit scale.

A constructor ``(logdensity_fn, step_size) -> SamplingAlgorithm`` is given the density of y = x / scale. That is a
diagonal metric for every kernel, MALA included, and leaves BlackJAX unchanged. A constructor that asks for an
``inverse_mass_matrix`` (HMC, NUTS) gets ones, the same metric in these coordinates; one that asks for ``scale``
or ``params`` (`neutra`, `within_modes`) gets those. Scales are powers of two, so that
going there and back is exact: a rejected position stays the same to the last bit.
"""

import inspect
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.trees import is_nonconstant

__all__ = ["LocalState", "build", "count_divergences", "pooled_scale"]


class LocalState(NamedTuple):
    """The position, and the BlackJAX state in scaled coordinates."""

    position: PyTree
    kernel_state: NamedTuple


def build(
    local: LocalKernel, logdensity_fn: LogDensity, step_size: Array, scale: PyTree, params: PyTree = None
) -> SamplingAlgorithm:
    """`local` on the scaled density; positions go in and come out unscaled.

    Parameters
    ----------
    local
        ``blackjax.mala``, ``blackjax.nuts``, ``functools.partial(blackjax.hmc, num_integration_steps=10)``.
    logdensity_fn
        Unnormalised log density of one position.
    step_size
        In units of `scale`.
    scale
        Powers of two, a pytree like a position.
    params
        Parameters of the flow, for a constructor that asks for them (`neutra` without its own).
    """

    def scaled_logdensity(y):
        value = logdensity_fn(jax.tree.map(jnp.multiply, y, scale))
        return jnp.where(value == jnp.inf, -jnp.inf, value)  # BlackJAX rejects NaN by itself, but accepts +inf

    known = {"inverse_mass_matrix": jnp.ones_like(ravel_pytree(scale)[0]), "scale": scale, "params": params}
    options = {name: value for name, value in known.items() if asks_for(local, name)}
    try:
        algorithm = local(scaled_logdensity, step_size, **options)
    except TypeError as error:
        raise TypeError(
            f"local cannot be built from a density and a step size: {error}. Fix what else it asks for, as in "
            "functools.partial(blackjax.hmc, num_integration_steps=10)."
        ) from error

    def init(position, rng_key=None):
        return LocalState(position, algorithm.init(jax.tree.map(jnp.divide, position, scale), rng_key))

    def step(rng_key, state):
        kernel_state, info = algorithm.step(rng_key, state.kernel_state)
        return LocalState(jax.tree.map(jnp.multiply, kernel_state.position, scale), kernel_state), info

    return SamplingAlgorithm(init, step)


def asks_for(local: LocalKernel, name: str) -> bool:
    """Whether `name` is a parameter that is still open."""
    given = set()
    while isinstance(local, partial):
        given |= set(local.keywords)
        local = local.func
    # BlackJAX's top-level names are objects whose signature is that of `differentiable`
    parameters = inspect.signature(getattr(local, "differentiable", local)).parameters
    return name in parameters and name not in given


def count_divergences(info) -> Array:
    """How many local steps had no chance of acceptance (density NaN or zero at the proposal) or diverged."""
    is_divergent = getattr(info, "is_divergent", False)
    rate = getattr(info, "acceptance_rate", jnp.ones(()))
    return jnp.sum(~(rate > 0) | is_divergent, dtype=jnp.int32)


def pooled_scale(positions: PyTree, weights: Array) -> PyTree:
    """Standard deviation of each coordinate over the weighted rows, to the nearest power of two; 1 if constant."""

    def one(leaf):
        share = (weights / jnp.sum(weights)).reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)
        mean = jnp.sum(share * leaf, axis=0, keepdims=True)
        deviation = jnp.sqrt(jnp.sum(share * (leaf - mean) ** 2, axis=0))
        exponent = jnp.round(jnp.log2(jnp.where(is_nonconstant(deviation, mean[0]), deviation, 1.0)))
        return jnp.ldexp(jnp.ones_like(deviation), exponent.astype(jnp.int32))

    return jax.tree.map(one, positions)
