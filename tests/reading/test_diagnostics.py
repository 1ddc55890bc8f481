"""Diagnostics on made-up draws whose faults are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.trees import hopping, stuck, tree_of

import flowmcmc
from flowmcmc.reading.diagnostics import rhat_by_start
from flowmcmc.reading.waits import longest_run


@pytest.mark.parametrize("modes", ["centres", "function", "found"])
def test_mode_weights_have_honest_errors(modes):
    given = {
        "centres": np.array([[4.0, 4.0], [-4.0, -4.0]]),
        "function": lambda x: (x[:, 0] < 0).astype(int),
        "found": None,
    }[modes]
    draws = hopping()
    found = flowmcmc.mode_weights(tree_of(draws), given)
    np.testing.assert_allclose(found.weights, [np.mean(draws[..., 0] > 0), np.mean(draws[..., 0] < 0)], atol=1e-3)
    np.testing.assert_allclose(found.mcse[0], np.sqrt(0.7 * 0.3 / draws[..., 0].size), rtol=0.2)
    assert found.labels.shape == draws.shape[:2] and (found.num_chains == 20).all()


def test_stuck_chains_have_a_large_error_and_no_transitions():
    found = flowmcmc.mode_weights(tree_of(stuck()), np.array([[4.0, 4.0], [-4.0, -4.0]]))
    assert found.mcse[0] > 0.1 and found.transitions.sum() == 0


def test_an_error_that_cannot_be_known_is_nan():
    found = flowmcmc.mode_weights(tree_of(np.random.default_rng(0).normal(size=(4, 100, 2))), np.zeros((1, 2)))
    assert found.weights[0] == 1.0 and np.isnan(found.mcse[0])


def test_bad_modes_are_refused():
    with pytest.raises(ValueError, match="2 coordinates"):
        flowmcmc.mode_weights(tree_of(hopping()), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="integers"):
        flowmcmc.mode_weights(tree_of(hopping()), lambda x: x[:, 0])


def test_longest_run_of_rejections():
    assert longest_run(np.array([0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == 0
    assert longest_run(np.ones(4, bool)) == 4
    accepted = np.ones((3, 100), bool)
    accepted[1, 20:70] = False
    table = flowmcmc.rejections(tree_of(hopping(chains=3, draws=100), accepted))
    assert table["longest_rejection"].values.tolist() == [0, 50, 0]


@pytest.mark.parametrize("scale, is_heavy", [(1.5, False), (0.5, True)])
def test_pareto_k_sees_tails_that_are_too_thin(scale, is_heavy):
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=1, defensive=0.0)
    params = flow.init(jax.random.key(0), jnp.zeros(2))
    params = params._replace(affine=params.affine._replace(scale=jnp.full(2, scale)))

    class Run:
        logdensity_fn = staticmethod(lambda x: -0.5 * jnp.sum(x**2))

    Run.flow, Run.params = flow, params
    found = flowmcmc.importance(Run)
    assert (found.pareto_k > 0.7) == is_heavy
    assert 0 < found.ess < 1


def test_nested_rhat_needs_groups():
    tree = tree_of(hopping(chains=16, draws=30))
    assert float(flowmcmc.nested_rhat(tree, 4)["x"].max()) < 1.1
    assert float(flowmcmc.nested_rhat(tree_of(stuck(chains=16, draws=30)), 8)["x"].max()) > 1.5
    with pytest.raises(ValueError, match="do not split"):
        flowmcmc.nested_rhat(tree, 5)


def frozen(chains, draws, order):
    """Chains that never move: each at its own place, or in one of two modes."""
    places = np.random.default_rng(0).normal(size=(chains, 2))
    if order == "sorted":
        places = np.sort(places, axis=0)
    if order == "blocks":
        places = np.sign(np.arange(chains) - chains / 2 + 0.5)[:, None] + 0.1 * places
    if order == "in turn":
        places = (-1.0) ** np.arange(chains)[:, None] + 0.1 * places
    return np.repeat(places[:, None], draws, axis=1)


@pytest.mark.parametrize("order", ["at random", "sorted", "blocks", "in turn"])
@pytest.mark.parametrize("chains, draws", [(1000, 40), (101, 20), (32, 5)])
def test_short_chains_that_never_move_are_never_fine(chains, draws, order):
    tree = tree_of(frozen(chains, draws, order))
    verdict = flowmcmc.summary(tree, modes=lambda x: np.zeros(len(x), int)).verdict
    assert "r-hat is" in verdict and (rhat_by_start(tree) > 1.5).all()


@pytest.mark.parametrize("chains, draws", [(1000, 5), (1000, 40), (101, 20), (37, 45)])
def test_short_chains_of_independent_draws_raise_no_alarm(chains, draws):
    rng = np.random.default_rng(1)
    found = [rhat_by_start(tree_of(rng.normal(size=(chains, draws, 2)))) for _ in range(10)]
    assert np.max(found) < 1.01


def test_short_chains_with_some_memory_raise_no_alarm():
    """Of 40 draws some 13 are independent; classic r-hat says 1.05."""
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(1000, 40, 2))
    for t in range(1, 40):
        draws[:, t] = 0.5 * draws[:, t - 1] + np.sqrt(0.75) * draws[:, t]
    assert rhat_by_start(tree_of(draws)).max() < 1.01
    verdict = flowmcmc.summary(tree_of(draws), modes=lambda x: np.zeros(len(x), int)).verdict
    assert verdict.startswith("No problem found")
