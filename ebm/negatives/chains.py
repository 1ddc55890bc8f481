"""Negatives from Markov chains: each method starts chains, runs a sampler of the core, and uses where they end.

    contrastive_divergence   starts at the batch of data      biased (Hinton 2002)
    short_run                starts afresh from a density     biased (Nijkamp et al., arXiv 1904.09770)
    persistent               starts where it last ended       consistent as theta slows down (Tieleman 2008)

What runs is ``make_sampler(logdensity_fn) -> SamplingAlgorithm`` on many chains, made anew for every theta:

    local steps only      partial(freeze, local=ula, flow=None, tuning=local_tuning(0.01, x), num_flow_steps=0)
    adapted step size     partial(adaptive, local=blackjax.mala, flow=None, num_flow_steps=0)
    flow-assisted         partial(adaptive, local=blackjax.mala, flow=flow)   (arXiv 2306.00684)
    in latent space       partial(adaptive, local=neutra(blackjax.mala, flow, params), flow=None, num_flow_steps=0)

The states of `freeze` and `adaptive` hold nothing that depends on the target, so nothing can be stale after an update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ebm.method import MethodInfo, NegativeSampler
from flowmcmc import Tuning
from flowmcmc.base import num_chains as length
from flowmcmc.ground.arguments import check_callables, check_counts

__all__ = ["PersistentState", "contrastive_divergence", "local_tuning", "persistent", "short_run"]

Array = jax.Array


class PersistentState(NamedTuple):
    """Positions of the whole `pool`, and the sampler's state, which moves some of them at a time."""

    pool: Any
    sampler: Any


def local_tuning(step_size: float, position) -> Tuning:
    """Tuning of a local kernel with a fixed step size, in units of the position itself.

    Parameters
    ----------
    step_size
        Of the kernel.
    position
        Gives the shape and dtype.

    Returns
    -------
    Tuning
        ``params=None``, the step size as a scalar, and a ``scale`` of ones, shaped like `position`.

    Raises
    ------
    ValueError
        If `step_size` is not positive.
    """
    if not step_size > 0:
        raise ValueError(f"step_size must be positive, got {step_size}.")
    return Tuning(None, jnp.asarray(step_size, jnp.result_type(float)), jax.tree.map(jnp.ones_like, position))


def contrastive_divergence(make_sampler: Callable, *, num_rounds: int = 1) -> NegativeSampler:
    """Chains that start at the batch of data, one for each point: contrastive divergence, Hinton (2002).

    Parameters
    ----------
    make_sampler
        As in `persistent`.
    num_rounds
        Of the sampler, for each update.

    Returns
    -------
    NegativeSampler
        Its ``step`` gives batch_size * num_rounds positions with equal weights, zero where the model has no density.
    """
    return from_start(make_sampler, lambda rng_key, batch: batch, num_rounds)


def short_run(
    make_sampler: Callable, start: Callable, *, num_chains: int = 256, num_rounds: int = 1
) -> NegativeSampler:
    """Chains that start anew for each update (Nijkamp et al., arXiv 1904.09770).

    Parameters
    ----------
    make_sampler
        As in `persistent`.
    start
        ``rng_key -> position``, say ``tilt.sample``.
    num_chains
        How many.
    num_rounds
        Of the sampler, for each update.

    Returns
    -------
    NegativeSampler
        Its ``step`` gives num_chains * num_rounds positions with equal weights, zero where the model has no density.
    """
    check_positive(num_chains=num_chains, num_rounds=num_rounds)
    check_callables({"start": start}, "model.tilt.sample")
    return from_start(
        make_sampler, lambda rng_key, batch: jax.vmap(start)(jax.random.split(rng_key, num_chains)), num_rounds
    )


