"""Draw on until r-hat and effective sample size are good enough, or the time is up; which of the two is recorded."""

import time
from dataclasses import replace

from flowmcmc.ground.arguments import check_numbers
from flowmcmc.ground.checks import check_result
from flowmcmc.reading.convergence import worst_ess, worst_rhat
from flowmcmc.result import SampleResult

__all__ = ["draw_until"]


def draw_until(
    result: SampleResult,
    *,
    max_rhat: float = 1.01,
    min_ess: float = 1000.0,
    max_seconds: float = 600.0,
    progress_bar: bool = True,
) -> SampleResult:
    """More draws, in blocks that double, until every coordinate meets the targets.

    Parameters
    ----------
    result
        Of `sample`, with draws.
    max_rhat, min_ess
        arviz's rank-normalised split r-hat and bulk ESS over all chains, worst coordinate (arXiv 1903.08008). A mode
        that no chain has seen shows in neither.
    max_seconds
        For this call; the block that is begun then is the last. After a first one of at most 100 draws, what a block
        takes is known from the ones before, so that this is not much exceeded.
    progress_bar
        Show one.

    Returns
    -------
    SampleResult
        With all draws; ``settings["stopped"]`` says why it stopped: ``targets met``, ``out of time`` or
        ``interrupted``.

    Raises
    ------
    ValueError
        If a target is out of range, or warm-up was interrupted.
    """
    check_numbers({"max_rhat": max_rhat, "min_ess": min_ess, "max_seconds": max_seconds})
    if not max_rhat > 1:
        raise ValueError(f"max_rhat must be above 1, got {max_rhat}: 1.01 is usual.")
    check_result(result)
    if not (min_ess > 0 and max_seconds > 0):
        raise ValueError(f"min_ess and max_seconds must be positive, got {min_ess} and {max_seconds}.")
    began = time.perf_counter()
    first, drawing, why = result.state.round, 0.0, None
    while why is None:
        rhat, ess = worst_convergence(result)
        drawn = result.state.round
        left = max_seconds - (time.perf_counter() - began)
        if rhat <= max_rhat and ess >= min_ess:
            why = "targets met"
        elif left <= 0:
            why = "out of time"
        else:
            # the first block has at most 100 draws: the recorded seconds may leave out draws read from a checkpoint
            known = min(100 / left, drawn / max(result.settings["sampling_seconds"], 1e-3))
            rate = (drawn - first) / drawing if drawing else known
            wanted = max(1, min(max(drawn, 100), int(rate * left)))
            block_began = time.perf_counter()
            result = result.more(wanted, progress_bar=progress_bar)
            drawing += time.perf_counter() - block_began
            if result.state.round < drawn + wanted:
                why = "interrupted"
    return replace(result, settings=result.settings | {"stopped": why})


def worst_convergence(result: SampleResult) -> tuple[float, float]:
    """r-hat and bulk ESS of the worst coordinate; NaN, which meets no target, where they cannot be told."""
    if result.trace is None:
        raise ValueError("warm-up was interrupted, so there are no draws to judge: call sample again.")
    return worst_rhat(result.trace.position), worst_ess(result.trace.position)
