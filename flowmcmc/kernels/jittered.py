"""x"""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flowmcmc.base import LocalKernel, SamplingAlgorithm
from flowmcmc.ground.arguments import check_local, check_numbers
from flowmcmc.kernels.scaled import asks_for

__all__ = ["jittered", "within_modes"]


def jittered(local: LocalKernel, *, lowest: float = 0.02) -> LocalKernel:
    """The same kernel with step sizes drawn log-uniformly from [lowest, 1] times the adapted one, afresh for each step.

    A mixture of kernels that leave the target invariant, so one itself: where the adapted step is far too large (the
    neck of a funnel, a steep ridge) chains still move. Some steps are shorter than they could be elsewhere.

    Parameters
    ----------
    local
        Constructor as in `flowmcmc.adaptive`, say ``partial(blackjax.hmc, num_integration_steps=8)``.
    lowest
        In (0, 1).

    Raises
    ------
    ValueError
        If `lowest` is out of range.
    """
    check_local(local)
    check_numbers({"lowest": lowest})
    if not 0 < lowest < 1:
        raise ValueError(f"lowest must lie between 0 and 1, got {lowest}.")

    def constructor(logdensity_fn, step_size, inverse_mass_matrix, scale):
        known = {"inverse_mass_matrix": inverse_mass_matrix, "scale": scale}
        options = {name: value for name, value in known.items() if asks_for(local, name)}

        def step(rng_key, state):
            key_size, key_step = jax.random.split(rng_key)
            share = jnp.exp(jnp.log(lowest) * jax.random.uniform(key_size)).astype(step_size.dtype)
            return local(logdensity_fn, share * step_size, **options).step(key_step, state)

        return SamplingAlgorithm(local(logdensity_fn, step_size, **options).init, step)

    return constructor


def within_modes(local: LocalKernel) -> LocalKernel:
    r"""The same kernel with the covariance within the components of the sampler's own mixture as its metric.

    With weights pi_k and covariances C_k of the components in use, the inverse mass matrix is sum_k pi_k C_k: chains
    know how wide a mode is in each direction, however far others are. For flows whose parameters are `FlowParams`
    without layers.

    Parameters
    ----------
    local
        Constructor that takes an ``inverse_mass_matrix``, such as ``partial(blackjax.hmc, num_integration_steps=8)``.
    """
    check_local(local)

    def constructor(logdensity_fn, step_size, scale, params):
        weights, roots = jnp.exp(params.mixture.log_weights), params.mixture.cholesky
        whole = params.affine.scale[:, None] * params.affine.cholesky / ravel_pytree(scale)[0][:, None]
        metric = whole @ jnp.einsum("k,kij,klj->il", weights, roots, roots) @ whole.T
        options = {"scale": scale} if asks_for(local, "scale") else {}
        return local(logdensity_fn, step_size, inverse_mass_matrix=(metric + metric.T) / 2, **options)

    return constructor
