r"""Normalising constants, log Z = log of the integral of exp(logdensity_fn), from a flow and from chains, in nats.

    forward   log mean exp(l(x)),  x ~ flow        reverse   -log mean exp(-l(x)),  x ~ target

with l = logdensity - log flow. Forward looks only where the flow goes, so a lost mode lowers it with a small error.
Reverse sees the mode, but is fragile where the flow has the heavier tails. The optimal bridge weighs both draws and has
neither fault (Meng & Wong, Statistica Sinica 6 (1996)), so its difference from forward is what tells a lost mode.
"""

from typing import NamedTuple

import jax
import numpy as np

from flowmcmc.base import Flow, LogDensity, PyTree
from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_result
from flowmcmc.ground.conversions import as_key
from flowmcmc.reading.weights import (
    bridge,
    effective_fraction,
    flow_log_weights,
    forward,
    reverse,
    tail_shape,
    target_log_weights,
)

__all__ = ["LogZ", "log_evidence", "log_z_bridge", "log_z_importance"]


class LogZ(NamedTuple):
    """An estimate of log Z; as text it is a number only if nothing speaks against it.

    Attributes
    ----------
    log_z, error
        Estimate and standard error, nats.
    ess, pareto_k
        Of the weights of the flow draws: effective number as a fraction, shape of the tail.
    problems
        Why not to believe the estimate; empty when fine.
    is_checked
        Whether draws of the target were there to check the flow with. A lost mode cannot be seen without.
    bracket
        Lowest and highest of forward, reverse and bridge, two standard errors out; without draws there is no upper end.
    num_invalid
        Flow draws and draws without a finite log weight, counted as zero weight. They are a problem only if as many
        draws of mean weight would move log Z by more than its error; a weight of +inf always is one.
    forward, forward_error
        Importance sampling with the flow draws alone, nats, whichever estimate `log_z` is; NaN where not recorded.
    """

    log_z: float
    error: float
    ess: float
    pareto_k: float
    problems: tuple[str, ...]
    is_checked: bool
    bracket: tuple[float, float]
    num_invalid: int = 0
    forward: float = np.nan
    forward_error: float = np.nan

    def __str__(self):
        if not self.problems:
            counted = f" ({self.num_invalid} draws with NaN counted as zero weight)" if self.num_invalid else ""
            is_other = not np.isnan(self.forward) and (self.forward, self.forward_error) != (self.log_z, self.error)
            other = f", from flow draws alone {self.forward:.3f} +- {self.forward_error:.3f}" if is_other else ""
            return f"log Z = {self.log_z:.3f} +- {self.error:.3f}{other}{counted}"
        low, high = self.bracket
        return f"log Z is uncertain, estimates span [{low:.3f}, {high:.3f}]: " + "; ".join(self.problems)


