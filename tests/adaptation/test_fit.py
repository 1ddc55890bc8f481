"""`fit_flow`: gradients gain on the closed form, and what cannot be fitted is refused."""

import jax
import jax.numpy as jnp
import pytest
from support.bent import BENT, bent_logdensity, flow_and_params

from flowmcmc import fit_flow, real_nvp


def test_gradients_gain_on_the_closed_form_fit_of_a_banana():
    """By most of what there is to gain: the truth's own log density on points that neither fit has seen."""
    draws, unseen = BENT.draws(13, 1500), BENT.draws(14, 4000)
    flow = real_nvp(BENT.position, num_layers=2, hidden=16, num_components=1, defensive=0.01)
    closed = fit_flow(0, flow, draws, num_train_steps=0)
    trained = fit_flow(0, flow, draws, num_train_steps=600)
    gap = jax.jit(lambda params: jnp.mean(jax.vmap(lambda x: bent_logdensity(x) - flow.log_prob(params, x))(unseen)))
    assert gap(closed) > 0.2
    assert -0.02 < gap(trained) < 0.4 * gap(closed)


def test_a_flow_is_not_fitted_to_too_few_points_or_nan():
    flow, _ = flow_and_params("bent")
    with pytest.raises(ValueError, match="positions holds 9 points"):
        fit_flow(0, flow, jnp.zeros((9, 2)))
    with pytest.raises(ValueError, match=r"positions\[x\] holds NaN"):
        fit_flow(0, flow, BENT.draws(1, 20).at[3, 1].set(jnp.nan))
    with pytest.raises(TypeError, match="dtype int"):
        fit_flow(0, flow, jnp.ones((20, 2), int))
