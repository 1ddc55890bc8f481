"""The table of flows that a default run may take, and what states promise of them."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from support.helpers import plain_flow

import flowmcmc
from flowmcmc.choosing.candidates import (
    LOCAL,
    FirstResults,
    Outlook,
    candidate_of,
    default_candidates,
    learns_by_gradients,
)

POSITION = jnp.zeros(3)


def test_candidates_go_from_the_cheapest_to_the_dearest():
    candidates = default_candidates(POSITION)
    prices = [candidate.price for candidate in candidates]
    assert prices == sorted(prices) and len({candidate.name for candidate in candidates}) == len(candidates)
    learning = [learns_by_gradients(candidate.flow, POSITION) for candidate in candidates]
    assert learning == sorted(learning), "fitted flows come first"
    assert [one.name for one in candidates if one.follows_ridges] == ["funnel", "bent"]


def test_states_tell_products_and_ridges():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((4000, 3))
    ridge = rows.copy()
    ridge[:, 2] = rows[:, 0] ** 2 + 0.1 * rows[:, 2]
    outlook = {one.name: one.outlook for one in default_candidates(POSITION)}
    assert outlook["funnel"](FirstResults(rows, 4.2, 0.5)) is Outlook.FAIR
    assert outlook["funnel"](FirstResults(ridge, 4.2, 0.5)) is Outlook.NONE
    assert outlook["marginals"](FirstResults(rows, None, None)) is Outlook.BETTER
    truth = 1.5 * np.log(2 * np.pi * np.e)
    assert outlook["marginals"](FirstResults(rows, truth, 0.9)) is Outlook.NONE
    assert outlook["marginals"](FirstResults(rows, truth + 2, 0.9)) is Outlook.BETTER


def test_a_flow_of_the_users_has_a_kernel_that_suits_it():
    needs = lambda flow: getattr(candidate_of(flow).local, "needs", ())
    assert candidate_of(plain_flow(0.0, 1.0, dim=3)).local is LOCAL
    make = partial(flowmcmc.gaussian_mixture, POSITION)
    assert "scale" in needs(make()) and "params" in needs(make())  # its metric
    assert "params" in needs(flowmcmc.real_nvp(POSITION, num_layers=2, hidden=4))  # its latent space
