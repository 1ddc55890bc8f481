"""Local kernels built from others: `jittered` draws step sizes at random, `within_modes` takes its metric from a flow.

Both leave invariant what the kernel inside leaves invariant. Random step sizes: Neal (2011).
"""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import Flow, LocalKernel, SamplingAlgorithm
from flowmcmc.ground.arguments import check_local, check_numbers, hashable
from flowmcmc.kernels.scaled import LocalConstructor, needs_of

__all__ = ["jittered", "within_modes"]


def jittered(local: LocalKernel, *, lowest: float = 0.02) -> LocalKernel:
    """The same kernel with step sizes drawn log-uniformly from [lowest, 1] times the adapted one, afresh for each step.

    A mixture of kernels that leave the target invariant leaves it invariant too. Where the adapted step is far too
    large (the neck of a funnel, a steep ridge) chains still move. Elsewhere some
    steps are shorter than necessary. Random step sizes: Neal (2011).

    Parameters
    ----------
    local
        Constructor as in `flowmcmc.adaptive`, say ``partial(blackjax.hmc, num_integration_steps=8)``.
    lowest
        In (0, 1).

    Returns
    -------
    LocalConstructor
        ``(logdensity_fn, step_size, **needed) -> SamplingAlgorithm``, to be used wherever `local` could be; it needs
        what `local` needs.

    Raises
    ------
    ValueError
        If `lowest` is out of range.
    """
    check_local(local)
    check_numbers({"lowest": lowest})
    if not 0 < lowest < 1:
        raise ValueError(f"lowest must lie between 0 and 1, got {lowest}.")
    return build_jittered(hashable(local), float(lowest))


@lru_cache(maxsize=64)
def build_jittered(local: LocalKernel, lowest: float) -> LocalConstructor:
    """Build the constructor; equal arguments give the same object, so that programs compiled for it are found again."""

    def build(logdensity_fn, step_size, **needed):
        def step(rng_key, state):
            key_size, key_step = jax.random.split(rng_key)
            share = jnp.exp(jnp.log(lowest) * jax.random.uniform(key_size)).astype(step_size.dtype)
            return local(logdensity_fn, share * step_size, **needed).step(key_step, state)

        return SamplingAlgorithm(local(logdensity_fn, step_size, **needed).init, step)

    return LocalConstructor(build, needs_of(local))


def within_modes(local: LocalKernel, flow: Flow) -> LocalKernel:
    r"""The same kernel with a metric from the sampler's own flow: the mean covariance within modes.

    With weights pi_k and covariances C_k of a mixture's components in use, the inverse mass matrix is sum_k pi_k C_k.
    It follows the width of a mode in each direction, however far apart the modes are.

    Parameters
    ----------
    local
        Constructor that takes an ``inverse_mass_matrix``, such as ``partial(blackjax.hmc, num_integration_steps=8)``.
    flow
        The sampler's own flow, which must have a `metric`.

    Returns
    -------
    LocalConstructor
        To be used wherever `local` could be.
    """
    check_local(local)
    if flow.metric is None:
        raise ValueError("flow has no metric: within_modes needs one that knows the covariance within its modes.")
    return build_within_modes(hashable(local), flow.metric)


@lru_cache(maxsize=64)
def build_within_modes(local: LocalKernel, metric_of: Callable) -> LocalConstructor:
    """One for equal arguments, so that what is compiled for it is found again."""
    others = tuple(name for name in needs_of(local) if name != "inverse_mass_matrix")

    def build(logdensity_fn, step_size, *, scale, params, **needed):
        offered = needed | {"scale": scale, "params": params}
        unit = ravel_pytree(scale)[0]
        metric = metric_of(params) / unit[:, None] / unit[None]
        return local(
            logdensity_fn,
            step_size,
            inverse_mass_matrix=(metric + metric.T) / 2,
            **{name: offered[name] for name in others},
        )

    return LocalConstructor(build, tuple(dict.fromkeys(("scale", "params", *others))))
