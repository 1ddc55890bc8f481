"""Diagnostics on made-up draws whose faults are known; a bad run never gets a good word."""

import gc
import weakref
from dataclasses import dataclass
from typing import Any

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc
from flowmcmc.adaptation.rounds import RoundInfo, Tuning
from flowmcmc.reading.diagnostics import Importance, longest_run, rhat_by_start
from flowmcmc.reading.modes import find_modes
from flowmcmc.reading.problems import flow_problems
from flowmcmc.reading.weights import flow_log_weights, target_log_weights
from flowmcmc.running.run import Trace


def tree_of(draws, accepted=None, num_diverging=None, **attrs):
    groups = {"posterior": {"x": draws}}
    if accepted is not None:
        groups["sample_stats"] = {
            "flow_acceptance_rate": accepted.astype(float),
            "num_flow_accepted": accepted.astype(int),
            "local_acceptance_rate": np.full(accepted.shape, 0.6),
            "num_flow_invalid": np.zeros(accepted.shape, int),
        }
        if num_diverging is not None:
            groups["sample_stats"] |= {"num_diverging": num_diverging, "diverging": num_diverging > 0}
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


def test_checks_that_could_not_be_made_are_not_said_to_pass():
    verdict = flowmcmc.summary(tree_of(hopping())).verdict
    assert verdict.startswith("No problem found: r-hat, ESS and mode visits pass; acceptance unknown.")
    known = flowmcmc.summary(tree_of(hopping(), np.ones((20, 500), bool))).verdict
    assert known.startswith("No problem found: r-hat, ESS, acceptance and mode visits pass.")


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


def test_divergences_of_another_sampler_are_shown():
    tree = tree_of(hopping())
    tree["sample_stats"] = az.from_dict({"sample_stats": {"diverging": np.arange(10_000).reshape(20, 500) % 4 == 0}})[
        "sample_stats"
    ]
    found = flowmcmc.summary(tree)
    assert found.acceptance == ["diverging or hopeless steps: mean over chains 0.25, highest 0.25"]
    assert "acceptance unknown" in found.verdict


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


def test_a_named_mode_that_no_chain_visited_is_a_problem():
    centres = np.array([[4.0, 4.0], [-4.0, -4.0], [40.0, 40.0]])
    assert "mode 2 was never visited" in flowmcmc.summary(tree_of(hopping()), modes=centres).verdict


def test_heavy_tailed_flow_weights_are_a_problem():
    assert "Pareto k 0.90" in flow_problems(Importance(np.zeros(5), 0.9, 0.02))[0]
    assert not flow_problems(Importance(np.zeros(5), 0.9, 0.5))


# --- densities that are objects --------------------------------------------------------------------------------------


@dataclass
class Normal:
    """A density with data; as a dataclass it has no hash."""

    data: Any

    def __call__(self, x):
        return -0.5 * jnp.sum((x - jnp.mean(self.data, axis=0)) ** 2)


FLOW = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=1)
PARAMS = FLOW.init(jax.random.key(0), jnp.zeros(2))


def test_a_density_without_a_hash_will_do():
    density = Normal(np.ones((3, 2)))
    with pytest.raises(TypeError):
        hash(density)
    draws = np.random.default_rng(0).normal(1.0, 1.0, size=(50, 8, 2))  # round, chain, d
    nothing = np.zeros((50, 8))
    info = RoundInfo(nothing, nothing + 0.6, nothing + 0.9, nothing + 5, nothing, nothing)
    settings = {"num_local_steps": 1, "num_flow_steps": 5}
    rest: Any = {"warmup": None, "state": None, "algorithm": None, "rng_key": None}
    tuning = Tuning(PARAMS, jnp.ones(()), jnp.ones(2))
    result = flowmcmc.SampleResult(
        Trace(draws, info), flow=FLOW, tuning=tuning, logdensity_fn=density, settings=settings, **rest
    )
    assert flowmcmc.summary(result).importance.ess > 0
    assert np.array_equal(flowmcmc.importance(result).log_weights, flowmcmc.importance(result).log_weights)
    assert abs(flowmcmc.log_evidence(result, num_draws=1000).log_z - np.log(2 * np.pi)) < 0.5
    assert len(flowmcmc.plot_flow(result, num_draws=100).axes) == 4


def test_weights_compile_once_for_a_density():
    traced = []

    @dataclass
    class Watched(Normal):
        def __call__(self, x):
            traced.append(None)
            return super().__call__(x)

    density, other = Watched(np.zeros((3, 2))), Watched(np.ones((3, 2)))
    weights = [flow_log_weights(jax.random.key(0), each, FLOW, PARAMS, 10) for each in (density, other, density)]
    assert len(traced) == 2 and np.array_equal(weights[0], weights[2]) and not np.array_equal(*weights[:2])


@dataclass(eq=False)
class HashedNormal(Normal):
    """The same, with a hash."""


def test_few_densities_outlive_their_run():
    draws = np.zeros((1, 4, 2))
    alive = []
    for index in range(20):
        density = (HashedNormal if index < 18 else Normal)(np.zeros((3, 2)))
        alive.append(weakref.ref(density))
        flow_log_weights(jax.random.key(0), density, FLOW, PARAMS, 2)
        target_log_weights(draws, density, FLOW, PARAMS)
    del density
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 16
