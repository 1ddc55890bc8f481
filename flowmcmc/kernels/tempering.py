r"""From a broad density to the target without knowing its modes: BlackJAX's adaptive tempered SMC.

    pi_t(x) = start(x)^(1 - lambda_t) p(x)^lambda_t,   0 = lambda_0 < ... < lambda_T = 1

Each stage raises lambda as far as the particles' weights allow, resamples, and moves every particle. The scale of the
moves is that of the particles, and their step size follows their acceptance. Del Moral, Doucet, Jasra, JRSS B 68, 2006.
"""

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc import adaptive_tempered, resampling
from tqdm import tqdm

from flowmcmc.base import Array, LocalKernel, LogDensity, PyTree
from flowmcmc.ground.arguments import check_counts, check_local, check_numbers, hashable, is_density
from flowmcmc.ground.checks import check_start
from flowmcmc.ground.compiling import compile_for
from flowmcmc.ground.conversions import as_key, strongly_typed
from flowmcmc.kernels.scaled import count_evaluations, pooled_scale, scaled_kernel

__all__ = ["Particles", "tempered_smc"]

MAX_STAGES = 500
IMPOSSIBLE = -1e20  # finite, so that zero times it is zero


class Particles(NamedTuple):
    """What `tempered_smc` returns.

    Attributes
    ----------
    positions
        Particle axis first, equally weighted.
    log_z
        Estimate of the target's log integral, nats.
    tempering, acceptance_rate
        For each stage the inverse temperature reached, and the mean acceptance of the moves before it.
    num_evaluations
        Of the density, with its gradient or without.
    """

    positions: PyTree
    log_z: float
    tempering: np.ndarray
    acceptance_rate: np.ndarray
    num_evaluations: int


def tempered_smc(
    rng_key: Array | int,
    logdensity_fn: LogDensity,
    start,
    *,
    num_particles: int = 2000,
    local: LocalKernel = blackjax.mala,
    num_local_steps: int = 10,
    target_ess: float = 0.6,
    target_acceptance_rate: float = 0.65,
    progress_bar: bool = True,
) -> Particles:
    """Particles at the target, moved there from `start` by adaptive tempered SMC: Del Moral, Doucet and Jasra (2006).

    They find modes that hold a fair share of the mass wherever `start` reaches; the modes' weights are as good as the
    number of particles, which is what chains with flow proposals make exact.

    Parameters
    ----------
    rng_key
        A key or an int seed.
    logdensity_fn
        Unnormalised log density of one position; NaN counts as zero density.
    start
        A normalised density that covers the target, with ``sample(rng_key)`` and ``log_prob(position)``:
        ``flowmcmc.normal(position, scale=10.0)``, ``flowmcmc.uniform``, or a NumPyro distribution.
    num_particles
        How many.
    local, num_local_steps, target_acceptance_rate
        The moves of a stage, as in `flowmcmc.adaptive`.
    target_ess
        Effective sample size of the weights, as a fraction, down to which each stage may go; more means more stages.
    progress_bar
        Show one, with the inverse temperature.

    Returns
    -------
    Particles
        ``positions``, leaves (num_particles, ...), equally weighted; ``log_z``, the estimated log integral of the
        target, in nats; ``tempering`` and ``acceptance_rate``, (stages,).

    Raises
    ------
    TypeError, ValueError
        If `start` is no density, an option is out of range, or the target is not reached in 500 stages.
    """
    if not is_density(start):
        raise TypeError(
            f"start must have sample(rng_key) and log_prob(position), as flowmcmc.normal(position, scale=10.0) has; "
            f"got {type(start).__name__}."
        )
    check_counts({"num_particles": num_particles, "num_local_steps": num_local_steps})
    check_local(local)
    shares = {"target_ess": target_ess, "target_acceptance_rate": target_acceptance_rate}
    check_numbers(shares)
    for name, value in shares.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
    rng_key = as_key(rng_key)
    check_start(jax.random.fold_in(rng_key, 0), logdensity_fn, start)
    key_start, key_run = (jax.random.fold_in(rng_key, index) for index in (1, 2))
    moves = Moves(hashable(local), num_local_steps, target_ess, target_acceptance_rate)
    stage = compile_for(temper_once, logdensity_fn, start.log_prob, static=(moves,))
    particles = compile_for(draw_particles, start.sample, static=(num_particles,), is_brief=True)(key_start)
    dtype = jax.tree.leaves(particles)[0].dtype
    state, step_size = strongly_typed((adaptive_tempered.init(particles), jnp.array(0.1, dtype)))
    log_z, lambdas, rates, num_evaluations = 0.0, [0.0], [], 0
    with tqdm(total=1.0, desc="tempering", disable=not progress_bar, leave=False) as bar:
        while len(lambdas) <= MAX_STAGES:
            # the stage after lambda = 1 resamples and moves at the target itself
            is_last = lambdas[-1] > 1 - 1e-6
            state, step_size, gain, rate, number = stage(jax.random.fold_in(key_run, len(lambdas)), state, step_size)
            num_evaluations += int(number)
            log_z, rates = log_z + float(gain), [*rates, float(rate)]
            lambdas.append(float(state.tempering_param))
            bar.update(round(lambdas[-1] - bar.n, 4))
            bar.set_postfix(accepted=f"{rates[-1]:.2f}", refresh=False)
            if is_last:
                return Particles(state.particles, log_z, np.array(lambdas[1:]), np.array(rates), num_evaluations)
    raise start_is_too_far(MAX_STAGES, lambdas[-1])


