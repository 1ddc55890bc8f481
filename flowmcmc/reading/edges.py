"""Where chains are cut off: an end of a coordinate's range where hardly any step is accepted.

In the neck of a funnel, or far out on a ridge, every step is too long and the flow's density too small. Chains that
have come part of the way have their steps rejected, no chain gets further, and r-hat and ESS do not show it.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["CUT_OFF", "Edge", "edges", "reach"]

EDGE_SHARE = 0.005  # of all states: those that make up an end
MIN_EDGE_STATES = 50  # states at an end, at least
MAX_EDGE_SHARE = 0.02  # if MIN_EDGE_STATES is a larger share of all states, ends are not judged
MIN_END_STEPS = 10  # steps of a kind from the states at an end, with fewer of them that kind is not known there
CUT_OFF = 0.45  # ratio below which chains are cut off; a hard wall, which takes half of the steps, gives at least 0.5


class Edge(NamedTuple):
    """States with `coordinate` below (`is_low`) or above `bound`, and how often `local` steps and `flow` proposals are
    accepted from there, relative to all states; NaN where there are too few."""

    coordinate: int
    is_low: bool
    bound: float
    local: float
    flow: float

    @property
    def ratio(self) -> float:
        """The larger of the two relative acceptance rates."""
        return float(np.fmax(self.local, self.flow))


def edges(positions: np.ndarray, local_rate: np.ndarray, flow_rate: np.ndarray) -> list[Edge]:
    """Both ends of each coordinate, the worst first; none if there are too few states.

    Parameters
    ----------
    positions
        Shape (n, d), where steps began.
    local_rate, flow_rate
        Shape (n,), acceptance of the steps from there; NaN where there were none of a kind. Where only some states have
        steps of a kind, an end with too few of them is not judged.
    """
    count = max(MIN_EDGE_STATES, int(EDGE_SHARE * len(positions)))
    if count > MAX_EDGE_SHARE * len(positions):
        return []
    rates = local_rate, flow_rate
    known = [~np.isnan(rate) for rate in rates]
    means = [max(float(rate[is_known].mean()), 1e-9) if is_known.any() else 1.0 for rate, is_known in zip(rates, known)]
    found = []
    for coordinate, values in enumerate(positions.T):
        order = np.argpartition(values, [count, len(values) - count])
        for is_low, rows in ((True, order[:count]), (False, order[-count:])):
            bound = values[rows].max() if is_low else values[rows].min()
            ratios = []
            for rate, is_known, mean in zip(rates, known, means):
                here = rows[is_known[rows]]
                ratios.append(float(rate[here].mean()) / mean if len(here) >= MIN_END_STEPS else float("nan"))
            # a kind that may well be accepted there leaves the end unjudged
            if not any(is_known.any() and np.isnan(ratio) for is_known, ratio in zip(known, ratios)):
                found.append(Edge(coordinate, is_low, float(bound), *ratios))
    return sorted(found, key=lambda edge: np.nan_to_num(edge.ratio, nan=1.0))


def reach(found: list[Edge]) -> float:
    """Ratio at the worst end, the first of `found`; 1 if nothing is known."""
    return float(np.nan_to_num(found[0].ratio, nan=1.0)) if found else 1.0
