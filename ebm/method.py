r"""What all training methods share: the contracts, and maximum likelihood with pluggable negatives.

    grad_theta -log p_theta(x+) = grad E(x+) - E_{x- ~ p_theta}[grad E(x-)]

Methods differ in the second term. A `NegativeSampler` supplies draws x- with weights; a `Method`
turns a batch of data into a loss whose gradient is followed.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ebm.model import Model, check_model
from flowmcmc.ground.arguments import check_has

__all__ = ["Method", "MethodInfo", "NegativeSampler", "energy_gap", "from_point_loss", "maximum_likelihood", "no_info"]

Array = jax.Array


class MethodInfo(NamedTuple):
    """Health of one update; NaN where a method has no such thing.

    Attributes
    ----------
    local_acceptance_rate, flow_acceptance_rate
        Means over the chains that moved.
    ess
        Effective number of negatives, (sum w)^2 / sum w^2, as a fraction.
    log_z
        Running estimate of log Z, from methods that have one.
    num_invalid
        Negatives, or proposals of them, that were NaN or infinite; none of these reached the gradient.
    """

    local_acceptance_rate: Array
    flow_acceptance_rate: Array
    ess: Array
    log_z: Array
    num_invalid: Array


class Method(NamedTuple):
    """How to train.

    Attributes
    ----------
    init
        ``(rng_key, theta, data) -> (extra, state)``: parameters learned beside theta by the same optimiser (log Z of
        noise-contrastive estimation, a flow), and what persists between updates (chains).
    loss
        ``(rng_key, theta, extra, state, batch) -> (loss, (state, MethodInfo))``; its gradient in theta and extra is
        followed.
    """

    init: Callable
    loss: Callable


class NegativeSampler(NamedTuple):
    """Where negatives come from.

    Attributes
    ----------
    init
        ``(rng_key, logdensity_fn, data) -> state``.
    step
        ``(rng_key, state, logdensity_fn, batch) -> (positions, weights, state, MethodInfo)``; weights sum to one.
        `logdensity_fn` is the model as it is now, so a state must cache nothing that depends on it.
    """

    init: Callable
    step: Callable


def maximum_likelihood(model: Model, negatives: NegativeSampler, *, energy_penalty: float = 0.0) -> Method:
    """Follow mean E(x+) - sum_i w_i E(x-_i), whose gradient is that of -log p_theta(x+) if the negatives are right.

    Reference: Song and Kingma, arXiv 2101.03288, section 2.

    Parameters
    ----------
    model
        Energy and tilt.
    negatives
        Say ``persistent(...)``.
    energy_penalty
        Coefficient of mean E(x+)^2 + sum_i w_i E(x-_i)^2. It biases the optimum; 0 by default.

    Returns
    -------
    Method
        Its loss is the energy gap, a scalar in nats, with the penalty; its state is that of `negatives`.
    """
    check_model(model)
    check_has("negatives", negatives, ("init", "step"), "a NegativeSampler, such as ebm.persistent(make_sampler)")
    if not energy_penalty >= 0:
        raise ValueError(f"energy_penalty must not be negative, got {energy_penalty}.")

    def init(rng_key, theta, data):
        return (), negatives.init(rng_key, lambda x: model.logdensity(theta, x), data)

    def loss(rng_key, theta, extra, state, batch):
        fixed = jax.lax.stop_gradient(theta)
        positions, weights, state, info = negatives.step(rng_key, state, lambda x: model.logdensity(fixed, x), batch)
        positions, weights, state = jax.lax.stop_gradient((positions, weights, state))
        gap, penalty = energy_gap(model, theta, batch, positions, weights)
        return gap + energy_penalty * penalty, (state, info)

    return Method(init, loss)


def energy_gap(model: Model, theta: Any, batch, positions, weights) -> tuple[Array, Array]:
    """Mean energy of data minus that of weighted negatives, and the sum of both mean squared energies."""
    energies = jax.vmap(model.energy, (None, 0))
    on_data, on_negatives = energies(theta, batch), energies(theta, positions)
    gap = jnp.mean(on_data) - jnp.sum(weights * on_negatives)
    return gap, jnp.mean(on_data**2) + jnp.sum(weights * on_negatives**2)


def from_point_loss(point_loss: Callable) -> Method:
    """A method whose loss is the batch mean of ``point_loss(rng_key, theta, position)``, without `extra` or state."""

    def init(rng_key, theta, data):
        return (), ()

    def loss(rng_key, theta, extra, state, batch):
        keys = jax.random.split(rng_key, jax.tree.leaves(batch)[0].shape[0])
        return jnp.mean(jax.vmap(point_loss, (0, None, 0))(keys, theta, batch)), (state, no_info())

    return Method(init, loss)


def no_info() -> MethodInfo:
    """The `MethodInfo` of a method without negatives."""
    missing = jnp.full((), jnp.nan)
    return MethodInfo(missing, missing, missing, missing, jnp.zeros((), jnp.int32))
