"""The adaptive sampler: one BlackJAX ``SamplingAlgorithm`` on the ensemble of chains, one step of it a round.

A round moves all chains (`rounds`), remembers where they are, trains the flow there (`training`) and
adapts the local step size by dual averaging and its scale by the pooled spread of the remembered states. The state
holds nothing that depends on the target, so a target that changes between rounds needs no support from here.

Adaptation breaks the Markov property: use the draws for warm-up only, then `flowmcmc.freeze`.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.adaptation.step_size import DualAveragingAdaptationState
from jax.tree_util import Partial

from flowmcmc.adaptation import training
from flowmcmc.adaptation.batch import Loss, forward_kl
from flowmcmc.adaptation.rounds import RoundInfo, RoundSteps, Tuning, check_steps, take_round
from flowmcmc.adaptation.step_size import step_size_adaptation
from flowmcmc.adaptation.training import Training, TrainingInfo, TrainingState
from flowmcmc.base import Array, Flow, LocalKernel, LogDensity, PyTree, SamplingAlgorithm, num_chains
from flowmcmc.ground.arguments import check_callables, check_counts, check_numbers, check_optimizer, hashable
from flowmcmc.ground.compiling import as_partial
from flowmcmc.ground.sharding import on_chains, replicate
from flowmcmc.kernels.imh import imh
from flowmcmc.kernels.scaled import pooled_scale

__all__ = ["AdaptiveInfo", "AdaptiveState", "adaptive", "default_optimizer"]


class AdaptiveState(NamedTuple):
    """Positions (chain axis first), rounds done, what to freeze, and what is needed to go on adapting."""

    position: PyTree
    round: Array
    tuning: Tuning
    dual_averaging: DualAveragingAdaptationState
    training: TrainingState


class AdaptiveInfo(NamedTuple):
    """The round's `RoundInfo` (chain axis), its `TrainingInfo`, and the step size it used."""

    round: RoundInfo
    training: TrainingInfo
    step_size: Array


# where there is no flow: nothing to train, and no density anywhere
NO_FLOW = Flow(lambda rng_key, position: (), NotImplemented, lambda params, position: jnp.array(-jnp.inf))


class Adaptation(NamedTuple):
    """Options of `adaptive` under their names there."""

    training: Training
    history_size: int | None
    refit_every: int | None
    target_acceptance_rate: float
    step_size: float
    enough_acceptance: float


@cache
def default_optimizer() -> optax.GradientTransformation:
    """Adam at 2e-3 with gradients clipped to norm 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-3))


def adaptive(
    logdensity_fn: LogDensity,
    local: LocalKernel,
    flow: Flow | None,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_local_steps: int = 5,
    num_flow_steps: int = 5,
    num_train_steps: int = 20,
    batch_size: int = 256,
    history_size: int | None = None,
    refit_every: int | None = None,
    flow_kernel: Callable = imh,
    loss: Loss = forward_kl,
    target_acceptance_rate: float = 0.65,
    step_size: float = 0.1,
    patience: int = 5,
    enough_acceptance: float = 0.9,
) -> SamplingAlgorithm:
    """Local moves and flow proposals on all chains, the flow trained on them as they go (arXiv 2105.12603).

    Parameters
    ----------
    logdensity_fn
        Unnormalised log density of one position (any pytree); returns a scalar.
    local
        Constructor ``(logdensity_fn, step_size) -> SamplingAlgorithm``: ``blackjax.mala``, ``blackjax.nuts``,
        ``functools.partial(blackjax.hmc, num_integration_steps=10)``...
    flow
        Proposal density, say ``real_nvp(position)``; None, with ``num_flow_steps=0``, for local steps alone.
    optimizer
        Any optax optimiser; default `default_optimizer`.
    num_local_steps, num_flow_steps
        Steps of each kind in a round, for each chain. Either may be 0.
    num_train_steps, batch_size
        Gradient steps in a round, and chain states in each.
    history_size
        Chain states remembered for training (a quarter as many are held out for comparison). None means 8192, or 32 for
        each chain if that is more.
    refit_every
        Rounds between two closed-form fits (``flow.fit``), for a target that changes; None: rounds 0, 1, 3, 7, 15, ...
    flow_kernel
        `imh`, or `isir`, or ``functools.partial(isir, num_proposals=64)``.
    loss
        See `flowmcmc.losses`.
    target_acceptance_rate
        Of the local kernel, for dual averaging.
    step_size
        First local step size, in units of the chains' spread.
    patience
        Bursts of training without improvement on held-out states after which training rests until the next refit.
    enough_acceptance
        Training rests while flow proposals are accepted at this rate or above.

    Returns
    -------
    SamplingAlgorithm
        ``init(positions, rng_key)`` and ``step(rng_key, state)``; ``state.tuning`` is what `freeze` takes. In place of
        positions `init` also takes the `AdaptiveState` of a sampler with another flow: its chains, what it remembers,
        and its step size go on.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    steps = check_steps(local, flow, num_local_steps, num_flow_steps, flow_kernel)
    check_callables({"loss": loss}, "flowmcmc.losses.forward_kl")
    smallest = {"num_train_steps": 0, "batch_size": 1, "patience": 1, "history_size": 8, "refit_every": 1}
    for name, given in zip(smallest, (num_train_steps, batch_size, patience, history_size, refit_every)):
        if given is not None:
            check_counts({name: given}, smallest[name])
    check_numbers({"step_size": step_size, "enough_acceptance": enough_acceptance})
    step_size_adaptation(target_acceptance_rate)  # raises if that is out of range
    if not 0 < step_size < float("inf"):
        raise ValueError(f"step_size must be positive, got {step_size}.")
    if optimizer is None:
        optimizer = default_optimizer()
    check_optimizer(optimizer)
    burst = num_train_steps if num_flow_steps else 0
    how = Adaptation(
        Training(steps.flow or NO_FLOW, hashable(optimizer), hashable(loss), burst, batch_size, patience),
        history_size,
        refit_every,
        float(target_acceptance_rate),
        float(step_size),
        float(enough_acceptance),
    )
    step = Partial(hashable(partial(adaptive_round, steps, how)), as_partial(logdensity_fn))
    return SamplingAlgorithm(hashable(partial(first_state, how)), step)


