"""The flow beside the chains: draws of both, and their importance weights."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from flowmcmc.base import PyTree
from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_result
from flowmcmc.ground.conversions import as_key
from flowmcmc.plots.parts import (
    CHAINS_COLOUR,
    FLOW_COLOUR,
    axis_ends,
    check_path,
    new_figure,
    save_figure,
    select_coordinates,
    thinning_slice,
)
from flowmcmc.reading.diagnostics import coordinate_names
from flowmcmc.reading.weights import effective_fraction, flow_draws, log_mean_exp, target_log_weights

__all__ = ["plot_flow"]

NUM_FLOW_BINS = 50
LOWEST_LOG_WEIGHT = 20  # nats below the mean weight, where the axis ends: smaller weights do not matter


def plot_flow(
    result,
    path: str | Path | None = None,
    *,
    coordinates: Sequence[str] | None = None,
    num_draws: int = 4000,
    rng_key=0,
):
    """Draws of the flow beside draws of the chains: two coordinates, marginals, and the weights p / q of both.

    Where the flow's density q is too small, chains stay long: grey without orange, and weights of the chains' draws far
    to the right. Where it is too large, proposals are wasted: orange without grey, and a tail to the left.

    Parameters
    ----------
    result
        A `SampleResult` with flow steps.
    path
        Where to save, if anywhere; the suffix gives the format.
    coordinates
        Their names, such as ``["x[0]", "x[7]"]``; the first two by default.
    num_draws
        Fresh flow draws, and at most as many of the chains', evenly thinned.
    rng_key
        A key or int seed for the flow draws.

    Returns
    -------
    matplotlib.figure.Figure
        A scatter plot of both (given two coordinates), a histogram for each coordinate, and one of log weights.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written, `num_draws` is not positive, the run has no draws or
        made no flow steps, or a coordinate has another name.
    """
    check_path(path)
    check_counts({"num_draws": num_draws})
    check_result(result)
    if result.trace is None:
        raise ValueError("warm-up was interrupted, so there are no draws to compare the flow with: call sample again.")
    if result.settings["num_flow_steps"] == 0:
        raise ValueError("num_flow_steps was 0: the run used no flow that could be compared with its draws.")
    columns, names = select_coordinates(coordinate_names(result), coordinates, 2)
    of_flow, on_flow = flow_draws(as_key(rng_key), result.logdensity_fn, result.flow, result.params, num_draws)
    of_chains = thin_trace(result.trace.position, num_draws)
    on_chains = target_log_weights(of_chains, result.logdensity_fn, result.flow, result.params)
    flow, chains = flatten_positions(of_flow, 1)[:, columns], flatten_positions(of_chains, 2)[:, columns]
    is_flow = np.repeat([True, False], [len(flow), len(chains)])
    limits = [axis_ends(np.concatenate([flow[:, k], chains[:, k]]), is_flow) for k in range(len(columns))]
    has_plane = len(columns) > 1
    figure = new_figure(3.4 * (len(columns) + 1 + has_plane), 3.4)
    axes = list(figure.subplots(1, len(columns) + 1 + has_plane))
    if has_plane:
        plane = axes.pop(0)
        for points, colour in ((chains, CHAINS_COLOUR), (flow, FLOW_COLOUR)):
            shown = points[thinning_slice(len(points), 2000)]
            plane.scatter(shown[:, 0], shown[:, 1], s=4, color=colour, linewidths=0, alpha=0.5, rasterized=True)
        plane.set(xlabel=names[0], ylabel=names[1], xlim=limits[0], ylim=limits[1])
    for k, name in enumerate(names):
        draw_histograms(axes[k], chains[:, k], flow[:, k], limits[k])
        axes[k].set(xlabel=name, yticks=[])
    draw_weights(axes[-1], on_chains.ravel(), np.asarray(on_flow, float))
    return save_figure(figure, path)


def thin_trace(positions: PyTree, num_draws: int) -> PyTree:
    """At most `num_draws` positions (chain, draw, ...) of a trace (round, chain, ...), both axes thinned evenly."""
    rounds, chains = jax.tree.leaves(positions)[0].shape[:2]
    some = thinning_slice(chains, num_draws)
    later = thinning_slice(rounds, max(1, num_draws // len(range(chains)[some])))
    return jax.tree.map(lambda leaf: np.swapaxes(leaf[later, some], 0, 1), positions)


def flatten_positions(positions: PyTree, num_axes: int) -> np.ndarray:
    """All coordinates (n, d) of leaves with `num_axes` leading axes."""
    leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(positions)]
    num = int(np.prod(leaves[0].shape[:num_axes]))
    return np.concatenate([leaf.reshape(num, -1) for leaf in leaves], axis=1)


def draw_histograms(axis, chains: np.ndarray, flow: np.ndarray, limits: tuple[float, float]) -> None:
    """Two normalised histograms on one axis: the chains' filled, the flow's as a line."""
    options = {"bins": NUM_FLOW_BINS, "range": limits}
    for values, style in (
        (chains, {"color": CHAINS_COLOUR, "histtype": "stepfilled", "label": "chains"}),
        (flow, {"color": FLOW_COLOUR, "histtype": "step", "lw": 1.5, "label": "flow"}),
    ):
        # normalised over all values, including those outside the axis
        axis.hist(values, weights=np.full(len(values), 1 / max(1, len(values))), **options, **style)


def draw_weights(axis, on_chains: np.ndarray, on_flow: np.ndarray) -> None:
    """Histograms of log weights relative to the flow's mean weight; those below the axis go into its first bin."""
    on_flow = np.where(np.isnan(on_flow), -np.inf, on_flow)
    if not np.isfinite(on_flow).any():
        axis.text(0.5, 0.5, "no draw of the flow has\na finite density", ha="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    mean = log_mean_exp(on_flow)
    known = np.concatenate([on_chains[np.isfinite(on_chains)], on_flow[np.isfinite(on_flow)]]) - mean
    limits = (max(-LOWEST_LOG_WEIGHT, float(known.min())) - 0.5, float(known.max()) + 0.5)
    chains, flow = (np.clip(np.nan_to_num(on - mean, nan=-np.inf), limits[0], limits[1]) for on in (on_chains, on_flow))
    draw_histograms(axis, chains, flow, limits)
    ess = effective_fraction(on_flow)
    axis.set(xlabel="log p / q, nats above the flow's mean", yscale="log", title=f"weights, ESS of the flow {ess:.1%}")
    axis.legend(fontsize=8)
