r"""The search from a density: warm-up at inverse temperatures below one, where proposals do most of the moving.

    pi_b(x) = start(x)^(1 - b) p(x)^b,   0 = b_0 < b_1 < ... < b_T = 1

A stage takes the next b by the effective sample size of all particles of all stages (`particles`); resamples; fits the
flow to the outcome; and moves the particles by the rounds of `production`, the very program that draws later, until
their log densities have forgotten what they were resampled for. A first wave of draws of the start, one evaluation
each, is several times larger, so that it sees what is small.

    Z_{s+1} / Z_s = mean over stage s of (p(x) / start(x))^(b_{s+1} - b_s)

Tempering: Del Moral, Doucet and Jasra (2006). All stages kept: Karamanis and Seljak, arXiv 2407.20722.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flowmcmc.adaptation.frozen import ProductionState
from flowmcmc.adaptation.rounds import Moves, RoundInfo, total_evaluations
from flowmcmc.base import Array, Flow, PyTree
from flowmcmc.choosing.calibration import (
    DECORRELATED,
    MAX_ROUNDS,
    PROPOSING,
    STAGE_ESS,
    STAGE_PROPOSALS,
    STAGE_SLOTS,
    WAVE,
)
from flowmcmc.choosing.candidates import Candidate
from flowmcmc.choosing.fitted import current_tuning, refit, update_between_rounds
from flowmcmc.choosing.particles import (
    HOPELESS,
    Found,
    Kept,
    log_mean,
    log_weights,
    next_beta,
    raise_if_spent,
    resample,
    separate,
    split,
    tempered_density,
)
from flowmcmc.choosing.price import moves_of
from flowmcmc.choosing.warmup import WarmUpPlan, begin_of
from flowmcmc.ground.budget import Budget
from flowmcmc.ground.compiling import compile_for
from flowmcmc.ground.leaves import concatenate_coordinates, concatenate_trees
from flowmcmc.kernels.tempering import MAX_STAGES, draw_particles, start_is_too_far
from flowmcmc.running.run import CHUNK_SIZE, compile_chunk, fetch_rows, keep_all

__all__ = ["temper"]


class Machine(NamedTuple):
    """The compiled programs of a search, most of them those of warm-up and production too; the flow and the budget."""

    begin: Callable
    update: Callable
    advance: Callable
    weigh: Callable
    flow: Flow
    budget: Budget


class Batch(NamedTuple):
    """Particles on their way: `positions` and tempered log densities, NumPy arrays with the particle axis first."""

    positions: PyTree
    logdensity: np.ndarray


class Moving(NamedTuple):
    """How particles are moved: the `state` of adaptation, the `tuning`, mixture components there is room for, and the
    acceptance `rate` of the proposals last time."""

    state: Any
    tuning: Any
    num_slots: int
    rate: float


def temper(
    rng_key: Array,
    candidates: Sequence[Candidate],
    plan: WarmUpPlan,
    start: Any,
    sizes: tuple[int, int],
) -> Found:
    """Chains and particles at the target, from draws of `start`.

    Parameters
    ----------
    rng_key
        One key.
    candidates
        The flow of the first proposes and its local kernel moves, until the particles promise that another is better.
    plan
        How.
    start
        A normalised density with ``sample`` and ``log_prob``.
    sizes
        Numbers of chains and of particles in a stage; the latter is rounded up to a multiple of the former.

    Raises
    ------
    RuntimeError
        If the budget is spent before the target is reached.
    ValueError
        If it is not reached in MAX_STAGES stages.
    """
    num_chains, num_particles = sizes[0], -(-sizes[1] // sizes[0]) * sizes[0]
    machine = make_machine(plan, candidates[0])
    others = list(candidates[1:])
    key_wave, key_stages = (jax.random.fold_in(rng_key, index) for index in (1, 2))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel())
    kept = first_wave(machine, key_wave, start, num_particles)
    moving = Moving(None, None, STAGE_SLOTS, 0.0)
    with tqdm(total=1.0, desc="tempering", disable=not plan.progress_bar, leave=False) as bar:
        for stage in range(1, MAX_STAGES + 1):
            beta = next_beta(kept, STAGE_ESS * num_particles)
            values = log_weights(kept, beta)
            chosen = separate(rng, resample(rng, values, num_particles), num_chains)
            begun = Batch(
                jax.tree.map(lambda leaf: leaf[chosen], kept.positions),  # noqa: B023
                tempered_density(kept, beta)[chosen],
            )
            key_fit, key_move = jax.random.split(jax.random.fold_in(key_stages, stage))
            moving = fit_to(machine, key_fit, begun.positions, num_chains, moving)
            moved, moving = move(machine, key_move, begun, beta, moving)
            kept = keep(machine, kept, moved.positions, beta)
            if beta < 1 and (better := promising(others, moved.positions, moving)) is not None:
                machine, others = make_machine(plan, better), []
            bar.update(round(beta - bar.n, 4))
            bar.set_postfix(accepted=f"{moving.rate:.2f}", evaluations=f"{plan.budget.evaluations:.3g}", refresh=False)
            if beta == 1.0:
                parts = split(moved.positions, num_chains)
                return Found(*parts, kept.log_zs[-1], np.array(kept.betas), plan.budget.evaluations)
            raise_if_spent(plan.budget, beta)
    raise start_is_too_far(MAX_STAGES, kept.betas[-1])


def make_machine(plan: WarmUpPlan, candidate: Candidate) -> Machine:
    """The programs for one flow and its local kernel."""
    frozen = plan.make_frozen(candidate)
    return Machine(
        begin_of(plan.make_sampler(candidate)),
        compile_for(update_between_rounds, static=(candidate.flow, plan.target_acceptance_rate)),
        compile_chunk(frozen.step, keep_all, CHUNK_SIZE),
        compile_for(both_log_densities, *frozen.step.args[:2], is_brief=True),
        candidate.flow,
        plan.budget,
    )


def promising(others: Sequence[Candidate], positions: PyTree, moving: Moving) -> Candidate | None:
    """The first of other flows for which particles promise more than the present one has reached (`threshold`)."""
    rows = concatenate_coordinates([np.asarray(leaf, float)[None] for leaf in jax.tree.leaves(positions)])[0]
    rows, loss = np.unique(rows, axis=0), float(moving.state.training.best_loss)
    return next((one for one in others if one.threshold is not None and loss > one.threshold(rows)), None)


def first_wave(machine: Machine, rng_key: Array, start: Any, num_particles: int) -> Kept:
    """WAVE times as many draws of the start, weighed."""
    draw = compile_for(draw_particles, start.sample, static=(num_particles,), is_brief=True)
    waves = [to_host(draw(jax.random.fold_in(rng_key, index))) for index in range(WAVE)]
    target, of_start = map(np.concatenate, zip(*[weigh(machine, wave) for wave in waves]))
    return Kept(concatenate_trees(waves), target, of_start, (len(target),), (0.0,), (0.0,))


def keep(machine: Machine, kept: Kept, positions: PyTree, beta: float) -> Kept:
    """With the particles of one more stage."""
    target, of_start = weigh(machine, positions)
    # by the last stage alone, which is unbiased; those before it have been selected for what they weigh
    last = slice(-kept.numbers[-1], None)
    gained = log_mean((beta - kept.betas[-1]) * (kept.target[last] - kept.start[last]))
    return Kept(
        concatenate_trees([kept.positions, positions]),
        np.concatenate([kept.target, target]),
        np.concatenate([kept.start, of_start]),
        (*kept.numbers, len(target)),
        (*kept.betas, beta),
        (*kept.log_zs, kept.log_zs[-1] + gained),
    )


def fit_to(machine: Machine, rng_key: Array, particles: PyTree, num_chains: int, moving: Moving) -> Moving:
    """With the flow fitted to particles; the step size goes on from the stage before."""
    key_begin, key_update = jax.random.split(rng_key)
    state = machine.begin(key_begin, *split(particles, num_chains))
    if moving.state is not None:
        state = state._replace(dual_averaging=moving.state.dual_averaging)
    state = refit(machine.update, key_update, state, np.nan, is_due=True)
    return Moving(state, *current_tuning(machine.flow, state, moving.num_slots, is_known=True), moving.rate)


def move(machine: Machine, rng_key: Array, begun: Batch, beta: float, moving: Moving) -> tuple[Batch, Moving]:
    """Rounds at an inverse temperature, of proposals alone while these are accepted, until the particles have left
    where they were."""
    now = begun
    for index in range(MAX_ROUNDS):
        moves = stage_moves(moving.rate)
        key = jax.random.fold_in(rng_key, index)
        now, infos = take_one_round(machine, key, now, beta, moving, moves)
        local_rate = float(np.mean([info.local_acceptance_rate for info in infos]))
        if not np.isnan(local_rate):
            state = refit(machine.update, jax.random.fold_in(key, 1), moving.state, local_rate, is_due=False)
            step_size = np.asarray(jnp.exp(state.dual_averaging.log_step_size))
            moving = moving._replace(state=state, tuning=moving.tuning._replace(step_size=step_size))
        moving = moving._replace(rate=float(np.mean([info.flow_acceptance_rate for info in infos])))
        if correlation(begun.logdensity, now.logdensity) < DECORRELATED:
            break
    return now, moving


def stage_moves(rate: float) -> Moves:
    """What a round of a stage is made of: as many proposals as leave few particles where they were, or some and local
    steps if proposals are accepted at too low a `rate` for that."""
    if not rate >= PROPOSING:  # NaN where there are no proposals
        return moves_of(1.0, STAGE_PROPOSALS)
    return moves_of(0.0, int(np.ceil(np.log(DECORRELATED) / np.log1p(-min(rate, 0.99)))))


def take_one_round(
    machine: Machine, rng_key: Array, batch: Batch, beta: float, moving: Moving, moves: Moves
) -> tuple[Batch, list[RoundInfo]]:
    """A round of all particles, as many at once as there are chains."""
    num_chains = len(jax.tree.leaves(moving.state.position)[0])
    dtype = jax.tree.leaves(batch.positions)[0].dtype
    pieces = []
    for first in range(0, len(batch.logdensity), num_chains):
        positions, logdensity = jax.tree.map(lambda leaf: leaf[first : first + num_chains], tuple(batch))  # noqa: B023
        inverse_temperature: Any = np.float32(beta)
        chains = ProductionState(positions, logdensity.astype(dtype), moving.tuning, moves, inverse_temperature)
        pieces.append(machine.advance(jax.random.fold_in(rng_key, first), chains, 0, 1))
    infos = [fetch_rows(kept.info, 1) for _, kept in pieces]
    machine.budget.spend(sum(map(total_evaluations, infos)))
    return Batch(*concatenate_trees([to_host((chains.position, chains.logdensity)) for chains, _ in pieces])), infos


def correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Of log densities (n,) with those of the same particles some rounds earlier; 1 where it cannot be told."""
    if not (before.std() > 0 and after.std() > 0):
        return 1.0
    return float(np.corrcoef(before, after)[0, 1])


def weigh(machine: Machine, positions: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """Log densities of the target, `HOPELESS` where it is lower than that or no number, and of the start, doubles."""
    target, start = (np.asarray(values, float) for values in machine.weigh(positions))
    machine.budget.spend(len(target))
    return np.where((target > HOPELESS) & (target < np.inf), target, HOPELESS), start


def both_log_densities(logdensity_fn: Callable, start_log_prob: Callable, positions: PyTree) -> tuple[Array, Array]:
    """Of the target and of the start, at positions with a leading axis."""
    return jax.vmap(logdensity_fn)(positions), jax.vmap(start_log_prob)(positions)


def to_host(tree: PyTree) -> PyTree:
    """As NumPy arrays."""
    return jax.tree.map(np.asarray, tree)
