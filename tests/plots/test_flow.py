"""The flow beside the chains."""

import re
from dataclasses import replace

import numpy as np
import pytest

import flowmcmc
from flowmcmc import plots
from flowmcmc.plots.flow import draw_weights
from flowmcmc.plots.parts import new_figure


def test_flow_and_chains_side_by_side(result):
    plane, first, second, weights = plots.plot_flow(result, num_draws=500).axes
    assert [axis.get_xlabel() for axis in (plane, first, second)] == ["<a>", "<a>", "b.c[0]"]
    assert len(plane.collections) == 2
    assert re.match(r"weights, ESS of the flow \d+\.\d%", weights.get_title())
    known = flowmcmc.importance(result, num_draws=500)
    assert f"{known.ess:.1%}" in weights.get_title()  # the same draws as there


def test_weights_out_of_reach_are_counted_at_the_edges():
    axis = new_figure(3, 3).subplots()
    on_chains = np.concatenate([np.zeros(90), np.full(10, 15.0)])  # where the flow is far too small
    draw_weights(axis, on_chains, np.concatenate([np.zeros(98), [-np.inf, np.nan]]))
    chains, flow = (patch.get_xy() for patch in axis.patches)
    assert chains[chains[:, 0] > 10, 1].max() == pytest.approx(0.1)
    assert flow[0, 0] < 0 and flow[:3, 1].max() == pytest.approx(0.02)
    assert axis.get_title() == "weights, ESS of the flow 98.0%"


def test_no_picture_of_a_flow_that_was_not_used(stuck, result):
    with pytest.raises(ValueError, match="num_flow_steps was 0"):
        plots.plot_flow(stuck)
    with pytest.raises(ValueError, match="interrupted"):
        plots.plot_flow(replace(result, trace=None))
