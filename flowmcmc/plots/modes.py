"""Where the draws are, and how chains move between modes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flowmcmc.ground.arguments import check_counts
from flowmcmc.plots.parts import (
    axis_ends,
    check_path,
    draw_rows,
    mode_colours,
    new_figure,
    save_figure,
    select_coordinates,
    thinning_slice,
)
from flowmcmc.reading.diagnostics import ModeWeights, coordinate_names, draws_of, mode_weights

__all__ = ["plot_chains", "plot_modes", "plot_pairs"]

NUM_MODE_BINS = 50


def plot_chains(datatree, path: str | Path | None = None, *, modes=None, num_chains: int = 12):
    """The run at a glance: the first two coordinates coloured by mode, then what `plot_modes` shows.

    Parameters
    ----------
    datatree
        A DataTree with ``posterior``, or a `SampleResult`.
    path
        Where to save, if anywhere; the suffix gives the format.
    modes
        As in `mode_weights`, found by clustering by default; or the `ModeWeights` it returned.
    num_chains
        How many chains to show over time.

    Returns
    -------
    matplotlib.figure.Figure
        Three panels: a scatter plot of the draws, the mode of each chain over time, and the mass of each mode.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written or `num_chains` is not positive.
    """
    check_path(path)
    check_counts({"num_chains": num_chains})
    weights, names = mode_weights(datatree, modes), coordinate_names(datatree)
    flat, labels = finite_draws(datatree, weights)
    figure = new_figure(13, 4)
    plane, raster, bars = figure.subplots(1, 3, width_ratios=(4, 6, 3))
    first, second = flat[:, 0], flat[:, 1] if len(names) > 1 else np.arange(len(flat))
    draw_cloud(plane, first, second, labels, mode_colours(len(weights.weights)))
    plane.set(xlabel=names[0], ylabel=names[1] if len(names) > 1 else "draw", title="draws")
    draw_raster(raster, weights, num_chains)
    draw_masses(bars, weights)
    return save_figure(figure, path)


def plot_modes(datatree, path: str | Path | None = None, *, modes=None, num_chains: int = 24):
    """The mode each chain is in over time, a colour for each, and the mass of each mode with its error.

    A chain that changes its colour often jumps often. One that keeps its colour stays where it started, and then the
    masses are those of the starts.

    Parameters
    ----------
    datatree, path, modes, num_chains
        As in `plot_chains`.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: the mode of each chain over time, and the mass of each mode.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written or `num_chains` is not positive.
    """
    check_path(path)
    check_counts({"num_chains": num_chains})
    weights = mode_weights(datatree, modes)
    figure = new_figure(11, 3.8)
    raster, bars = figure.subplots(1, 2, width_ratios=(7, 3))
    draw_raster(raster, weights, num_chains)
    draw_masses(bars, weights)
    return save_figure(figure, path)


def plot_pairs(datatree, path: str | Path | None = None, *, modes=None, coordinates: Sequence[str] | None = None):
    """Marginals on the diagonal, pairs of coordinates below it, coloured by mode.

    The axes may leave out the outermost draws, 0.2 % on either side; draws that are not finite are not shown.

    Parameters
    ----------
    datatree, path, modes
        As in `plot_chains`.
    coordinates
        Their names, such as ``["x[0]", "x[7]"]``; the first four by default.

    Returns
    -------
    matplotlib.figure.Figure
        One row and one column of panels for each coordinate; the upper triangle is empty.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written or a coordinate has another name.
    """
    check_path(path)
    columns, names = select_coordinates(coordinate_names(datatree), coordinates, 4)
    weights = mode_weights(datatree, modes)
    colours = mode_colours(len(weights.weights))
    flat, labels = finite_draws(datatree, weights)
    size = len(columns)
    figure = new_figure(*((2.3 * size + 0.6,) * 2 if size > 1 else (6, 3.2)))
    axes = figure.subplots(size, size, squeeze=False, sharex="col")
    limits = [axis_ends(flat[:, column], labels) for column in columns]
    for row, column in np.ndindex(size, size):
        axis = axes[row, column]
        across, up = columns[column], columns[row]
        if row < column:
            axis.set_axis_off()
            continue
        axis.set_xlim(limits[column])
        if row == column:
            draw_marginal(axis, flat[:, across], labels, colours, limits[column])
        else:
            draw_cloud(axis, flat[:, across], flat[:, up], labels, colours)
            axis.set_ylim(limits[row])
            axis.tick_params(labelleft=column == 0)
        if row == size - 1:
            axis.set_xlabel(names[column])
        if column == 0 and row:
            axis.set_ylabel(names[row])
    add_legend(figure if size > 1 else axes[0, 0], weights, colours)
    return save_figure(figure, path)


def finite_draws(datatree, weights: ModeWeights) -> tuple[np.ndarray, np.ndarray]:
    """Finite draws of all chains (n, d) and their modes (n,)."""
    draws = draws_of(datatree)
    flat, labels = draws.reshape(-1, draws.shape[2]), weights.labels.ravel()
    is_finite = np.isfinite(flat).all(axis=1)
    return flat[is_finite], labels[is_finite]


def draw_cloud(axis, across: np.ndarray, up: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> None:
    """Scatter plot of draws, thinned evenly, in the colour of their mode."""
    thin = thinning_slice(len(labels))
    axis.scatter(across[thin], up[thin], c=colours[labels[thin]], s=4, linewidths=0, rasterized=True)


def draw_marginal(axis, values: np.ndarray, labels: np.ndarray, colours: np.ndarray, limits) -> None:
    """Stacked histograms, one for each mode."""
    parts = [values[labels == mode] for mode in range(len(colours))]
    axis.hist(parts, bins=NUM_MODE_BINS, range=limits, stacked=True, color=list(colours), histtype="stepfilled")
    axis.set_yticks([])


def draw_raster(axis, weights: ModeWeights, num_chains: int) -> None:
    """Chains over time, a row for each, in the colour of the mode they are in."""
    num_all, num_draws = weights.labels.shape
    shown = weights.labels[:num_chains, :: max(1, num_draws // 200)]
    draw_rows(axis, mode_colours(len(weights.weights))[shown], (0, num_draws))
    which = f", {len(shown)} of {num_all} chains" if len(shown) < num_all else ""
    axis.set(xlabel="draw", title=f"mode of a chain over time{which}")


def draw_masses(axis, weights: ModeWeights) -> None:
    """A bar for each mode, with one Monte Carlo standard error."""
    names = [str(index) for index in range(len(weights.weights))]
    axis.bar(names, weights.weights, yerr=np.nan_to_num(weights.mcse), color=mode_colours(len(names)), capsize=3)
    axis.set(xlabel="mode", ylabel="fraction of draws", title="mass of each mode")


def add_legend(place, weights: ModeWeights, colours: np.ndarray) -> None:
    """Name and mass of each mode, at most twenty, at the top right of a figure or an axis."""
    from matplotlib.patches import Patch

    shown = list(zip(weights.weights, colours))[:20]
    patches = [Patch(color=colour, label=f"mode {index}: {weight:.3f}") for index, (weight, colour) in enumerate(shown)]
    place.legend(handles=patches, loc="upper right", frameon=False)
