r"""Annealed importance sampling: log Z by walking from the tilt to the model, and back.

    log p_b = log rho - b E,   log w = sum_t (b_{t-1} - b_t) E(x_{t-1}),   Z = E[w] = 1 / E_backwards[1 / w]

Between changes of b a kernel moves x at fixed p_b. log w, and the log of a mean of w, lie below log Z on average; the
walk back from draws of the model bounds it from above (Neal, arXiv physics/9803008; bidirectional Monte Carlo, Grosse
et al., arXiv 1511.02543). From draws that are not the model's the walk back bounds nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from jax.core import Tracer

from ebm.model import Model, check_model
from flowmcmc.base import num_chains
from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_positions
from flowmcmc.ground.conversions import as_key
from flowmcmc.kernels.scaled import scaled_kernel

__all__ = ["AIS", "ais", "ais_bracket", "reverse_ais"]

Array = jax.Array


class AIS(NamedTuple):
    """Result of one annealing of all walkers.

    Attributes
    ----------
    log_z, error
        Estimate and its standard error to first order, nats; at a small `ess` both are too small.
    ess
        Effective number of walkers as a fraction.
    positions, log_weights
        Where the walkers ended, and log w. Forward, `positions` weighted by softmax(log_weights) follow the model.
    acceptance_rate
        Of the kernel, mean over walkers, at each b from low to high (num_temperatures,); NaN if it reports none.
    """

    log_z: Array
    error: Array
    ess: Array
    positions: Any
    log_weights: Array
    acceptance_rate: Array


def ais(
    rng_key: Array,
    model: Model,
    theta: Any,
    *,
    num_walkers: int = 256,
    num_temperatures: int = 200,
    num_steps: int = 1,
    step_size: float | Callable = 0.1,
    local: Callable = blackjax.mala,
) -> AIS:
    """From draws of the tilt to the model: a stochastic lower bound of log Z (Neal, arXiv physics/9803008).

    Parameters
    ----------
    rng_key
        JAX key.
    model, theta
        An energy with its tilt, and parameters. The same `model` again does not compile anew.
    num_walkers
        Independent walkers.
    num_temperatures
        Equal steps of the inverse temperature b, from 0 to 1.
    num_steps
        Kernel steps at each b.
    step_size
        Of the kernel, in units of positions: a number, or a function of b. MALA's is half the variance of its noise.
    local
        BlackJAX constructor, as in `flowmcmc.sample`.

    Returns
    -------
    AIS
        ``log_z`` and its standard ``error``, scalars in nats; ``ess``, a fraction; ``positions``, where the walkers end
        at the model, leaves (walkers, ...), and their ``log_weights`` (walkers,); ``acceptance_rate``
        (num_temperatures,).

    Raises
    ------
    ValueError
        If a number is below 1.

    Examples
    --------
    >>> ais(jax.random.key(0), model, theta, step_size=lambda b: 0.5 / (1 + 20 * b)).log_z  # doctest: +SKIP
    """
    check_counts({"num_walkers": num_walkers, "num_temperatures": num_temperatures, "num_steps": num_steps})
    sizes = step_sizes(step_size, num_temperatures)
    check_model(model)
    key_start, key_walk = jax.random.split(as_key(rng_key))
    start = jax.vmap(model.tilt.sample)(jax.random.split(key_start, num_walkers))
    return anneal(key_walk, model, theta, start, sizes, num_steps, unwrap_kernel(local), is_reverse=False)


def reverse_ais(
    rng_key: Array,
    model: Model,
    theta: Any,
    positions: Any,
    *,
    num_temperatures: int = 200,
    num_steps: int = 1,
    step_size: float | Callable = 0.1,
    local: Callable = blackjax.mala,
) -> AIS:
    """From draws of the model back to the tilt: a stochastic upper bound of log Z (Grosse et al., arXiv 1511.02543).

    The standard error takes the walkers as independent.

    Parameters
    ----------
    rng_key, model, theta, num_temperatures, num_steps, step_size, local
        As in `ais`.
    positions
        Draws of the model, leaves (walkers, ...).

    Returns
    -------
    AIS
        ``log_z`` and its standard ``error``, scalars in nats; ``ess``, a fraction; ``positions``, where the walkers end
        at the tilt, leaves (walkers, ...), and their ``log_weights`` (walkers,); ``acceptance_rate``
        (num_temperatures,).

    Raises
    ------
    TypeError, ValueError
        As in `ais`; or if `positions` are not finite arrays.
    """
    check_counts(
        {"number of positions": num_chains(positions), "num_temperatures": num_temperatures, "num_steps": num_steps}
    )
    sizes = step_sizes(step_size, num_temperatures)
    check_model(model)
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(positions)):
        positions = check_positions(positions)
    return anneal(as_key(rng_key), model, theta, positions, sizes, num_steps, unwrap_kernel(local), is_reverse=True)


def ais_bracket(
    rng_key: Array,
    model: Model,
    theta: Any,
    positions: Any,
    *,
    num_walkers: int = 256,
    num_temperatures: int = 200,
    num_steps: int = 1,
    step_size: float | Callable = 0.1,
    local: Callable = blackjax.mala,
) -> tuple[AIS, AIS]:
    """Bounds of log Z from below and above: `num_walkers` up from the tilt, and `positions` down from the model.

    Bidirectional Monte Carlo: Grosse et al., arXiv 1511.02543.

    Parameters
    ----------
    rng_key, model, theta, num_walkers, num_temperatures, num_steps, step_size, local
        As in `ais`.
    positions
        As in `reverse_ais`.

    Returns
    -------
    tuple of AIS
        The walk up, whose ``log_z`` is a lower bound on average, and the walk down, an upper bound; both in nats.

    Raises
    ------
    TypeError, ValueError
        As in `ais` and `reverse_ais`.
    """
    key_up, key_down = jax.random.split(as_key(rng_key))
    shared = {"num_temperatures": num_temperatures, "num_steps": num_steps, "step_size": step_size, "local": local}
    lower = ais(key_up, model, theta, num_walkers=num_walkers, **shared)
    return lower, reverse_ais(key_down, model, theta, positions, **shared)


@partial(jax.jit, static_argnames=("model", "num_steps", "local", "is_reverse"))
def anneal(rng_key, model, theta, positions, sizes, num_steps, local, *, is_reverse):
    """Take all walkers along all b; forward weighs them before each move, backward after it."""
    energy = jax.vmap(partial(model.energy, theta))
    dtype = jax.eval_shape(energy, positions).dtype
    b = jnp.linspace(0.0, 1.0, sizes.shape[0] + 1, dtype=dtype)

    def step(carry, inputs):
        positions, log_weights = carry
        key, low, high, size = inputs
        move = partial(move_walkers, key, model, theta, b=high, step_size=size, num_steps=num_steps, local=local)
        if is_reverse:
            positions, rate = move(positions)
        log_weights = log_weights - (high - low) * energy(positions)
        if not is_reverse:
            positions, rate = move(positions)
        return (positions, log_weights), rate

    keys = jax.random.split(rng_key, sizes.shape[0])
    carry = positions, jnp.zeros(num_chains(positions), dtype)
    inputs = keys, b[:-1], b[1:], sizes.astype(dtype)
    (positions, log_weights), rates = jax.lax.scan(step, carry, inputs, reverse=is_reverse)
    sign = -1.0 if is_reverse else 1.0
    signed = jnp.where(sign * log_weights < jnp.inf, sign * log_weights, -jnp.inf)  # NaN and +inf count as zero
    log_mean = jax.nn.logsumexp(signed) - jnp.log(signed.size)
    weights = jnp.exp(signed - log_mean)
    error = jnp.std(weights) / jnp.sqrt(signed.size)
    return AIS(sign * log_mean, error, 1 / jnp.mean(weights**2), positions, sign * signed, rates)


def move_walkers(rng_key, model, theta, positions, *, b, step_size, num_steps, local):
    """Positions of the walkers after `num_steps` kernel steps at b, and their mean acceptance rate."""
    logdensity = lambda x: model.tilt.log_prob(x) - b * model.energy(theta, x)
    ones = jax.tree.map(lambda leaf: jnp.ones_like(leaf[0]), positions)
    kernel = scaled_kernel(local, logdensity, step_size, ones)

    def one(key, position):
        keys = jax.random.split(key, num_steps)
        state, info = jax.lax.scan(lambda state, key: kernel.step(key, state), kernel.init(position), keys)
        rates = getattr(info, "acceptance_rate", None)
        return state.position, jnp.nan if rates is None else jnp.mean(jnp.nan_to_num(rates))

    positions, rates = jax.vmap(one)(jax.random.split(rng_key, num_chains(positions)), positions)
    return positions, jnp.mean(rates)


def step_sizes(step_size, num_temperatures: int) -> Array:
    """Step sizes of the kernel, one for each b above 0, (num_temperatures,)."""
    if not callable(step_size) and not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be positive, got {step_size}.")
    b = jnp.linspace(0.0, 1.0, num_temperatures + 1)[1:]
    return jnp.asarray(jax.vmap(step_size)(b)) if callable(step_size) else jnp.full(num_temperatures, step_size)


def unwrap_kernel(local: Callable) -> Callable:
    """The function within one of BlackJAX's top-level objects, which themselves have no hash."""
    return getattr(local, "differentiable", local)