def log_evidence(result, *, rng_key=0, num_draws: int = 10_000, max_draws: int = 20_000) -> LogZ:
    """log Z of a run's target, by the bridge between its flow and its draws; the evidence if the density is one.

    The flow was fitted in warm-up, so not to these draws. All constants of likelihood and prior must be in the density.
    Bridge: Meng and Wong (1996); its error: Frühwirth-Schnatter (2004).

    Parameters
    ----------
    result
        A `SampleResult` with draws.
    rng_key
        A key or int seed.
    num_draws, max_draws
        Fresh flow draws; and most of the run's own that are used, evenly thinned.

    Returns
    -------
    LogZ
        The bridge estimate ``log_z`` and its standard ``error``, in nats; the forward estimate beside it, and the
        ``problems`` that speak against either.

    Raises
    ------
    ValueError
        If the run has fewer than four draws for each chain.

    Examples
    --------
    >>> print(flowmcmc.log_evidence(result))  # doctest: +SKIP
    log Z = -226.791 +- 0.006, from flow draws alone -226.781 +- 0.012
    """
    check_result(result)
    check_counts({"max_draws": max_draws})
    if result.trace is None or len(jax.tree.leaves(result.trace.position)[0]) < 4:
        raise ValueError("the result has fewer than 4 draws for each chain: draw more, result.more(1000).")
    rounds, chains = jax.tree.leaves(result.trace.position)[0].shape[:2]
    thin = max(1, rounds * chains // max(max_draws, 4 * chains))
    draws = jax.tree.map(lambda leaf: np.swapaxes(leaf[::thin], 0, 1), result.trace.position)
    return log_z_bridge(rng_key, result.logdensity_fn, result.flow, result.params, draws, num_draws=num_draws)


def log_z_importance(
    rng_key, logdensity_fn: LogDensity, flow: Flow, params: PyTree, *, num_draws: int = 10_000, draws: PyTree = None
) -> LogZ:
    """log Z by importance sampling with flow draws, checked by the bridge if there are `draws`.

    The estimate is refused where it lies more than 0.01 and four standard errors below the bridge, since the flow has
    then lost a mode, or the tails. Bridge: Meng and Wong (1996). Pareto k: Vehtari et al., arXiv 1507.02646.

    Parameters
    ----------
    rng_key
        A key or int seed.
    logdensity_fn
        Unnormalised log density of one position; pass the same function again, its data unchanged, and nothing
        compiles anew.
    flow, params
        A normalised density that covers the target.
    num_draws
        Fresh flow draws.
    draws
        Positions of chains on the target, leaves (chain, draw, ...); independent draws go in as one chain.

    Returns
    -------
    LogZ
        The forward estimate ``log_z`` and its standard ``error``, in nats; ``ess`` and ``pareto_k`` of its weights, and
        the ``problems`` that speak against it.

    Raises
    ------
    ValueError
        If there are fewer than two flow draws, or `draws` lacks an axis or has fewer than four draws in a chain.

    Examples
    --------
    >>> flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    >>> print(log_z_importance(0, logdensity_fn, flow, params, draws=draws))  # doctest: +SKIP
    log Z = 1.836 +- 0.005
    """
    check_draws(num_draws, draws)
    on_flow = flow_log_weights(as_key(rng_key), logdensity_fn, flow, params, num_draws)
    on_target = None if draws is None else target_log_weights(draws, logdensity_fn, flow, params)
    return combine_estimates(on_flow, on_target, is_bridged=False)


def log_z_bridge(
    rng_key, logdensity_fn: LogDensity, flow: Flow, params: PyTree, draws: PyTree, *, num_draws: int = 10_000
) -> LogZ:
    """The optimal bridge between flow and chains: right wherever the two overlap, even if neither covers the other.

    The estimate is that of Meng and Wong (1996). Its error is that of Frühwirth-Schnatter (2004): relative mean squared
    error of numerator and denominator, with the effective number of `draws`. It takes the flow as given. A flow fitted
    to the very `draws` it is bridged to lies too close to them and biases log Z: fit it to one half of the chains'
    draws and pass the other, as in Overstall and Forster (2010).

    Parameters
    ----------
    rng_key, logdensity_fn, flow, params, num_draws
        As in `log_z_importance`.
    draws
        Positions of chains on the target, leaves (chain, draw, ...); independent draws go in as one chain.

    Returns
    -------
    LogZ
        The bridge estimate ``log_z`` and its standard ``error``, in nats; the forward estimate beside it, and the
        ``problems`` that speak against either.

    Raises
    ------
    ValueError
        As in `log_z_importance`.
    """
    if draws is None:
        raise ValueError("draws is None, but a bridge has two ends: pass chains' positions, or use log_z_importance.")
    check_draws(num_draws, draws)
    on_flow = flow_log_weights(as_key(rng_key), logdensity_fn, flow, params, num_draws)
    on_target = target_log_weights(draws, logdensity_fn, flow, params)
    return combine_estimates(on_flow, on_target, is_bridged=True)


def combine_estimates(on_flow: np.ndarray, on_target: np.ndarray | None, *, is_bridged: bool) -> LogZ:
    """Estimate from log weights (n,) of flow draws and (chain, draw) of target draws (or None), with all checks."""
    problems, is_checked = [], on_target is not None
    invalid, infinite = np.isnan(on_flow), on_flow == np.inf
    on_flow = np.where(invalid | infinite, -np.inf, on_flow)
    num_invalid = int((invalid | infinite).sum())
    if not np.isfinite(on_flow).any():
        lost = f", or NaN or +inf ({num_invalid} of {on_flow.size})" if num_invalid else ""
        problems.append(f"the target is zero at every flow draw{lost}: train the flow on the target")
        span = (-np.inf, np.inf)
        return LogZ(-np.inf, np.inf, 0.0, np.inf, tuple(problems), is_checked, span, num_invalid, -np.inf, np.inf)
    estimate = alone = forward(on_flow)
    if infinite.any() or shifts_log_z(invalid, estimate[1]):
        seen = f"{num_invalid} of {on_flow.size} flow draws"
        problems.append(f"{seen} have log weight NaN or +inf, counted as zero weight")
    ess, pareto_k = effective_fraction(on_flow), tail_shape(on_flow)
    bracket = (estimate[0] - 2 * estimate[1], np.inf)
    if not pareto_k <= 0.7 and ess < 0.05:
        problems.append(f"a few flow draws carry the estimate (Pareto k {pareto_k:.2f}, ess {ess:.1%}): train the flow")
    if on_target is not None and not np.isfinite(on_target).any():
        problems.append("no draw has a finite log weight: train the flow on the draws, and check logdensity_fn there")
    elif on_target is not None:
        invalid = ~np.isfinite(on_target)
        num_invalid += int(invalid.sum())
        on_target = np.where(invalid, np.inf, on_target)  # so that its term exp(-log weight) is zero
        check = bridge(on_flow, on_target)
        if shifts_log_z(invalid, check[1]):
            seen = f"{invalid.sum()} of {invalid.size} draws"
            problems.append(f"{seen} have no finite log weight, counted as zero weight")
        problems += disagreement_problems(alone, check, is_bridged=is_bridged)
        found = np.array([estimate, check, reverse(on_target)])
        bracket = (float((found[:, 0] - 2 * found[:, 1]).min()), float((found[:, 0] + 2 * found[:, 1]).max()))
        estimate = check if is_bridged else estimate
    return LogZ(*estimate, ess, pareto_k, tuple(problems), is_checked, bracket, num_invalid, *alone)


def shifts_log_z(invalid: np.ndarray, error: float) -> bool:
    """Whether the invalid draws, if their weight were the mean, would move log Z by more than its error."""
    return bool(-np.log1p(-min(invalid.mean(), 1 - 1e-9)) > error)


def disagreement_problems(forward: tuple[float, float], bridge: tuple[float, float], *, is_bridged: bool) -> list[str]:
    """Problems shown by a difference between the forward and bridge estimates, each (value, error)."""
    # the bridge is right even if the flow misses a little of the target, the forward estimate is not
    allowed = 0.1 if is_bridged else 0.01
    difference, error = bridge[0] - forward[0], np.hypot(forward[1], bridge[1])
    both = "forward {:.3f} +- {:.3f}, bridge {:.3f} +- {:.3f}".format(*forward, *bridge)
    if difference > max(allowed, 4 * error):
        return [f"the flow covers less than the chains do ({both}): a mode is probably lost; train it on their draws"]
    if -difference > max(0.1, 4 * error):
        return [f"the chains cover less than the flow does ({both}): they missed a mode, or are not yet at rest"]
    if not 4 * error < np.log(2):
        return [f"flow and chains are too noisy to check each other ({both}): half of the mass could be lost unseen"]
    return []


def check_draws(num_draws: int, draws: PyTree) -> None:
    """Raise unless there are enough flow draws and, in leaves (chain, draw, ...), enough `draws` (or None)."""
    check_counts({"num_draws": num_draws}, smallest=2)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(draws)]
    if any(len(shape) < 2 or shape[:2] != shapes[0][:2] for shape in shapes):
        raise ValueError(
            f"draws must have leaves (chain, draw, ...), got shapes {shapes}; independent draws x go in as x[None]."
        )
    if any(shape[0] < 1 or shape[1] < 4 for shape in shapes):
        raise ValueError(f"draws must hold at least 4 draws in each chain, got shapes {shapes}.")
