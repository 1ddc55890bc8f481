"""Where chains are cut off: an end of a coordinate's range from which hardly any step leads away.

In the neck of a funnel, or far out on a ridge, every step is too long and the flow's density too small. Chains that
have come some way in are rejected, those further in are not there, and r-hat and ESS see nothing of it.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["CUT_OFF", "Edge", "edges", "reach"]

SHARE = 0.005  # of the states that make an end
FEWEST = 50
LARGEST_SHARE = 0.02
CUT_OFF = 0.45  # at a wall, which loses half the steps of a kernel that knows nothing of it, the ratio is at least 0.5


class Edge(NamedTuple):
    """States with `coordinate` below (`is_low`) or above `bound`, and how often `local` steps and `flow` proposals are
    accepted from there, relative to all states; NaN where there are none."""

    coordinate: int
    is_low: bool
    bound: float
    local: float
    flow: float

    @property
    def ratio(self) -> float:
        """Of the kind of step that does better."""
        return float(np.fmax(self.local, self.flow))


def edges(positions: np.ndarray, local_rate: np.ndarray, flow_rate: np.ndarray) -> list[Edge]:
    """Both ends of each coordinate, the worst first; none if there are too few states.

    Parameters
    ----------
    positions
        Shape (n, d), where steps began.
    local_rate, flow_rate
        Shape (n,), acceptance of the steps from there; NaN if there were none of a kind.
    """
    count = max(FEWEST, int(SHARE * len(positions)))
    if count > LARGEST_SHARE * len(positions):
        return []
    means = [max(float(rate.mean()), 1e-9) for rate in (local_rate, flow_rate)]  # of NaN: NaN
    found = []
    for coordinate, values in enumerate(positions.T):
        order = np.argpartition(values, [count, len(values) - count])
        for is_low, rows in ((True, order[:count]), (False, order[-count:])):
            bound = values[rows].max() if is_low else values[rows].min()
            ratios = (rate[rows].mean() / mean for rate, mean in zip((local_rate, flow_rate), means))
            found.append(Edge(coordinate, is_low, float(bound), *map(float, ratios)))
    return sorted(found, key=lambda edge: np.nan_to_num(edge.ratio, nan=1.0))


def reach(found: list[Edge]) -> float:
    """Ratio at the worst end; 1 if nothing is known."""
    return float(np.nan_to_num(found[0].ratio, nan=1.0)) if found else 1.0
