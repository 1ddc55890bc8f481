"""What the pictures share: figures outside pyplot, a colour for each mode, the coordinates asked for."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowmcmc.ground.arguments import describe_value

__all__ = [
    "CHAINS_COLOUR",
    "FLOW_COLOUR",
    "axis_ends",
    "check_path",
    "draw_rows",
    "mode_colours",
    "new_figure",
    "save_figure",
    "select_coordinates",
    "thinning_slice",
]

CHAINS_COLOUR, FLOW_COLOUR = "0.7", "C1"  # colours of chains and flow
MAX_SCATTER_POINTS = 4000  # in a scatter plot: more hide each other, and make vector files large
TAIL_SHARE = 0.002  # share of all draws that may lie outside the axes, on either side
GROUP_TAIL_SHARE = 0.1  # share of one mode's draws that may lie outside, on either side


def new_figure(width: float, height: float) -> Any:
    """A Figure of this size in inches, made without pyplot, so that it need not be closed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'flowmcmc[demo]'.") from error
    return Figure(figsize=(width, height), layout="constrained")


def check_path(path) -> None:
    """Raise early what saving a picture to `path` would raise; None (save nothing) and open files pass.

    Raises
    ------
    TypeError, ValueError
        If it is no path, or has a suffix that matplotlib knows no format for.
    OSError
        If it is a folder, in a folder that does not exist, or may not be written.
    """
    if path is None or hasattr(path, "write"):
        return
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must name a file, such as 'picture.png'; got {describe_value(path)}.")
    file = Path(path)
    known = new_figure(1, 1).canvas.get_supported_filetypes()
    if file.is_dir():
        raise IsADirectoryError(f"path {file} is a folder: name a file in it, such as {file / 'picture.png'}.")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"path {file} cannot be written: there is no folder {file.parent}; make it first.")
    if (suffix := file.suffix[1:].lower()) and suffix not in known:
        raise ValueError(
            f"path {file} has a suffix of no known picture format: take one of {', '.join(sorted(known))}."
        )
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise PermissionError(f"path {file} may not be written by this user: name a file elsewhere.")


def save_figure(figure, path):
    """Write the figure to `path`, if that is not None, and return it."""
    if path is not None:
        figure.savefig(path, dpi=120)
    return figure


def mode_colours(num_modes: int) -> np.ndarray:
    """RGB colours (num_modes, 3), repeated from the twentieth mode on."""
    from matplotlib import colormaps

    few = num_modes <= 10
    return colormaps["tab10" if few else "tab20"](np.arange(num_modes) % (10 if few else 20))[:, :3]


def select_coordinates(
    names: list[str], coordinates: Sequence[str] | None, num_default: int
) -> tuple[list[int], list[str]]:
    """Indices of `coordinates` among `names`, and those names; None takes the first `num_default`."""
    if coordinates is None:
        return list(range(len(names)))[:num_default], names[:num_default]
    wanted = [coordinates] if isinstance(coordinates, str) else list(coordinates)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
        raise ValueError(f"coordinates must name some of {known}; got {unknown or wanted}.")
    return [names.index(name) for name in wanted], wanted


def thinning_slice(num: int, num_points: int = MAX_SCATTER_POINTS) -> slice:
    """Slice that thins `num` rows evenly to at most `num_points`."""
    return slice(None, None, max(1, -(-num // num_points)))


def axis_ends(values: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """Ends of an axis for `values` (n,) in `groups` (n,): long tails do not squeeze the rest, small groups stay in."""
    is_finite = np.isfinite(values)
    values, groups = values[is_finite], groups[is_finite]
    if not len(values):
        return 0.0, 1.0
    ends = [np.quantile(values, [TAIL_SHARE, 1 - TAIL_SHARE])]
    ends += [
        np.quantile(values[groups == group], [GROUP_TAIL_SHARE, 1 - GROUP_TAIL_SHARE]) for group in np.unique(groups)
    ]
    low, high = float(np.min(ends)), float(np.max(ends))
    margin = 0.1 * (high - low) or 0.5 * abs(high) or 0.5
    return low - margin, high + margin


def draw_rows(axis, values: np.ndarray, ends: tuple[float, float], cmap: str | None = None, highest: float = 1.0):
    """An image with a row for each chain, numbered from 0 as everywhere: colours, or numbers from 0 to `highest`."""
    extent = (*ends, len(values) - 0.5, -0.5)
    style = {"aspect": "auto", "interpolation": "nearest", "vmin": 0, "vmax": highest}
    image = axis.imshow(values, extent=extent, cmap=cmap, **style)
    axis.yaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.set_ylabel("chain")
    return image