def persistent(
    make_sampler: Callable,
    *,
    num_chains: int = 4096,
    num_active: int = 256,
    num_rounds: int = 1,
    start: Callable | None = None,
    restart: Callable | None = None,
    restart_rate: float = 0.0,
) -> NegativeSampler:
    """Chains that go on where they were, however theta changed: Tieleman (2008).

    With flow proposals this is the method of Grenioux, Moulines and Gabrié (arXiv 2306.00684).

    Parameters
    ----------
    make_sampler
        ``logdensity_fn -> SamplingAlgorithm`` on many chains, see above.
    num_chains, num_active
        Chains in the pool, and how many of them move for an update. Chain i of the active ones comes from the i-th
        stretch of the pool, so `num_active` must divide `num_chains`; moved chains return to the slots they came from.
    num_rounds
        Rounds of the sampler for an update; the states after each of them are all used as negatives.
    start
        ``rng_key -> position``, where the pool starts; None: at data points.
    restart, restart_rate
        Each active chain starts anew from ``restart(rng_key)`` with this probability before it moves (Du and Mordatch,
        arXiv 1903.08689). That biases the chains' law.

    Returns
    -------
    NegativeSampler
        Its state is a `PersistentState`; its ``step`` gives num_active * num_rounds positions with equal weights, zero
        where the model has no density.

    Raises
    ------
    ValueError
        If `num_active` does not divide `num_chains`, or a rate or number is out of range.
    """
    check_positive(num_chains=num_chains, num_active=num_active, num_rounds=num_rounds)
    if num_chains % num_active:
        raise ValueError(
            f"num_active must divide num_chains, got {num_active} and {num_chains}: every chain must move."
        )
    if not 0 <= restart_rate <= 1:
        raise ValueError(f"restart_rate must lie in [0, 1], got {restart_rate}.")
    if restart_rate and restart is None:
        raise ValueError("restart_rate is positive but restart is None: pass where to start anew, say tilt.sample.")

    def init(rng_key, logdensity_fn, data):
        key_start, key_sampler = jax.random.split(rng_key)
        if start is None:
            rows = jax.random.randint(key_start, (num_chains,), 0, length(data))
            pool = jax.tree.map(lambda leaf: leaf[rows], data)
        else:
            pool = jax.vmap(start)(jax.random.split(key_start, num_chains))
        # the sampler sees the whole pool once, so that a flow can be fitted to it
        sampler = make_sampler(logdensity_fn).init(pool, key_sampler)
        return PersistentState(pool, sampler._replace(position=jax.tree.map(lambda leaf: leaf[:num_active], pool)))

    def step(rng_key, state, logdensity_fn, batch):
        key_rows, key_restart, key_chance, key_run = jax.random.split(rng_key, 4)
        stride = num_chains // num_active
        rows = jnp.arange(num_active) * stride + jax.random.randint(key_rows, (num_active,), 0, stride)
        active = jax.tree.map(lambda leaf: leaf[rows], state.pool)
        if restart is not None and restart_rate:
            fresh = jax.vmap(restart)(jax.random.split(key_restart, num_active))
            is_restarted = jax.random.bernoulli(key_chance, restart_rate, (num_active,))
            active = jax.vmap(lambda r, a, b: jax.tree.map(lambda x, y: jnp.where(r, x, y), a, b))(
                is_restarted, fresh, active
            )
        sampler, positions, weights, info = run_rounds(
            key_run, make_sampler(logdensity_fn), state.sampler._replace(position=active), num_rounds
        )
        pool = jax.tree.map(lambda leaf, new: leaf.at[rows].set(new), state.pool, sampler.position)
        return positions, weights, PersistentState(pool, sampler), info

    return NegativeSampler(init, step)


def from_start(make_sampler: Callable, start: Callable, num_rounds: int) -> NegativeSampler:
    """Chains that start anew for every update; what the sampler learns (a step size) is kept."""
    check_positive(num_rounds=num_rounds)

    def init(rng_key, logdensity_fn, data):
        key_start, key_sampler = jax.random.split(rng_key)
        few = jax.tree.map(lambda leaf: leaf[:256], data)
        return make_sampler(logdensity_fn).init(start(key_start, few), key_sampler)

    def step(rng_key, state, logdensity_fn, batch):
        key_start, key_run = jax.random.split(rng_key)
        begun = state._replace(position=start(key_start, batch))
        sampler, positions, weights, info = run_rounds(key_run, make_sampler(logdensity_fn), begun, num_rounds)
        # batches may differ in size from the data that init saw; only what is learned stays
        return positions, weights, sampler._replace(position=state.position), info

    return NegativeSampler(init, step)


def run_rounds(rng_key: Array, algorithm, state, num_rounds: int):
    """Run rounds; return the sampler's state, the positions after every round, equal weights, and a `MethodInfo`.

    A chain where the model has no density (zero, NaN) has weight zero until it leaves.
    """

    def one(state, key):
        state, info = algorithm.step(key, state)
        return state, (state.position, getattr(info, "round", info))

    state, (positions, info) = jax.lax.scan(one, state, jax.random.split(rng_key, num_rounds))
    positions = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), positions)
    log_weights = jnp.where(jnp.isfinite(info.logdensity), 0.0, -jnp.inf).reshape(-1)
    weights = jax.nn.softmax(log_weights.astype(jax.tree.leaves(positions)[0].dtype))
    positions = without_weightless(positions, log_weights)
    num_invalid = jnp.sum(info.num_flow_invalid + info.num_diverging, dtype=jnp.int32)
    rates = jnp.mean(info.local_acceptance_rate), jnp.mean(info.flow_acceptance_rate)
    return state, positions, weights, MethodInfo(*rates, jnp.ones(()), jnp.full((), jnp.nan), num_invalid)


def without_weightless(positions, log_weights: Array):
    """Replace positions of weight zero by the heaviest one: if their energy is NaN, zero times it is NaN as well."""
    heaviest = jnp.argmax(log_weights)

    def one(leaf):
        has_weight = (log_weights > -jnp.inf).reshape((-1,) + (1,) * (leaf.ndim - 1))
        return jnp.where(has_weight, leaf, leaf[heaviest])

    return jax.tree.map(one, positions)


def check_positive(**numbers: int) -> None:
    """Raise unless all numbers are positive integers."""
    check_counts(numbers)
