"""When to stop drawing: enough effective draws, all that were asked for, or what may be spent is spent."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from flowmcmc.adaptation.rounds import total_evaluations
from flowmcmc.choosing.calibration import FIRST_DRAWS, FIRST_PIECE, MARGIN, QUICK
from flowmcmc.ground.budget import Budget
from flowmcmc.ground.leaves import concatenate_trees
from flowmcmc.reading.convergence import MAX_RHAT, quick_ess, worst_ess, worst_rhat

__all__ = ["ALL_DRAWN", "ENOUGH_DRAWN", "Goal", "draw_towards"]

ENOUGH_DRAWN, ALL_DRAWN = "targets met", "num_samples"  # why drawing ended, where nothing cut it short


class Goal(NamedTuple):
    """Draw until `min_ess` effective draws of the worst coordinate (None: however many), within a `budget`."""

    min_ess: float | None
    budget: Budget


def draw_towards(goal: Goal, draw: Callable, state, num_samples: int) -> tuple[Any, Any, str]:
    """Draw in pieces, the next as long as the last one promises to be needed.

    Parameters
    ----------
    goal
        When to stop.
    draw
        ``(state, num_rounds) -> (state, trace)`` goes on until so many rounds are done in all; the trace is what is
        new.
    state
        To begin with, a `RunState`.
    num_samples
        The most rounds.

    Returns
    -------
    tuple
        The state after the last piece, the whole trace, and why it ended.
    """
    trace, why = None, ""
    wanted = num_samples if goal.min_ess is None else min(FIRST_DRAWS, num_samples)
    while not why:
        size = min(wanted, FIRST_PIECE) if trace is None and goal.budget.is_limited else wanted
        begun, before = time.perf_counter(), state.round
        state, new = draw(state, min(num_samples, state.round + size))
        trace = new if trace is None else concatenate_trees([trace, new])
        drawn = state.round - before
        evaluations = total_evaluations(new.info)
        is_over = goal.budget.spend(evaluations)
        is_enough, missing = (False, num_samples) if goal.min_ess is None else judge(trace, goal.min_ess)
        if is_enough:
            why = ENOUGH_DRAWN
        elif state.round >= num_samples:
            why = ALL_DRAWN
        elif drawn < size:
            why = "interrupted"
        elif (
            is_over or (left := goal.budget.rounds_left((time.perf_counter() - begun) / drawn, evaluations / drawn)) < 1
        ):
            why = goal.budget.nearest
        else:
            wanted = int(min(missing, left, num_samples - state.round))
    return state, trace, why


def judge(trace, min_ess: float) -> tuple[bool, int]:
    """Whether there are enough effective draws and chains agree; and how many more rounds seem to be missing."""
    drawn, ess = len(trace.info.logdensity), quick_ess(trace.position)
    if not ess < QUICK * min_ess:  # the quick one is not sure, or there are enough
        ess = worst_ess(trace.position)
        if ess >= min_ess and worst_rhat(trace.position) <= MAX_RHAT:
            return True, 0
    more = MARGIN * drawn * (min_ess / ess - 1) if 0 < ess < min_ess else drawn
    return False, int(np.clip(more, FIRST_PIECE, drawn) if drawn > FIRST_PIECE else drawn)
