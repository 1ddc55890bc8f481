"""Flows and kernels of the user's say what they are: nothing is read off the names of their parameters."""

from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

import flowmcmc
from flowmcmc import Flow
from flowmcmc.adaptation.training import is_trained, masked_optimizer
from flowmcmc.kernels.scaled import LocalConstructor, needs_of, scaled_kernel

SMALL = {"num_warmup": 30, "num_samples": 10, "num_chains": 20, "num_particles": 200, "progress_bar": False}


def logdensity(x):
    return norm.logpdf(x, 1.0, 2.0)


def normal_flow(make_params, loc_and_log_scale, **fields) -> Flow:
    """N(loc, exp(log_scale)^2) of a scalar, the two read from parameters of any shape."""

    def log_prob(params, x):
        loc, log_scale = loc_and_log_scale(params)
        return norm.logpdf(x, loc, jnp.exp(log_scale))

    def sample_and_log_prob(key, params):
        loc, log_scale = loc_and_log_scale(params)
        x = loc + jnp.exp(log_scale) * jax.random.normal(key)
        return x, log_prob(params, x)

    return Flow(lambda key, position: make_params(), sample_and_log_prob, log_prob, **fields)


class WithMixture(NamedTuple):
    mixture: Any


class WithLayers(NamedTuple):
    numbers: Any
    layers: tuple


def run(flow, **options):
    starts = 2.0 * jax.random.normal(jax.random.key(9), (20,))
    return flowmcmc.sample(0, logdensity, starts, flow=flow, **SMALL | {"local": blackjax.mala} | options)


def test_a_field_named_mixture_is_the_flows_own_affair():
    flow = normal_flow(lambda: WithMixture(jnp.zeros(2)), lambda params: params.mixture)
    assert not np.array_equal(run(flow).params.mixture, np.zeros(2)), "it is trained"


def test_an_empty_field_named_layers_does_not_keep_the_rest_from_training():
    flow = normal_flow(lambda: WithLayers(jnp.zeros(2), ()), lambda params: params.numbers)
    assert not np.array_equal(run(flow).params.numbers, np.zeros(2))


@pytest.mark.filterwarnings("error")
def test_a_flow_without_parameters_and_fit_has_a_loss():
    flow = normal_flow(lambda: (), lambda params: (1.0, jnp.log(2.0)))
    result = run(flow)
    loss = result.warmup.info.training.heldout_loss
    assert np.isfinite(loss).all()
    assert abs(loss[-1] - (0.5 + np.log(2) + 0.5 * np.log(2 * np.pi))) < 0.3, "entropy of N(1, 2^2)"


def test_gradients_train_what_is_trainable_and_nothing_else():
    def mask(params):
        return {"trained": True, "fixed": False}

    make = lambda: {"trained": jnp.zeros(2), "fixed": jnp.full(2, 0.25)}
    flow = normal_flow(make, lambda params: params["trained"] + params["fixed"], trainable=mask)
    params = run(flow, optimizer=optax.adamw(1e-2, weight_decay=0.1)).params
    np.testing.assert_array_equal(params["fixed"], np.full(2, 0.25))
    assert not np.array_equal(params["trained"], np.zeros(2))
    assert is_trained(flow, make()) and not is_trained(flow._replace(trainable=lambda params: False), make())
    optimizer = masked_optimizer(optax.adam(1.0), flow, make())
    updates, _ = optimizer.update({"trained": jnp.ones(2), "fixed": jnp.zeros(2)}, optimizer.init(make()), make())
    np.testing.assert_array_equal(updates["fixed"], np.zeros(2))


def test_a_default_of_the_users_kernel_is_kept():
    seen = []

    def kernel(logdensity_fn, step_size, scale=17.0, params="mine"):
        seen.append((scale, params))
        return blackjax.mala(logdensity_fn, step_size)

    assert needs_of(kernel) == ()
    run(flowmcmc.gaussian_mixture(jnp.zeros(()), num_components=1), local=kernel)
    assert set(seen) == {(17.0, "mine")}


def test_a_kernel_is_given_what_it_says_it_needs():
    seen = {}

    def build(logdensity_fn, step_size, **needed):
        seen.update(needed)
        return blackjax.mala(logdensity_fn, step_size)

    scaled_kernel(
        LocalConstructor(build, ("params", "scale")), logdensity, jnp.ones(()), jnp.full((), 4.0), "of the flow"
    )
    assert seen == {"params": "of the flow", "scale": 4.0}
    assert (
        needs_of(blackjax.hmc) == needs_of(blackjax.nuts) == ("inverse_mass_matrix",) and needs_of(blackjax.mala) == ()
    )
    flow = flowmcmc.real_nvp(jnp.zeros(2))
    assert set(needs_of(flowmcmc.neutra(blackjax.mala, flow))) == {"params", "scale"}
    assert set(needs_of(flowmcmc.jittered(flowmcmc.neutra(blackjax.mala, flow)))) == {"params", "scale"}


WIDE = flowmcmc.normal(jnp.zeros(2), scale=3.0)


def wells(x):
    return jnp.sum(-0.05 * x**4 - 0.4 * x**2)


def test_what_was_compiled_is_what_the_result_says():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=4)  # more than there are modes: some are dropped
    result = flowmcmc.sample(0, wells, WIDE, flow=flow, **SMALL)
    inside = result.algorithm.init(result.state.position).tuning
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b or np.array_equal(a, b), inside, result.tuning))


def test_layers_that_are_asked_for_on_a_product_are_warmed_up_once(monkeypatch):
    """Two double wells are a product; mixtures of single coordinates would be tried if they stood in the list."""
    from flowmcmc.choosing import warmup

    tried, try_candidate = [], warmup.try_candidate

    def spy(key, plan, candidates, already, index, start, particles):
        tried.append(candidates[index].name)
        return try_candidate(key, plan, candidates, already, index, start, particles)

    monkeypatch.setattr(warmup, "try_candidate", spy)
    real_nvp = lambda position, **_: flowmcmc.real_nvp(position, num_layers=1, hidden=2, num_components=1)
    monkeypatch.setattr("flowmcmc.flows.real_nvp", real_nvp)  # of the flows in the list those that are trained
    result = flowmcmc.sample(0, wells, WIDE, optimizer=optax.adam(3e-3), local=blackjax.mala, **SMALL)
    assert tried == [result.settings["flow"]] == ["layers"]
