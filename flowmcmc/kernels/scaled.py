"""The local kernel: any BlackJAX algorithm, run in coordinates where every chain coordinate has unit scale.

A constructor ``(logdensity_fn, step_size) -> SamplingAlgorithm`` is given the density of y = x / scale. That is a
diagonal metric for every kernel, MALA included, and leaves BlackJAX unchanged. A `LocalConstructor` says what else it
needs; of any other function the parameters without a default are filled by name: ``inverse_mass_matrix`` (HMC, NUTS)
with ones, the same metric in these coordinates, ``scale``, and ``params`` with those of the flow. Scales are powers of
two, so that scaling and unscaling are exact: a rejected position stays the same to the last bit.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Array, LocalKernel, LogDensity, PyTree, SamplingAlgorithm
from flowmcmc.ground.trees import is_nonconstant

__all__ = [
    "LocalConstructor",
    "LocalState",
    "count_divergences",
    "count_evaluations",
    "needs_of",
    "pooled_scale",
    "scaled_kernel",
]

OFFERED = ("inverse_mass_matrix", "scale", "params")


@dataclass(frozen=True)
class LocalConstructor:
    """A constructor of local kernels that says what it `needs` beside a density and a step size.

    Attributes
    ----------
    build
        ``(logdensity_fn, step_size, **needed) -> SamplingAlgorithm``.
    needs
        Names of what it is given: ``"inverse_mass_matrix"`` and ``"scale"``, of the coordinates that the density is in,
        and ``"params"``, those of the sampler's flow.
    """

    build: Callable[..., SamplingAlgorithm]
    needs: tuple[str, ...]

    def __call__(self, logdensity_fn: LogDensity, step_size: Array, **needed) -> SamplingAlgorithm:
        return self.build(logdensity_fn, step_size, **needed)


class LocalState(NamedTuple):
    """The position, and the BlackJAX state in scaled coordinates."""

    position: PyTree
    kernel_state: NamedTuple


def scaled_kernel(
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
        Parameters of the flow, for a constructor that needs them (`neutra` without its own).

    Returns
    -------
    SamplingAlgorithm
        Of one chain, with a `LocalState`.

    Raises
    ------
    TypeError
        If `local` wants more than it is offered.
    """

    def scaled_logdensity(y):
        value = logdensity_fn(jax.tree.map(jnp.multiply, y, scale))
        return jnp.where(value == jnp.inf, -jnp.inf, value)  # BlackJAX rejects NaN by itself, but accepts +inf

    offered = {"inverse_mass_matrix": jnp.ones_like(ravel_pytree(scale)[0]), "scale": scale, "params": params}
    try:
        algorithm = local(scaled_logdensity, step_size, **{name: offered[name] for name in needs_of(local)})
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


def needs_of(local: LocalKernel) -> tuple[str, ...]:
    """Names in `OFFERED` that a constructor needs: those it says itself, else its parameters still without a value."""
    given, constructor = set(), local
    while isinstance(constructor, partial):
        given |= set(constructor.keywords)
        constructor = constructor.func
    constructor = getattr(constructor, "wrapped", constructor)  # unwrap `ByIdentity`
    if isinstance(constructor, LocalConstructor):
        return tuple(name for name in constructor.needs if name not in given)
    # BlackJAX's top-level names are objects whose signature is that of `differentiable`
    parameters: Any = inspect.signature(getattr(constructor, "differentiable", constructor)).parameters
    is_open = lambda name: name in parameters and parameters[name].default is inspect.Parameter.empty
    return tuple(name for name in OFFERED if is_open(name) and name not in given)


def count_divergences(info) -> Array:
    """Number of local steps that diverged or had no chance of acceptance (density NaN or zero at the proposal)."""
    is_divergent = getattr(info, "is_divergent", False)
    rate = getattr(info, "acceptance_rate", jnp.ones(()))
    return jnp.sum(~(rate > 0) | is_divergent, dtype=jnp.int32)


def count_evaluations(info, num_steps: int) -> Array:
    """Evaluations of the density by `num_steps` local steps: those along trajectories, or one a step."""
    along = getattr(info, "num_integration_steps", jnp.ones(num_steps, jnp.int32))
    return jnp.sum(along, dtype=jnp.int32)


def pooled_scale(positions: PyTree, weights: Array) -> PyTree:
    """Standard deviation of each coordinate over the weighted rows, to the nearest power of two; 1 if constant."""

    def one(leaf):
        share = (weights / jnp.sum(weights)).reshape((-1,) + (1,) * (leaf.ndim - 1)).astype(leaf.dtype)
        mean = jnp.sum(share * leaf, axis=0, keepdims=True)
        deviation = jnp.sqrt(jnp.sum(share * (leaf - mean) ** 2, axis=0))
        exponent = jnp.round(jnp.log2(jnp.where(is_nonconstant(deviation, mean[0]), deviation, 1.0)))
        return jnp.ldexp(jnp.ones_like(deviation), exponent.astype(jnp.int32))

    return jax.tree.map(one, positions)
