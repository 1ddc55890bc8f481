"""What is wrong with a run is said, in sentences."""

import numpy as np
import pytest
from support.trees import hopping, tree_of

import flowmcmc
from flowmcmc.reading.diagnostics import Importance
from flowmcmc.reading.problems import flow_problems


@pytest.mark.parametrize("share, is_fine", [(0.0, True), (0.3, True), (0.6, False)])
@pytest.mark.parametrize("num_steps", [1, 5])
def test_many_local_steps_that_diverge_are_a_problem(share, is_fine, num_steps):
    """Where nobody recorded how many steps there are, they are as many as ever diverged in one draw."""
    counts = np.random.default_rng(0).binomial(num_steps, share, size=(20, 500))
    for attrs in ({"num_local_steps": num_steps}, {}):
        tree = tree_of(hopping(), np.ones((20, 500), bool), counts, **attrs)
        found = flowmcmc.summary(tree)
        assert not any("diverging" in line for line in found.acceptance)
        assert ("No problem found" in found.verdict) == is_fine
        assert ("60 % of local steps diverged" in found.verdict) == (not is_fine)


def test_a_long_run_of_rejections_is_named():
    accepted = np.ones((20, 500), bool)
    accepted[7, 100:400] = False
    assert "chain 7 went 300 rounds" in flowmcmc.summary(tree_of(hopping(), accepted)).verdict


def test_a_flow_without_support_is_named():
    assert "no draw of the flow" in flow_problems(Importance(np.full(5, -np.inf), np.inf, 0.0))[0]


def test_a_named_mode_that_no_chain_visited_is_a_problem():
    centres = np.array([[4.0, 4.0], [-4.0, -4.0], [40.0, 40.0]])
    assert "mode 2 was never visited" in flowmcmc.summary(tree_of(hopping()), modes=centres).verdict


def test_heavy_tailed_flow_weights_are_a_problem():
    assert "Pareto k 0.90" in flow_problems(Importance(np.zeros(5), 0.9, 0.02))[0]
    assert not flow_problems(Importance(np.zeros(5), 0.9, 0.5))
