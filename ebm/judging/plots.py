"""The energy landscape of a trained model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ebm.fitting import Fit
from ebm.judging.planar import log_densities
from ebm.trained import EBM
from flowmcmc.ground.arguments import check_has
from flowmcmc.ground.leaves import leaf_names
from flowmcmc.plots.parts import check_path, new_figure, save_figure, select_coordinates, thinning_slice
from flowmcmc.reading.diagnostics import entry_names

__all__ = ["plot_energy"]

COLOUR_DEPTH = 12  # nats below the highest density, where the colours end
MAX_OVERLAY_POINTS = 1000  # that are drawn


def plot_energy(
    trained: EBM | Fit,
    path: str | Path | None = None,
    *,
    points: Any = None,
    coordinates: Sequence[str] | None = None,
    at: Any = None,
    num: int = 150,
):
    """The learned log density log rho - E (left), in nats below its highest value seen, and the energy E alone (right).

    In two dimensions that is all of the model, and `points` lie on it. In more it is a SLICE: two coordinates vary, the
    others stay at `at`; no marginal density, and modes elsewhere do not show. `points` are not drawn then, because they
    do not lie in the slice. In one dimension both are curves, over a histogram of `points`.

    Parameters
    ----------
    trained
        An `EBM`, or a `Fit` (its averaged parameters).
    path
        Where to save, if anywhere; the suffix gives the format.
    points
        Positions, leaves (n, ...), that set the window. None: the draws of an `EBM` (its chains after `load`), the data
        of a `Fit`.
    coordinates
        Names of two, such as ``["x[0]", "x[7]"]``; the first two by default.
    at
        One position, where the slice is; the densest of `points` by default.
    num
        Cells along each side.

    Returns
    -------
    matplotlib.figure.Figure
        Two panels: log density and energy, in nats.

    Raises
    ------
    TypeError, ValueError, OSError
        Before anything is computed, if `path` cannot be written; or if `coordinates` does not name two of the model's,
        or no point has a finite density.
    """
    check_path(path)
    check_has("trained", trained, ("model", "theta"), "an EBM (ebm.finish) or a Fit (ebm.fit)")
    positions = default_points(trained) if points is None else points
    positions = jax.tree.map(lambda leaf: jnp.asarray(leaf)[thinning_slice(len(leaf), MAX_OVERLAY_POINTS)], positions)
    flat = np.asarray(jax.vmap(lambda position: ravel_pytree(position)[0])(positions))
    dim = flat.shape[1]
    shapes = dict(zip(leaf_names(positions), (leaf.shape[1:] for leaf in jax.tree.leaves(positions))))
    columns, names = select_coordinates(entry_names(shapes), coordinates, 2)
    if len(set(columns)) != min(dim, 2):
        raise ValueError(f"coordinates must name {min(dim, 2)} of the {dim} coordinates, got {names}.")
    values = np.asarray(log_densities(trained.model, trained.theta, positions))
    if not np.isfinite(values).any():
        raise ValueError("the model has no finite density at any of the points: training has failed, or name others.")
    densest = flat[np.argmax(np.where(np.isfinite(values), values, -np.inf))]
    centre = densest if at is None else np.asarray(ravel_pytree(at)[0])
    sides = [cell_centres(flat[:, column], num) for column in columns]
    cells = np.tile(centre, (num ** len(columns), 1))
    cells[:, columns] = np.stack([side.ravel() for side in np.meshgrid(*sides, indexing="ij")], axis=1)
    unravel = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], positions))[1]
    log_p, energy = landscape(trained, jax.vmap(unravel)(jnp.asarray(cells, flat.dtype)))
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    if dim == 1:
        draw_curves((left, right), sides[0], log_p, energy, flat[:, 0])
    else:
        maps = (log_p.reshape(num, num).T, energy.reshape(num, num).T)
        draw_maps((left, right), sides, maps, flat[:, columns] if dim == 2 else np.empty((0, 2)))
    for axis in (left, right):
        axis.set_xlabel(names[0])
        axis.set_ylabel(names[1] if dim > 1 else "")
    if dim > 2:
        others = "the densest point" if at is None else "the point given"
        figure.suptitle(f"a slice of {dim} dimensions: all coordinates but {names[0]} and {names[1]} stay at {others}")
    return save_figure(figure, path)


def default_points(trained: EBM | Fit):
    """Draws of an `EBM`, data of a `Fit`."""
    if isinstance(trained, Fit):
        return trained.state.sampler.data
    if trained.result is None or trained.result.trace is None:
        return trained.positions
    draws = trained.result.trace.position
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws)


def cell_centres(values: np.ndarray, num: int) -> np.ndarray:
    """Centres of cells over a range a fifth wider on either side than that of `values`."""
    low, high = float(values.min()), float(values.max())
    margin = 0.2 * (high - low) or 1.0
    edges = np.linspace(low - margin, high + margin, num + 1)
    return (edges[1:] + edges[:-1]) / 2


def landscape(trained: EBM | Fit, positions) -> tuple[np.ndarray, np.ndarray]:
    """Log density below its highest value, and energy, at `positions`."""
    log_p = np.asarray(log_densities(trained.model, trained.theta, positions), float)
    tilt = np.asarray(jax.lax.map(trained.model.tilt.log_prob, positions, batch_size=10_000), float)
    highest = np.max(log_p, where=np.isfinite(log_p), initial=-np.inf)
    with np.errstate(invalid="ignore"):  # outside a uniform tilt both are -inf
        return log_p - highest, tilt - log_p


def draw_maps(axes, sides, maps, points: np.ndarray) -> None:
    """Both maps, lines of equal height and `points` (n, 2) over the density."""
    for axis, values, label, style in (
        (axes[0], maps[0], "nats below the highest", {"vmin": -COLOUR_DEPTH, "vmax": 0, "cmap": "magma"}),
        (axes[1], maps[1], "nats", {}),
    ):
        image = axis.pcolormesh(*sides, values, rasterized=True, **style)
        axis.figure.colorbar(image, ax=axis, label=label, extend="min" if style else "neither")
    axes[0].contour(*sides, np.maximum(maps[0], -COLOUR_DEPTH), levels=np.arange(-10, 0, 2), colors="w", linewidths=0.4)
    axes[0].scatter(points[:, 0], points[:, 1], s=2, color="c", linewidths=0, rasterized=True)
    axes[0].set(xlim=(sides[0][0], sides[0][-1]), ylim=(sides[1][0], sides[1][-1]), title="log density")
    axes[1].set_title("energy E")


def draw_curves(axes, side, log_p, energy, points) -> None:
    """Density over a histogram, and energy, of one coordinate."""
    density = np.exp(log_p) / (np.exp(log_p).sum() * (side[1] - side[0]))
    axes[0].hist(points, bins=40, density=True, color="0.8", label="points")
    axes[0].plot(side, density, "C3", label="model, normalised on the axis shown")
    axes[0].legend(fontsize=8)
    axes[0].set_title("density")
    axes[1].plot(side, energy)
    axes[1].set_title("energy E, nats")
