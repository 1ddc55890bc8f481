"""One picture of a run: where the draws are, and how chains move between modes."""

from pathlib import Path

import numpy as np

from flowmcmc.diagnostics import ModeWeights, coordinate_names, draws_of, mode_weights

__all__ = ["plot_chains"]


def plot_chains(datatree, path: str | Path | None = None, *, modes=None, num_chains: int = 12):
    """Draw the first two coordinates coloured by mode, the mode of some chains over time, and the mass of each mode.

    Parameters
    ----------
    datatree
        A DataTree with ``posterior``, or a `SampleResult`.
    path
        Where to save, if anywhere; the suffix gives the format.
    modes
        As in `mode_weights`, found by clustering by default; or the `ModeWeights` that it returned.
    num_chains
        How many chains to show over time.

    Returns
    -------
    The ``matplotlib.figure.Figure``.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    draws, names = draws_of(datatree), coordinate_names(datatree)
    weights = modes if isinstance(modes, ModeWeights) else mode_weights(datatree, modes)
    colours = colormaps["tab10"](np.arange(len(weights.weights)) % 10)[:, :3]
    figure = Figure(figsize=(13, 4), layout="constrained")
    plane, raster, bars = figure.subplots(1, 3, width_ratios=(4, 6, 3))
    flat, labels = draws.reshape(-1, draws.shape[2]), weights.labels.ravel()
    thin = slice(None, None, max(1, len(flat) // 4000))
    second = flat[:, 1] if flat.shape[1] > 1 else np.arange(len(flat))
    plane.scatter(flat[thin, 0], second[thin], c=colours[labels[thin]], s=4, linewidths=0)
    plane.set(xlabel=names[0], ylabel=names[1] if len(names) > 1 else "draw", title="draws")
    shown = weights.labels[:num_chains, :: max(1, weights.labels.shape[1] // 200)]
    extent = (0.5, weights.labels.shape[1] + 0.5, len(shown) + 0.5, 0.5)
    raster.imshow(colours[shown], extent=extent, aspect="auto", interpolation="nearest")
    raster.set(xlabel="draw", ylabel="chain", title="mode of a chain over time")
    bars.bar(
        [str(index) for index in range(len(colours))], weights.weights, yerr=np.nan_to_num(weights.mcse), color=colours
    )
    bars.set(xlabel="mode", ylabel="fraction of draws", title="mass of each mode")
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure
