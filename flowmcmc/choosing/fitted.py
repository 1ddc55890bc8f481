"""Warm-up with a flow that gradients need not train: production's own rounds, a few at a time, and fits between them.

`flowmcmc.adaptive` does everything in one compiled step. Where gradients have nothing to train, the rounds can be those
of `freeze`, and a second small program between them remembers where the chains were, fits the flow whenever there are
twice as many states as at the last fit, and adapts the step size. So the rounds are compiled once for warm-up and draws
together.
"""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from flowmcmc.adaptation import reservoir, training
from flowmcmc.adaptation.adaptive import AdaptiveInfo, AdaptiveState
from flowmcmc.adaptation.frozen import ProductionState
from flowmcmc.adaptation.rounds import RoundInfo, Tuning, total_evaluations
from flowmcmc.adaptation.step_size import step_size_adaptation
from flowmcmc.adaptation.training import TrainingInfo
from flowmcmc.base import Array, Flow, PyTree, SamplingAlgorithm, num_chains
from flowmcmc.choosing.calibration import (
    BUDGET_SHARE,
    GROWTH,
    LAST_FIT,
    MIN_SETTLED,
    RECENT,
    ROUNDS,
    SLOT_NUMBERS,
    SLOTS,
)
from flowmcmc.ground.budget import Budget
from flowmcmc.ground.compiling import compile_for
from flowmcmc.ground.conversions import strongly_typed
from flowmcmc.ground.leaves import concatenate_coordinates, concatenate_trees
from flowmcmc.ground.sharding import on_chains, replicate
from flowmcmc.ground.trees import layout_of, raveled
from flowmcmc.reading.edges import edges, reach
from flowmcmc.running.run import CHUNK_SIZE, Trace, compile_chunk, fetch_rows, keep_all, no_rounds, progress_postfix

__all__ = [
    "FitRounds",
    "Rounds",
    "current_loss",
    "grow_memory",
    "last_rounds",
    "rounds_with_fits",
]


class FitRounds(NamedTuple):
    """How many rounds to take, and how.

    Attributes
    ----------
    num_rounds, num_blocks
        In a block, with a fit near the end of each; and how many blocks at most.
    should_continue, is_settled
        Whether to take another block, given the one before and the flow's parameters; and whether the present one may
        end after `MIN_SETTLED` rounds, given these and the worst end of a coordinate (`edges`).
    is_known
        Whether the chains' state remembers so much of the target that the first fit can tell how many mixture
        components there are. Then the rounds have room for these and a few more, not for all that there might be.
    must_beat
        No round is taken unless the first fit has a lower held-out loss; None: whatever it has.
    target_acceptance_rate, keep, progress_bar, budget
        As in `sample`; the label of the bar or None. No more rounds are taken when BUDGET_SHARE of the budget is spent.
    """

    num_rounds: int
    num_blocks: int
    should_continue: Callable[[Trace, PyTree], bool]
    is_settled: Callable[[Trace, float], bool]
    is_known: bool
    must_beat: float | None
    target_acceptance_rate: float
    keep: Callable
    progress_bar: str | None
    budget: Budget


class Rounds(NamedTuple):
    """Rounds of one candidate: the `state` after them, what was kept of them (fewer after Ctrl-C), mixture components
    they had room for, how many were asked for, and the acceptance at the `worst_end` of a coordinate (`edges`)."""

    state: AdaptiveState
    trace: Trace
    num_slots: int
    num_asked: int
    worst_end: float

    @property
    def is_skipped(self) -> bool:
        """Whether no round was taken, as the first fit did not beat what it had to."""
        return self.num_asked == 0


