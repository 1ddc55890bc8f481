"""The one call: modes weighed right, with any kernel, and bad luck survived."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.runs import SMALL, mixture_of, small_flow, starts
from support.targets import half_normal, two_modes

import flowmcmc


def test_modes_are_weighed_within_their_error(result):
    modes = flowmcmc.mode_weights(result, np.array([[3.0, 3.0], [-3.0, -3.0]]))
    assert abs(modes.weights[0] - 2 / 3) < 4 * modes.mcse[0] < 0.04
    assert (modes.num_chains == 40).all()


def test_same_seed_same_draws(result):
    starts = jax.tree.map(lambda x: x[0], result.warmup.position)
    again = flowmcmc.sample(0, result.logdensity_fn, starts, flow=result.flow, keep_warmup=True, **SMALL)
    twice = flowmcmc.sample(0, result.logdensity_fn, starts, flow=result.flow, keep_warmup=True, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, again.trace, twice.trace)


@pytest.mark.slow
def test_same_seed_same_draws_whatever_the_flow(result):
    starts = jax.tree.map(lambda x: x[0], result.warmup.position)
    again = flowmcmc.sample(0, result.logdensity_fn, starts, **SMALL)
    twice = flowmcmc.sample(0, result.logdensity_fn, starts, **SMALL)
    jax.tree.map(np.testing.assert_array_equal, again.trace, twice.trace)


KERNELS = {
    "nuts": {"local": partial(blackjax.nuts, max_num_doublings=4), "num_local_steps": 1},
    "hmc": {"local": partial(blackjax.hmc, num_integration_steps=5), "num_local_steps": 1},
    "barker": {"local": blackjax.barker},
    "random walk": {"local": blackjax.additive_step_random_walk.normal_random_walk, "target_acceptance_rate": 0.3},
    "isir, pool loss": {
        "local": blackjax.mala,
        "flow_kernel": partial(flowmcmc.isir, num_proposals=8),
        "loss": flowmcmc.losses.mixture((0.6, flowmcmc.losses.pool_forward_kl), (0.4, flowmcmc.losses.reverse_kl)),
    },
    "no local steps": {"num_local_steps": 0},
}


@pytest.mark.parametrize("name", KERNELS)
def test_any_kernel_weighs_the_modes(name):
    options = SMALL | {"num_local_steps": 2} | KERNELS[name]
    has_layers = "loss" in options  # the others go without: training compiles for longer than all the rest runs
    flow = small_flow(jnp.zeros(2)) if has_layers else mixture_of(jnp.zeros(2))
    result = flowmcmc.sample(1, two_modes, starts(), flow=flow, **options)
    modes = flowmcmc.mode_weights(result, np.array([[3.0, 3.0], [-3.0, -3.0]]))
    assert abs(modes.weights[0] - 2 / 3) < 4 * modes.mcse[0] < 0.1


def test_local_steps_alone_are_a_plain_sampler():
    result = flowmcmc.sample(
        1, two_modes, starts(), flow=mixture_of(jnp.zeros(2)), local=blackjax.mala, num_flow_steps=0, **SMALL
    )
    assert "flow_acceptance_rate" not in result.datatree.sample_stats
    modes = flowmcmc.mode_weights(result, np.array([[3.0, 3.0], [-3.0, -3.0]]))
    assert modes.transitions.sum() <= 2


def test_one_chain_in_one_dimension_works():
    result = flowmcmc.sample(2, lambda x: -0.5 * x**2, jnp.zeros(1), flow=mixture_of(jnp.zeros(()), 1), **SMALL)
    assert result.datatree.posterior["x"].shape == (1, 300)
    assert "only 1 chain(s)" in flowmcmc.summary(result).verdict


def test_a_flow_without_layers_runs_beside_an_optimizer_for_layers():
    flow = mixture_of(jnp.zeros(2))
    options = SMALL | {"num_local_steps": 2} | KERNELS["barker"]
    result = flowmcmc.sample(2, two_modes, starts(), flow=flow, optimizer=optax.adam(1e-3), **options)
    assert result.flow is flow


def test_walls_and_nan_regions_are_survived_counted_and_exact():
    def density(x):  # NaN below -1, zero between -1 and 0
        return jnp.where(x[0] < -1, jnp.nan, half_normal(x))

    positions = jnp.abs(jax.random.normal(jax.random.key(0), (40, 1)))
    result = flowmcmc.sample(3, density, positions, flow=mixture_of(positions[0], 1), **SMALL)
    draws = result.datatree.posterior["x"].values
    assert draws.min() > 0
    assert result.datatree.sample_stats["num_flow_invalid"].sum() > 0
    assert result.datatree.sample_stats["num_diverging"].sum() > 0
    error = draws.mean(axis=(1, 2)) - np.sqrt(2 / np.pi)
    assert abs(error.mean()) < 4 * error.std() / np.sqrt(len(error))


def test_interrupted_warm_up_returns_its_history(result, interrupt):
    interrupt(2)
    starts = jax.tree.map(lambda leaf: leaf[0], result.warmup.position)
    with pytest.warns(UserWarning, match="interrupted after 1 of 60"):
        result = flowmcmc.sample(0, result.logdensity_fn, starts, flow=result.flow, keep_warmup=True, **SMALL)
    assert result.trace is None and result.datatree.attrs["partial"] == 1
    assert result.datatree.warmup_history.sizes["round"] == 1
    with pytest.raises(ValueError, match="call sample again"):
        result.more(10)
    with pytest.raises(ValueError, match="draw more"):
        flowmcmc.summary(result)
