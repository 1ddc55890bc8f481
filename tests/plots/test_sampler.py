"""How warm-up went, and whether the chains agree."""

import numpy as np
import pytest
from support.trees import tree_of

from flowmcmc import plots


def test_warmup_shows_what_was_recorded(result):
    rates, losses, steps = plots.plot_warmup(result).axes
    history = result.datatree["warmup_history"]
    np.testing.assert_array_equal(rates.lines[0].get_ydata(), history["flow_acceptance_rate"])
    np.testing.assert_array_equal(steps.lines[0].get_ydata(), history["step_size"])
    assert [text.get_text() for text in losses.get_legend().get_texts()][-1] == "held-out states"
    with pytest.raises(ValueError, match="no warmup_history"):
        plots.plot_warmup(tree_of(np.zeros((2, 5, 1))))


def test_ranks_of_agreeing_chains_are_even_and_of_stuck_ones_are_not():
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(30, 400, 2))
    draws[7, :, 1] += 5
    agree, differ = (axis.images[0].get_array() for axis in plots.plot_ranks(tree_of(draws)).axes[:2])
    assert agree.shape == (30, 20) and abs(agree - 1).max() < 1.2
    np.testing.assert_allclose(differ.mean(axis=1), 1)
    # chain 7 has all of its draws in the highest thirtieth of the ranks
    assert differ[7, -1] > 10 and differ[7, :10].max() == 0
