"""How good a flow's proposals are, from the rounds of warm-up, and which flow that is worth its price.

An independence sampler that accepts at the rate r is worth about r / (2 - r) effective draws a proposal; waits and
ends of coordinates that are cut off count against that.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from flowmcmc.adaptation.rounds import Moves, RoundInfo
from flowmcmc.choosing.calibration import (
    ACCEPTED,
    CHANCE,
    CHEAP_WAIT,
    CUT_OFF_WORTH,
    ENOUGH,
    GAINS,
    LOCAL_COST,
    LOCAL_SHARE,
    MAX_WAIT,
    MIN_EFFICIENCY_RATIO,
    OFTEN,
    SETTLED,
    SHORT_WAIT,
)
from flowmcmc.reading.edges import CUT_OFF
from flowmcmc.reading.waits import longest_run
from flowmcmc.running.run import Trace

__all__ = [
    "NOTHING_TRIED",
    "BlockStats",
    "Trial",
    "all_moves",
    "block_stats",
    "choose",
    "efficiency",
    "is_enough",
    "is_settled",
    "is_sufficient",
    "local_cost",
    "production_moves",
]


class BlockStats(NamedTuple):
    """Over the second half of a block of rounds.

    Attributes
    ----------
    acceptance_rate
        Mean of the flow proposals.
    longest_wait
        Rounds in a row without an accepted proposal, for the worst chain.
    is_even
        Whether proposals are accepted often enough, and no chain waits longer than chance allows.
    gain
        In held-out loss over that half, nats.
    loss
        Held-out loss at the end, nats.
    """

    acceptance_rate: float
    longest_wait: int
    is_even: bool
    gain: float
    loss: float


class Trial(NamedTuple):
    """A flow that was tried: the `stats` of its last rounds, the `worst_end` of a coordinate (see `edges`), its `price`
    beside the others', and its `local_cost`."""

    stats: BlockStats
    worst_end: float
    price: float
    local_cost: float = 0.0


NOTHING_TRIED = Trial(BlockStats(0.0, 0, False, 0.0, float("inf")), 1.0, 1.0)


def block_stats(trace: Trace) -> BlockStats:
    """The statistics of a trace of warm-up."""
    rounds, loss = trace.info.round, trace.info.training.heldout_loss
    half = len(loss) // 2
    is_rejected = rounds.num_flow_accepted == 0
    if not len(is_rejected):
        return BlockStats(0.0, 0, False, 0.0, float("inf"))
    rate = float(np.nan_to_num(np.mean(rounds.flow_acceptance_rate[half:])))
    longest = max(map(longest_run, is_rejected[half:].T))
    share = 1 - is_rejected[half:].mean()
    # a wait of w rounds has probability (1 - share)^w, and there are as many of them as rounds times chains
    allowed = CHANCE * np.log(is_rejected[half:].size) / -np.log1p(-np.clip(share, 1e-9, 0.99))
    # where such waits are longer than that half, all rounds tell more
    among = is_rejected if allowed > len(loss) - half else is_rejected[half:]
    is_even = share >= OFTEN and max(map(longest_run, among.T)) < min(len(among), allowed)
    return BlockStats(rate, longest, bool(is_even), float(loss[half] - loss[-1]), float(loss[-1]))


def is_enough(stats: BlockStats, max_wait: int) -> bool:
    """Whether proposals are accepted often enough and no chain waits longer than `max_wait` rounds."""
    return stats.acceptance_rate >= ENOUGH and stats.longest_wait <= max_wait


def is_sufficient(stats: BlockStats, worst_end: float, *, is_fitted: bool) -> bool:
    """Whether no dearer flow need be tried; one that is fitted may leave chains waiting for as long as layers would
    take to train."""
    is_good = (is_enough(stats, CHEAP_WAIT) or stats.is_even) if is_fitted else is_enough(stats, MAX_WAIT)
    return is_good and worst_end >= CUT_OFF


def efficiency(trial: Trial) -> float:
    """Effective draws for each proposal, less for waits and where chains are cut off."""
    rate = trial.stats.acceptance_rate
    waits = min(1.0, MAX_WAIT / max(1, trial.stats.longest_wait))
    return rate / (2 - rate) * waits * (1.0 if trial.worst_end >= CUT_OFF else CUT_OFF_WORTH)


def choose(trials: Sequence[Trial]) -> int:
    """Index of the one to take, in the order they were tried: a dearer one must be `MIN_EFFICIENCY_RATIO` times as
    efficient as each before it, one that is no dearer as efficient."""
    best = len(trials) - 1
    for earlier in reversed(range(len(trials) - 1)):
        needed = MIN_EFFICIENCY_RATIO if trials[best].price > trials[earlier].price else 1.0
        if efficiency(trials[best]) < needed * efficiency(trials[earlier]):
            best = earlier
    return best


def is_settled(trace: Trace, worst_end: float) -> bool:
    """Whether rounds show a flow that accepts often, lets no chain wait, cuts none off, and learns nothing more."""
    stats = block_stats(trace)
    is_good = stats.acceptance_rate >= SETTLED and stats.longest_wait <= SHORT_WAIT and worst_end >= CUT_OFF
    return is_good and stats.gain < GAINS


def local_cost(rounds: RoundInfo) -> float:
    """Evaluations of the density by the local steps of a round beside those by its flow steps; 0 without either."""
    local, flow = float(np.mean(rounds.num_local_evaluations)), float(np.mean(rounds.num_flow_evaluations))
    return local / flow if flow > 0 else 0.0


def all_moves(num_flow_steps: int) -> Moves:
    """Rounds as in warm-up."""
    return moves_of(1.0, num_flow_steps)


def moves_of(local_share: float, num_flow_steps: int) -> Moves:
    """Of one type, or rounds would be compiled again."""
    share: Any = np.float32(local_share)
    number: Any = np.int32(num_flow_steps)
    return Moves(share, number)


def production_moves(trial: Trial, num_flow_steps: int) -> Moves:
    """What a round of production is made of. Where a flow is accepted and no chain waits for it, few proposals are
    enough for a draw, and local steps are there for what the flow may miss."""
    stats = trial.stats
    if not is_enough(stats, MAX_WAIT) or trial.worst_end < CUT_OFF or not trial.local_cost > 0:
        return all_moves(num_flow_steps)
    if stats.longest_wait > SHORT_WAIT:  # shorter rounds would make long waits of these
        return moves_of(LOCAL_SHARE, num_flow_steps)
    num_proposals = min(num_flow_steps, max(1, int(np.ceil(ACCEPTED / max(stats.acceptance_rate, 1e-9)))))
    share = min(1.0, LOCAL_COST * num_proposals / num_flow_steps / trial.local_cost)
    return moves_of(share, num_proposals)
