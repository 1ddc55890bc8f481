"""How warm-up went, and whether the chains agree."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowmcmc.ground.arguments import check_counts
from flowmcmc.ground.checks import check_tree
from flowmcmc.plots.parts import FLOW_COLOUR, check_path, draw_rows, new_figure, save_figure, select_coordinates
from flowmcmc.reading.diagnostics import coordinate_names, draws_of

__all__ = ["plot_ranks", "plot_warmup"]


def plot_warmup(datatree, path: str | Path | None = None):
    """Acceptance, loss and step size over the rounds of warm-up, means over chains.

    They should be level at the end; the held-out loss (-log q of states that the flow was not trained on) may jump
    where another flow takes over.

    Parameters
    ----------
    datatree
        A `SampleResult`, also one interrupted in warm-up, or its DataTree.
    path
        Where to save, if anywhere; the suffix gives the format.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: acceptance rates, losses of the flow in nats, and the step size.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written or there is no warm-up history.
    """
    check_path(path)
    tree = getattr(datatree, "datatree", datatree)
    check_tree(tree)
    if "warmup_history" not in tree.children:
        raise ValueError("the DataTree has no warmup_history: pass the SampleResult, or a DataTree made from one.")
    history = tree["warmup_history"]
    figure = new_figure(12, 3.2)
    rates, losses, steps = figure.subplots(1, 3)
    lines = (
        (rates, "flow_acceptance_rate", "flow proposals", FLOW_COLOUR),
        (rates, "local_acceptance_rate", "local steps", "C0"),
        (losses, "loss", "last batch", "0.7"),
        (losses, "heldout_loss", "held-out states", "k"),
        (steps, "step_size", None, "C0"),
    )
    for axis, name, label, colour in lines:
        values = np.where(np.isfinite(history[name].values), history[name].values, np.nan)
        if not np.isnan(values).all():
            # a line shows neither a single round nor one that stands alone among NaN
            marker = "." if len(values) < 30 or np.isnan(values).any() else None
            axis.plot(values, color=colour, label=label, lw=1, marker=marker, ms=3)
    rates.set(xlabel="round", title="acceptance", ylim=(-0.02, 1.02))
    losses.set(xlabel="round", title="loss of the flow, nats")
    steps.set(xlabel="round", title="step size of local steps", yscale="log")
    for axis in (rates, losses):
        if axis.lines:
            axis.legend()
    return save_figure(figure, path)


def plot_ranks(
    datatree, path: str | Path | None = None, *, coordinates: Sequence[str] | None = None, num_bins: int = 20
):
    """Rank histogram of every chain as one row of colours (Vehtari et al., arXiv 1903.08008).

    Each draw is ranked among the draws of all chains. If the chains agree, a chain has about as many draws in each bin
    of ranks, and its row is pale. A row that is red at some ranks and blue at others is a chain that stayed there.

    Parameters
    ----------
    datatree
        A DataTree with ``posterior``, or a `SampleResult`.
    path
        Where to save, if anywhere; the suffix gives the format.
    coordinates
        Their names, such as ``["x[0]", "x[7]"]``; the first four by default.
    num_bins
        Of ranks; fewer if a bin would have less than five draws of a chain.

    Returns
    -------
    matplotlib.figure.Figure
        One panel for each coordinate, with one row for each chain.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written, `num_bins` is not positive, or a coordinate has
        another name.
    """
    check_path(path)
    check_counts({"num_bins": num_bins})
    from arviz_stats.base.array import array_stats

    columns, names = select_coordinates(coordinate_names(datatree), coordinates, 4)
    draws = draws_of(datatree)[:, :, columns]
    num_chains, num_draws, _ = draws.shape
    num_bins = max(1, min(num_bins, num_draws // 5))
    figure = new_figure(2.9 * len(columns) + 1.2, 3.4)
    axes = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for index, (axis, name) in enumerate(zip(axes, names)):
        # arviz's rank plot draws a line for each chain: with 100 chains it takes a minute and is unreadable
        ranks = np.asarray(array_stats.compute_ranks(draws[:, :, index].ravel(), relative=True))
        counts = np.array(
            [np.histogram(chain, bins=num_bins, range=(0, 1))[0] for chain in ranks.reshape(num_chains, -1)]
        )
        image = draw_rows(axis, counts * num_bins / num_draws, (0, 1), "RdBu_r", highest=2)
        axis.set(xlabel="rank", title=name)
        axis.label_outer()
    figure.colorbar(image, ax=axes, label="draws / expected", ticks=[0, 1, 2], extend="max")
    return save_figure(figure, path)