def first_state(how: Adaptation, positions: PyTree | AdaptiveState, rng_key: Array) -> AdaptiveState:
    """The `init` of `adaptive`."""
    adaptation = step_size_adaptation(how.target_acceptance_rate)
    if isinstance(earlier := positions, AdaptiveState):
        fresh = first_state(how, earlier.position, rng_key)
        train_state = fresh.training._replace(seen=earlier.training.seen, heldout=earlier.training.heldout)
        tuning = earlier.tuning._replace(params=train_state.best)
        return fresh._replace(tuning=tuning, dual_averaging=adaptation.init(tuning.step_size), training=train_state)
    dtype = jax.tree.leaves(positions)[0].dtype
    chains = num_chains(positions)
    size = how.history_size or max(8192, 32 * chains)
    train_state = training.start(rng_key, positions, how.training.flow, how.training.optimizer, size)
    scale = pooled_scale(positions, jnp.ones(chains, dtype))
    start = jnp.array(how.step_size, dtype)
    tuning = Tuning(train_state.best, start, scale)
    return AdaptiveState(positions, jnp.array(0), tuning, adaptation.init(start), train_state)


def adaptive_round(
    steps: RoundSteps, how: Adaptation, logdensity_fn: LogDensity, rng_key: Array, state: AdaptiveState
) -> tuple[AdaptiveState, AdaptiveInfo]:
    """The `step` of `adaptive`."""
    flow, optimizer = how.training.flow, how.training.optimizer
    key_round, key_remember, key_refit, key_train = jax.random.split(rng_key, 4)
    is_refit = training.is_refit_round(state.round, how.refit_every)
    train_state = jax.lax.cond(
        is_refit, lambda t: training.refit(key_refit, t, flow, optimizer), lambda t: t, state.training
    )
    current_step_size = jnp.exp(state.dual_averaging.log_step_size)
    tuning = Tuning(train_state.best, current_step_size, state.tuning.scale)
    positions, info, pool = take_round(key_round, state.position, None, tuning, logdensity_fn, steps)
    # from here on all devices do the same
    everywhere, info, pool = replicate((positions, info, pool))
    train_state = training.remember(key_remember, train_state, everywhere, state.round)
    # a rate that is not known, NaN, does not stop the training
    is_wanted = ~(jnp.mean(info.flow_acceptance_rate) >= how.enough_acceptance)
    train_state, train_info = training.learn(key_train, train_state, pool, logdensity_fn, is_wanted, how.training)
    rate = jnp.mean(info.local_acceptance_rate)
    dual_averaging, learned, scale = step_size_adaptation(how.target_acceptance_rate).update(
        state.dual_averaging, rate, state.tuning.scale, train_state.seen, is_refit
    )
    tuning = Tuning(train_state.best, learned, scale)
    new_state = AdaptiveState(on_chains(positions), state.round + 1, tuning, dual_averaging, train_state)
    return new_state, AdaptiveInfo(info, train_info, current_step_size)
