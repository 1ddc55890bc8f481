"""A bad run never gets a good word, and checks that could not be made are not said to pass."""

import arviz as az
import numpy as np
import pytest
from support.trees import hopping, stuck, tree_of

import flowmcmc


def test_a_good_run_gets_a_good_word():
    accepted = np.ones((20, 500), bool)
    text = str(flowmcmc.summary(tree_of(hopping(), accepted)))
    assert "No problem found" in text and "mode 1: weight" in text


def test_checks_that_could_not_be_made_are_not_said_to_pass():
    verdict = flowmcmc.summary(tree_of(hopping())).verdict
    assert verdict.startswith("No problem found: r-hat, ESS and mode visits pass; acceptance unknown.")
    known = flowmcmc.summary(tree_of(hopping(), np.ones((20, 500), bool))).verdict
    assert known.startswith("No problem found: r-hat, ESS, acceptance and mode visits pass.")


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
