"""Diagnostics on made-up draws whose faults are known; a bad run never gets a good word."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc
from flowmcmc.diagnostics import Importance, longest_run
from flowmcmc.modes import find_modes
from flowmcmc.summary import flow_problems


def tree_of(draws, accepted=None, **attrs):
    groups = {"posterior": {"x": draws}}
    if accepted is not None:
        groups["sample_stats"] = {
            "flow_acceptance_rate": accepted.astype(float),
            "num_flow_accepted": accepted.astype(int),
            "local_acceptance_rate": np.full(accepted.shape, 0.6),
            "num_flow_invalid": np.zeros(accepted.shape, int),
        }
    tree = az.from_dict(groups)
    tree.attrs |= attrs
    return tree


def hopping(weight=0.7, chains=20, draws=500, dim=2):
    """Independent draws of two modes."""
    rng = np.random.default_rng(0)
    mode = rng.uniform(size=(chains, draws, 1)) < weight
    return np.where(mode, 4.0, -4.0) + rng.normal(size=(chains, draws, dim))


def stuck(chains=20, draws=500, dim=2):
    """Half of the chains in each mode, for ever."""
    side = np.where(np.arange(chains) % 2 == 0, 4.0, -4.0)
    return side[:, None, None] + np.random.default_rng(0).normal(size=(chains, draws, dim))


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


def test_clusters_are_found_and_curves_stay_whole():
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 4000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * (3 + 0.1 * rng.normal(size=(4000, 1)))
    assert find_modes(ring).max() == 0
    three = rng.normal(size=(3000, 20)) + 3.0 * np.eye(20)[[0, 1, 2] * 1000] * np.sqrt(20) / 2
    labels = find_modes(three)
    assert np.bincount(labels).tolist() == [1000, 1000, 1000]
    heavy = rng.standard_t(2, size=(4000, 2))
    assert find_modes(heavy).max() == 0


def test_longest_run_of_rejections():
    assert longest_run(np.array([0, 1, 1, 1, 0, 1], bool)) == 3
    assert longest_run(np.zeros(4, bool)) == 0
    assert longest_run(np.ones(4, bool)) == 4
    accepted = np.ones((3, 100), bool)
    accepted[1, 20:70] = False
    table = flowmcmc.rejections(tree_of(hopping(chains=3, draws=100), accepted))
    assert table["longest_rejection"].values.tolist() == [0, 50, 0]


def test_a_good_run_gets_a_good_word():
    accepted = np.ones((20, 500), bool)
    text = str(flowmcmc.summary(tree_of(hopping(), accepted)))
    assert "No problem found" in text and "mode 1: weight" in text


BAD_RUNS = {
    "stuck chains": (tree_of(stuck(), np.ones((20, 500), bool)), ["r-hat is", "entered", "ESS"]),
    "no flow moves": (tree_of(stuck(), np.zeros((20, 500), bool)), ["flow proposals accepted 0.0 %"]),
    "one chain": (tree_of(hopping(chains=1)), ["only 1 chain"]),
    "too few draws": (tree_of(hopping(chains=4, draws=20)), ["ESS is"]),
    "interrupted": (tree_of(hopping(), partial=1), ["interrupted"]),
    "frozen": (tree_of(np.zeros((8, 100, 2))), ["never moved"]),
    "NaN draws": (tree_of(np.full((8, 100, 2), np.nan)), ["NaN"]),
    "few short chains": (tree_of(stuck(chains=64, draws=20)), ["r-hat is"]),
}


@pytest.mark.parametrize("name", BAD_RUNS)
def test_a_bad_run_never_gets_a_good_word(name):
    tree, expected = BAD_RUNS[name]
    verdict = flowmcmc.summary(tree, modes=lambda x: (x[:, 0] < 0).astype(int)).verdict
    assert verdict.startswith("NOT to be trusted")
    for words in expected:
        assert words in verdict


def test_a_long_run_of_rejections_is_named():
    accepted = np.ones((20, 500), bool)
    accepted[7, 100:400] = False
    assert "chain 7 went 300 rounds" in flowmcmc.summary(tree_of(hopping(), accepted)).verdict


def test_a_flow_without_support_is_named():
    assert "no draw of the flow" in flow_problems(Importance(np.full(5, -np.inf), np.inf, 0.0))[0]


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


def test_a_named_mode_that_no_chain_visited_is_a_problem():
    centres = np.array([[4.0, 4.0], [-4.0, -4.0], [40.0, 40.0]])
    assert "mode 2 was never visited" in flowmcmc.summary(tree_of(hopping()), modes=centres).verdict


def test_heavy_tailed_flow_weights_are_a_problem():
    assert "Pareto k 0.90" in flow_problems(Importance(np.zeros(5), 0.9, 0.02))[0]
    assert not flow_problems(Importance(np.zeros(5), 0.9, 0.5))