def rounds_with_fits(
    rng_key: Array, frozen: SamplingAlgorithm, flow: Flow, state: AdaptiveState, how: FitRounds
) -> Rounds:
    """Warm up the chains of `state` and fit `flow` to where they go.

    Parameters
    ----------
    rng_key
        One key.
    frozen
        Of `production`; its rounds take the tuning and the moves from their state.
    flow
        That gradients have nothing to train in.
    state
        ``adaptive(...).init(positions, rng_key)``, perhaps with more states in its memory.
    how
        For how long, and what to keep.
    """
    advance = compile_chunk(frozen.step, keep_all, CHUNK_SIZE)
    update = compile_for(update_between_rounds, static=(flow, how.target_acceptance_rate))
    key_first, key_rounds, key_look = (jax.random.fold_in(rng_key, index) for index in range(3))
    dtype = jax.tree.leaves(state.position)[0].dtype
    pieces, num_fitted, num_slots, limit = [], count_seen(state), 1, how.num_rounds
    last_fit = max(1, int(LAST_FIT * how.num_rounds))
    chains: ProductionState = frozen.init(state.position)
    recent = deque(maxlen=min(RECENT, (-(-how.num_rounds // ROUNDS) + 1) // 2))
    with tqdm(total=how.num_rounds, desc=how.progress_bar, disable=not how.progress_bar, leave=False) as bar:
        try:
            state = refit(update, key_first, state, np.nan, is_due=True)
            if how.must_beat is not None and not state.training.best_loss < how.must_beat:
                limit = 0
            while (done := int(state.round)) < limit:
                tuning, num_slots = current_tuning(flow, state, num_slots, is_known=how.is_known)
                size = min(ROUNDS, limit - done)
                chains, kept = advance(key_rounds, chains._replace(tuning=tuning), done, size)
                kept = fetch_rows(kept, size)
                how.budget.spend(total_evaluations(kept.info))
                is_due = (seen := count_seen(state) + size * num_chains(state.position)) >= GROWTH * num_fitted
                is_due |= done % how.num_rounds < last_fit <= done % how.num_rounds + size
                num_fitted = seen if is_due else num_fitted
                rate = np.mean(kept.info.local_acceptance_rate)
                state = state._replace(position=chains.position)
                key = jax.random.fold_in(key_look, done)
                state = update(key, state, pad_rounds(kept.position), *update_arguments(size, rate, is_due, dtype))
                infos = adaptive_info(state, kept.info, tuning.step_size)
                pieces.append(how.keep(state._replace(position=kept.position), infos))
                bar.update(size)
                bar.set_postfix(progress_postfix(pieces[-1]))
                recent.append(steps_by_position(kept))
                # one look alone: with many, one of them would find all well by chance
                is_early = done + size == MIN_SETTLED < how.num_rounds
                if how.budget.share_spent >= BUDGET_SHARE or (
                    is_early and how.is_settled(last_rounds(pieces, how.num_rounds), worst_end_of(recent))
                ):
                    limit = done + size
                elif done + size == limit < how.num_blocks * how.num_rounds:
                    block = last_rounds(pieces, how.num_rounds)
                    limit += how.num_rounds if how.should_continue(block, state.tuning.params) else 0
                bar.total = limit
        except KeyboardInterrupt:
            done = sum(len(piece.info.step_size) for piece in pieces)
            warnings.warn(f"interrupted after {done} of {limit} rounds; returning what was done so far.", stacklevel=2)
    if not pieces:
        kept = no_rounds(frozen.step, keep_all, chains._replace(tuning=state.tuning))
        pieces = [
            how.keep(state._replace(position=kept.position), adaptive_info(state, kept.info, np.zeros((), dtype)))
        ]
    return Rounds(state, concatenate_trees(pieces), num_slots, limit, worst_end_of(recent))


def update_between_rounds(
    flow: Flow, target_acceptance_rate: float, rng_key: Array, state: AdaptiveState, positions, num_rounds, rate, is_due
) -> AdaptiveState:
    """Remember `num_rounds` rows of `positions`, fit the flow if that `is_due`, adapt the step size to the `rate`."""
    key_remember, key_fit = jax.random.split(rng_key)

    def fit(train_state):
        # there is nothing for an optimiser
        return training.refit(key_fit, train_state, flow, optax.identity())._replace(opt_state=train_state.opt_state)

    train_state = training.remember_rounds(key_remember, state.training, positions, state.round, num_rounds)
    train_state = jax.lax.cond(is_due, fit, lambda t: t, train_state)
    dual_averaging, learned, scale = step_size_adaptation(target_acceptance_rate).update(
        state.dual_averaging, rate, state.tuning.scale, train_state.seen, is_due
    )
    rest = replicate((Tuning(train_state.best, learned, scale), dual_averaging, train_state))
    return AdaptiveState(on_chains(state.position), state.round + num_rounds, *rest)


def current_loss(flow: Flow, state: AdaptiveState) -> float:
    """Held-out loss of what the chains have used last, on what is remembered by now."""
    return float(compile_for(tuning_loss, static=(flow,), is_brief=True)(state))


def tuning_loss(flow: Flow, state: AdaptiveState) -> Array:
    """Held-out loss of the flow parameters in the state's tuning."""
    return training.heldout_loss(state.training, state.tuning.params, flow)


def grow_memory(state: AdaptiveState, factor: int) -> AdaptiveState:
    """The same state with room for `factor` times as many: the ends of a funnel are rare."""
    seen, heldout = (reservoir.enlarge(memory, factor) for memory in (state.training.seen, state.training.heldout))
    return state._replace(training=state.training._replace(seen=seen, heldout=heldout))


def last_rounds(pieces: Sequence[Trace], num_rounds: int) -> Trace:
    """The end of a trace that is in pieces."""
    return jax.tree.map(lambda leaf: leaf[-num_rounds:], concatenate_trees(pieces))


def worst_end_of(recent: Sequence[tuple]) -> float:
    """Acceptance at the worst end of a coordinate (`edges`), from what `steps_by_position` has kept."""
    return reach(edges(*map(np.concatenate, zip(*recent)))) if recent else 1.0


def steps_by_position(kept: Trace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the chains were before each round but the first, as rows, and how often its steps were accepted."""
    positions = concatenate_coordinates(jax.tree.leaves(kept.position))[:-1]
    rates = (rate[1:].ravel() for rate in (kept.info.local_acceptance_rate, kept.info.flow_acceptance_rate))
    return positions.reshape(-1, positions.shape[2]), *rates


def refit(update: Callable, rng_key: Array, state: AdaptiveState, rate: float, *, is_due: bool) -> AdaptiveState:
    """`update_between_rounds`, compiled as `update`, without new rounds: what is remembered is fitted if that `is_due`,
    and the step size adapted to the `rate`."""
    dtype = jax.tree.leaves(state.position)[0].dtype
    nothing = jax.tree.map(lambda leaf: np.zeros((ROUNDS, *leaf.shape), leaf.dtype), state.position)
    return update(rng_key, strongly_typed(state), nothing, *update_arguments(0, rate, is_due, dtype))


def current_tuning(flow: Flow, state: AdaptiveState, num_slots: int, *, is_known: bool) -> tuple[Any, int]:
    """What to move with now, NumPy arrays, and how many mixture components it has room for."""
    params, num_slots = leave_room(flow, state, num_slots, is_known=is_known)
    step_size = jnp.exp(state.dual_averaging.log_step_size)
    return jax.tree.map(np.asarray, Tuning(params, step_size, state.tuning.scale)), num_slots


def leave_room(flow: Flow, state: AdaptiveState, num_slots: int, *, is_known: bool) -> tuple[PyTree, int]:
    """Parameters without unused mixture components but for some room, so that few shapes are compiled; and how many
    components there is room for."""
    params = state.tuning.params
    if not is_known:
        return params, 1
    if flow.num_components is None or flow.drop_unused_components is None:
        return params, num_slots
    dim = raveled(layout_of(jax.tree.map(lambda leaf: leaf[0], state.position)))[0]
    in_use = flow.num_components(params)
    num_slots = max(num_slots, 1 << (in_use - 1).bit_length(), min(SLOTS, SLOT_NUMBERS // dim**2))
    return flow.drop_unused_components(params, num_slots), num_slots


def adaptive_info(state: AdaptiveState, info: RoundInfo, step_size: np.ndarray) -> AdaptiveInfo:
    """What `adaptive` would have told of these rounds."""
    loss = np.asarray(state.training.best_loss)
    learned: PyTree = loss * np.nan, loss, np.int32(0), np.bool_(False)
    learned = TrainingInfo(*learned)
    return AdaptiveInfo(info, *jax.tree.map(lambda value: np.full(len(info.logdensity), value), (learned, step_size)))


def count_seen(state: AdaptiveState) -> int:
    """States ever offered to its memory."""
    return int(state.training.seen.count) + int(state.training.heldout.count)


def update_arguments(num_rounds: int, rate: float, is_due: bool, dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments of `update_between_rounds` of one type each, or it would be compiled again."""
    return np.array(num_rounds), np.array(rate, dtype), np.array(is_due)


def pad_rounds(positions: PyTree) -> PyTree:
    """With rows of zeros up to ROUNDS."""
    return jax.tree.map(lambda rows: np.pad(rows, [(0, ROUNDS - len(rows))] + [(0, 0)] * (rows.ndim - 1)), positions)