def start_is_too_far(num_stages: int, reached: float) -> ValueError:
    """The error of a tempering that ends at this inverse temperature."""
    return ValueError(
        f"after {num_stages} stages the tempering is still at {reached:.3g} of 1: start is too far from the target "
        "(or much too broad); give one whose scale is nearer."
    )


def draw_particles(num_particles: int, draw: Callable, rng_key: Array) -> PyTree:
    """Of the density to start from, particle axis first."""
    return jax.vmap(draw)(jax.random.split(rng_key, num_particles))


class Moves(NamedTuple):
    """Of one stage, as in `tempered_smc`."""

    local: LocalKernel
    num_local_steps: int
    target_ess: float
    target_acceptance_rate: float


def temper_once(
    moves: Moves, logdensity_fn: LogDensity, start_log_prob: Callable, rng_key: Array, state, step_size: Array
):
    """One stage: resample, move at this lambda, raise it and weigh. The new state and step size, the gain of log Z, the
    acceptance rate, and evaluations of the density."""

    def log_ratio(position):
        ratio = logdensity_fn(position) - start_log_prob(position)
        return jnp.where(jnp.isfinite(ratio), ratio, IMPOSSIBLE)

    scale = pooled_scale(state.particles, state.weights)

    def algorithm(tempered: Callable):
        return scaled_kernel(moves.local, tempered, step_size, scale)

    kernel = adaptive_tempered.build_kernel(
        start_log_prob,
        log_ratio,
        lambda key, inner, tempered: algorithm(tempered).step(key, inner),
        lambda position, tempered: algorithm(tempered).init(position),
        resampling.systematic,
        moves.target_ess,
    )
    new, info = kernel(rng_key, state, moves.num_local_steps, {})
    rates = getattr(info.update_info, "acceptance_rate", jnp.full((), moves.target_acceptance_rate))
    rate = jnp.mean(jnp.where(jnp.isnan(rates), 0.0, rates))
    # acceptance falls by some 0.4 for each factor of e, so that this goes most of the way and does not swing
    new_step_size = step_size * jnp.exp(3 * (rate - moves.target_acceptance_rate))
    # each particle is weighed before its moves and after, and its kernel evaluates the density once to begin
    count = jax.vmap(lambda info: count_evaluations(info, moves.num_local_steps))(info.update_info)
    number = jnp.sum(count) + 3 * len(state.weights)
    return strongly_typed((new, new_step_size.astype(step_size.dtype), info.log_likelihood_increment, rate, number))
