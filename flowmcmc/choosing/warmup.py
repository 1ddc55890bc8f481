"""Warm-up of `sample`: start from particles if there are any, and take the cheapest flow that is good enough.

A Gaussian mixture costs a small fraction of coupling layers, to compile and to run. So each candidate gets its rounds
in turn, from the cheapest on, with the chains and the memory of the one before. A flow goes on as long as it gains; the
next is tried only while proposals are rejected, some chain waits long for one, or chains are cut off (`edges`), or
where the states promise that it is better (`candidates`); which one is taken in the end, `price` says.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from flowmcmc.adaptation import training
from flowmcmc.adaptation.adaptive import AdaptiveState
from flowmcmc.adaptation.rounds import Moves, Tuning, total_evaluations
from flowmcmc.base import Array, PyTree, SamplingAlgorithm
from flowmcmc.choosing.calibration import (
    BLOCK,
    BUDGET_PIECE,
    BUDGET_SHARE,
    ENOUGH,
    GAINS,
    HOPELESS,
    MAX_BLOCKS,
    MAX_WAIT,
    MEMORY,
    SHORT_WAIT,
    STARVED,
    STILL_LEARNING,
)
from flowmcmc.choosing.candidates import Candidate, FirstResults, Outlook, learns_by_gradients
from flowmcmc.choosing.fitted import (
    FitRounds,
    Rounds,
    current_loss,
    grow_memory,
    last_rounds,
    rounds_with_fits,
)
from flowmcmc.choosing.price import Trial, block_stats, choose, is_enough, is_settled, is_sufficient, local_cost
from flowmcmc.choosing.shapes import stored_states
from flowmcmc.ground.budget import Budget
from flowmcmc.ground.compiling import compile_for
from flowmcmc.ground.conversions import strongly_typed
from flowmcmc.ground.leaves import concatenate_trees
from flowmcmc.running.run import RunState, Trace, run

__all__ = ["WarmUp", "WarmUpPlan", "begin_of", "init_with_particles", "warm_up"]


class WarmUpPlan(NamedTuple):
    """What all candidates share.

    Attributes
    ----------
    make_sampler, make_frozen
        ``candidate -> SamplingAlgorithm``, an `adaptive` sampler, and the `production` of its rounds.
    make_moves
        ``trial -> Moves``, what a round of production is made of.
    num_rounds
        For a single candidate; of several, each gets `BLOCK` of them, those that go on gaining up to `MAX_BLOCKS`
        times.
    target_acceptance_rate
        As in `adaptive`.
    keep, progress_bar
        As in `run`.
    budget
        Of the run. No further rounds are taken when `BUDGET_SHARE` of it is spent.
    """

    make_sampler: Callable[[Candidate], SamplingAlgorithm]
    make_frozen: Callable[[Candidate], SamplingAlgorithm]
    make_moves: Callable[[Trial], Moves]
    num_rounds: int
    target_acceptance_rate: float
    keep: Callable
    progress_bar: bool
    budget: Budget


class WarmUp(NamedTuple):
    """Positions, what to freeze, what a round of production is made of, what was kept of each round of warm-up, the
    index of the candidate taken, and whether warm-up was interrupted."""

    position: PyTree
    tuning: Tuning
    moves: Moves
    trace: Trace
    candidate: int
    is_partial: bool


class Tried(NamedTuple):
    """A candidate that took rounds: its index, how they went, what to freeze, their trace, whether they were
    interrupted, whether its rounds are dear, and whether no dearer flow need be tried."""

    index: int
    trial: Trial
    tuning: Tuning
    trace: Trace
    is_partial: bool
    is_dear: bool
    is_sufficient: bool


def warm_up(
    rng_key: Array, plan: WarmUpPlan, candidates: Sequence[Candidate], positions: PyTree, particles: PyTree | None
) -> WarmUp:
    """Adapt, with one flow after the other.

    Parameters
    ----------
    rng_key
        One key.
    plan
        How.
    candidates
        From the cheapest to the dearest.
    positions
        Starting positions, chain axis first.
    particles
        More states of the target to remember, or None.
    """
    tried: list[Tried] = []
    start: Any = positions  # or the state of the candidate before
    results = None
    for index, candidate in enumerate(candidates):
        if results is not None and candidate.outlook(results) is Outlook.NONE:
            continue
        key = jax.random.fold_in(rng_key, index)
        try:
            state, found = try_candidate(key, plan, candidates, tried, index, start, particles if index == 0 else None)
        except KeyboardInterrupt:  # while something was compiled; rounds return what they have done
            if not tried:
                raise
            warnings.warn("interrupted before the next flow; returning what was done so far.", stacklevel=2)
            tried[-1] = tried[-1]._replace(is_partial=True)
            break
        if found is not None:
            tried.append(found)
        if found is not None or index == 0:
            start = state
        if index == 0:
            stats = found and found.trial.stats
            results = FirstResults(
                stored_states(state.training.seen), stats and stats.loss, stats and stats.acceptance_rate
            )
        is_spent = plan.budget.share_spent >= BUDGET_SHARE and bool(tried)
        if is_spent or (found is not None and (found.is_partial or is_done(tried, candidates, results))):
            break
    best = tried[choose([one.trial for one in tried])]
    # the chains go on from where they are last, whichever flow they take
    trace = concatenate_trees([one.trace for one in tried])
    moves = plan.make_moves(best.trial)
    return WarmUp(start.position, best.tuning, moves, trace, best.index, tried[-1].is_partial)


def try_candidate(
    rng_key: Array,
    plan: WarmUpPlan,
    candidates: Sequence[Candidate],
    tried: Sequence[Tried],
    index: int,
    start: PyTree | AdaptiveState,
    particles: PyTree | None,
) -> tuple[AdaptiveState, Tried | None]:
    """The rounds of one candidate, from `start`: the state after them, and how they went; None if it took none, as its
    first fit was not good enough."""
    candidate, is_single = candidates[index], len(candidates) == 1
    key_begin, key = jax.random.split(rng_key)
    sampler = plan.make_sampler(candidate)
    state = begin_of(sampler)(key_begin, start, particles)
    position = jax.tree.map(lambda leaf: leaf[0], state.position)
    before = candidates[tried[-1].index] if tried else None
    follows_on = candidate.follows_ridges and before is not None
    if candidate.follows_ridges and before is not None and not before.follows_ridges:
        state = grow_memory(state, MEMORY)
    size = plan.num_rounds if is_single else max(1, int(BLOCK * plan.num_rounds))
    num_blocks = 1 if is_single else MAX_BLOCKS
    label = plan.progress_bar and ("warm-up" if is_single else f"warm-up, flow {index + 1}/{len(candidates)}")
    if is_fitted := not learns_by_gradients(candidate.flow, position):
        how = FitRounds(
            num_rounds=size,
            num_blocks=num_blocks,
            should_continue=continue_while_gaining(candidate, follows_on),
            is_settled=(lambda block, worst_end: False) if is_single else is_settled,
            is_known=index > 0 or particles is not None,
            must_beat=loss_to_beat(candidates, index, before, start, state, particles),
            target_acceptance_rate=plan.target_acceptance_rate,
            keep=plan.keep,
            progress_bar=label or None,
            budget=plan.budget,
        )
        warm = rounds_with_fits(key, plan.make_frozen(candidate), candidate.flow, state, how)
        if warm.is_skipped:
            return warm.state, None
    else:
        lowest_loss = min((one.trial.stats.loss for one in tried), default=float("inf"))
        warm = train_in_blocks(key, plan, sampler, state, size, num_blocks, lowest_loss, label)
    block = last_rounds([warm.trace], size)
    stats = block_stats(block)
    trial = Trial(stats, warm.worst_end, candidate.price, local_cost(block.info.round))
    tuning = warm.state.tuning
    if candidate.flow.drop_unused_components is not None:
        tuning = tuning._replace(params=candidate.flow.drop_unused_components(tuning.params, warm.num_slots))
    is_partial = len(warm.trace.info.step_size) < warm.num_asked
    is_dear = follows_on or not is_fitted
    is_good = is_sufficient(stats, warm.worst_end, is_fitted=is_fitted and not is_single)
    return warm.state, Tried(index, trial, tuning, warm.trace, is_partial, is_dear, is_good)


def loss_to_beat(
    candidates: Sequence[Candidate],
    index: int,
    before: Candidate | None,
    start: PyTree | AdaptiveState,
    state: AdaptiveState,
    particles: PyTree | None,
) -> float | None:
    """Held-out loss above which a first fit shows that the rounds of a candidate would be wasted; None: never."""
    candidate = candidates[index]
    if before is not None and candidate.min_first_gain is not None:
        return current_loss(before.flow, start) - candidate.min_first_gain
    thresholds = [later.threshold for later in candidates[index + 1 :] if later.threshold is not None]
    if index or particles is None or not thresholds:
        return None
    rows = stored_states(state.training.seen)
    return min(threshold(rows) for threshold in thresholds)


def is_done(tried: Sequence[Tried], candidates: Sequence[Candidate], results: FirstResults | None) -> bool:
    """Whether no further candidate need be tried: one was sufficient and none is promised to be better; or a dear one
    accepts often, so that those still dearer would leave the same chains waiting."""
    last = tried[-1]
    later = candidates[last.index + 1 :]
    if last.index == 0 and results and any(other.outlook(results) is Outlook.BETTER for other in later):
        return False
    return any(one.is_sufficient for one in tried) or (last.is_dear and last.trial.stats.acceptance_rate >= ENOUGH)


def train_in_blocks(
    rng_key: Array,
    plan: WarmUpPlan,
    sampler: SamplingAlgorithm,
    state: AdaptiveState,
    size: int,
    num_blocks: int,
    lowest_loss: float,
    progress_bar: str | bool,
) -> Rounds:
    """Rounds of a flow that gradients train, a block at a time while it learns and is ahead of those before it."""
    run_state, traces, num_asked = RunState(0, state), [], 0
    piece = min(size, BUDGET_PIECE) if plan.budget.is_limited else size
    while num_asked < num_blocks * size and not (traces and plan.budget.share_spent >= BUDGET_SHARE):
        num_now = min(piece, size - num_asked % size)
        num_asked += num_now
        run_state, trace = run(rng_key, sampler, run_state, num_now, keep=plan.keep, progress_bar=progress_bar)
        plan.budget.spend(total_evaluations(trace.info.round))
        traces.append(trace)
        if len(trace.info.step_size) < num_now:
            break
        if num_asked % size == 0:
            stats = block_stats(last_rounds(traces, size))
            if is_enough(stats, MAX_WAIT) or stats.gain < STILL_LEARNING or stats.loss > lowest_loss:
                break
    return Rounds(run_state.sampler, concatenate_trees(traces), 1, num_asked, 1.0)


def begin_of(sampler: SamplingAlgorithm) -> Callable:
    """``(rng_key, start, particles) -> AdaptiveState``, compiled: see `init_with_particles`."""
    return compile_for(init_with_particles, static=(sampler.init,), is_brief=True)


def init_with_particles(
    init: Callable, rng_key: Array, start: PyTree | AdaptiveState, particles: PyTree | None
) -> AdaptiveState:
    """First state of an `adaptive` sampler, from positions or another's state, that also remembers `particles`."""
    key_init, key_remember = jax.random.split(rng_key)
    state = init(start, key_init)
    if particles is not None:
        state = state._replace(training=training.remember(key_remember, state.training, particles, jnp.array(0)))
    return strongly_typed(state)


def continue_while_gaining(candidate: Candidate, follows_on: bool) -> Callable[[Trace, PyTree], bool]:
    """Whether more of the proposals were accepted than in the block before, or many but some chain had to wait. What a
    flow that gets no further lacks is another shape, unless one component is best: then it is states."""
    rates = [0.0]
    count = candidate.flow.num_components or (lambda params: 0)

    def should_continue(block, params):
        stats = block_stats(block)
        rate = stats.acceptance_rate
        rates.append(rate)
        if not follows_on and (count(params) != 1 or rate < STARVED or is_enough(stats, MAX_WAIT)):
            return False
        return rate > rates[-2] + GAINS or (follows_on and rate >= HOPELESS and stats.longest_wait > SHORT_WAIT)

    return should_continue
