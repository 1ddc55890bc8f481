r"""Negatives with weights, which also estimate log Z while training.

importance_sampling   x_i ~ q, w_i = p_theta(x_i) / q(x_i)          the flow q stays fixed
jarzynski             walkers whose weights follow theta: log w += log p_new(x) - log p_old(x), then moves that leave
                      p_new invariant; log Z = log Z_0 + log mean w (Carbone et al., arXiv 2305.19414)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from blackjax.smc.resampling import systematic

from ebm.method import MethodInfo, NegativeSampler
from ebm.negatives.chains import check_positive, run_rounds, without_weightless
from flowmcmc import Density, Flow

__all__ = ["JarzynskiState", "importance_sampling", "jarzynski"]

Array = jax.Array


class JarzynskiState(NamedTuple):
    """The sampler's state (walkers), log weights, log densities of the walkers under the model that last moved them,
    and log Z gathered at resamplings."""

    sampler: Any
    log_weights: Array
    logdensity: Array
    log_z: Array


def importance_sampling(flow: Flow, params, *, num_draws: int = 1024) -> NegativeSampler:
    """Self-normalised importance sampling with a fixed flow, say one fitted to the data by `flowmcmc.fit_flow`.

    Biased by O(1 / num_draws); useless where ``info.ess`` is small. A flow that misses a mode never shows it.
    Self-normalised importance sampling: Geweke (1989).

    Parameters
    ----------
    flow, params
        Where the negatives are drawn from.
    num_draws
        Negatives for each update.

    Returns
    -------
    NegativeSampler
        Its ``step`` gives num_draws positions with self-normalised weights; ``log_z`` of its `MethodInfo` is in nats.
    """
    check_positive(num_draws=num_draws)

    def init(rng_key, logdensity_fn, data):
        return ()

    def step(rng_key, state, logdensity_fn, batch):
        keys = jax.random.split(rng_key, num_draws)
        positions, log_probs = jax.vmap(flow.sample_and_log_prob, (0, None))(keys, params)
        log_weights = jax.vmap(logdensity_fn)(positions) - log_probs
        is_invalid = ~(log_weights < jnp.inf)
        log_weights = jnp.where(is_invalid, -jnp.inf, log_weights)
        positions = without_weightless(positions, log_weights)
        log_z = jax.nn.logsumexp(log_weights) - jnp.log(num_draws)
        missing = jnp.full((), jnp.nan)
        info = MethodInfo(
            missing, missing, effective_fraction(log_weights), log_z, jnp.sum(is_invalid, dtype=jnp.int32)
        )
        return positions, jax.nn.softmax(log_weights), state, info

    return NegativeSampler(init, step)


def jarzynski(
    make_sampler: Callable, tilt: Density, *, num_walkers: int = 1024, num_rounds: int = 1, resample_below: float = 0.5
) -> NegativeSampler:
    """Walkers drawn from the tilt, whose weights make up for every change of theta exactly.

    Reference: Carbone et al., arXiv 2305.19414.

    Parameters
    ----------
    make_sampler
        A kernel that leaves the model invariant, say ``partial(freeze, local=blackjax.mala, flow=None, tuning=...,
        num_flow_steps=0)``: its Metropolis test stands in for the log ratio that an unadjusted move adds to weights.
        An `adaptive` one learns its step size from the walkers, a small bias.
    tilt
        The model's: walkers start there, with weights exp(-E_0).
    num_walkers, num_rounds
        Walkers, all of which move at each update, and rounds of the sampler for each.
    resample_below
        Systematic resampling when the effective sample size falls below this fraction. 0: never.

    Returns
    -------
    NegativeSampler
        Its state is a `JarzynskiState`; its ``step`` gives num_walkers * num_rounds positions with weights that sum to
        one; ``log_z`` of its `MethodInfo` is in nats.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    check_positive(num_walkers=num_walkers, num_rounds=num_rounds)
    if not 0 <= resample_below <= 1:
        raise ValueError(f"resample_below must lie in [0, 1], got {resample_below}.")

    def init(rng_key, logdensity_fn, data):
        key_start, key_sampler = jax.random.split(rng_key)
        walkers = jax.vmap(tilt.sample)(jax.random.split(key_start, num_walkers))
        logdensity = jax.vmap(tilt.log_prob)(walkers)
        zeros = jnp.zeros_like(logdensity)
        return JarzynskiState(make_sampler(logdensity_fn).init(walkers, key_sampler), zeros, logdensity, zeros[0])

    def step(rng_key, state, logdensity_fn, batch):
        key_resample, key_run = jax.random.split(rng_key)
        walkers = state.sampler.position
        change = jax.vmap(logdensity_fn)(walkers) - state.logdensity
        is_invalid = ~(change < jnp.inf)
        log_weights = jnp.where(is_invalid, -jnp.inf, state.log_weights + change)
        gathered = state.log_z + jax.nn.logsumexp(log_weights) - jnp.log(num_walkers)
        weights = jax.nn.softmax(log_weights)
        is_due = effective_fraction(log_weights) < resample_below
        chosen = systematic(key_resample, weights, num_walkers)
        rows = jnp.where(is_due, chosen, jnp.arange(num_walkers))
        walkers = jax.tree.map(lambda leaf: leaf[rows], walkers)
        log_weights = jnp.where(is_due, 0.0, log_weights)
        log_z = jnp.where(is_due, gathered, state.log_z)
        sampler, positions, _, info = run_rounds(
            key_run, make_sampler(logdensity_fn), state.sampler._replace(position=walkers), num_rounds
        )
        info = info._replace(
            ess=effective_fraction(log_weights), log_z=gathered, num_invalid=info.num_invalid + jnp.sum(is_invalid)
        )
        weights = jnp.tile(jax.nn.softmax(log_weights), num_rounds) / num_rounds
        logdensity = jax.vmap(logdensity_fn)(sampler.position)
        return positions, weights, JarzynskiState(sampler, log_weights, logdensity, log_z), info

    return NegativeSampler(init, step)


def effective_fraction(log_weights: Array) -> Array:
    """Effective sample size as a fraction of the number of weights."""
    log_sum = jax.nn.logsumexp(log_weights)
    return jnp.exp(2 * log_sum - jax.nn.logsumexp(2 * log_weights)) / log_weights.shape[0]
