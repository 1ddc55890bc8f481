"""Bad input is refused in words, bad luck is survived and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from targets import half_normal, normal

import flowmcmc
from flowmcmc.checks import check_density, check_positions

STARTS = np.zeros((4, 2), np.float32)

BAD_POSITIONS = {
    "integers": (np.zeros((4, 2), int), TypeError, "dtype int"),
    "no chains": (np.zeros((0, 2)), ValueError, "no chains"),
    "one number": (np.array(1.0), ValueError, "first axis"),
    "nothing": ({}, ValueError, "empty"),
    "chains differ": ({"a": np.zeros((4, 2)), "b": np.zeros(3)}, ValueError, "3 chains"),
    "not finite": (np.array([[0.0], [np.nan]]), ValueError, "NaN"),
}

BAD_DENSITIES = {
    "a vector": (lambda x: -0.5 * x**2, TypeError, r"shape \(2,\)"),
    "a tuple": (lambda x: (jnp.sum(x), 1.0), TypeError, "returned tuple"),
    "an integer": (lambda x: jnp.sum(x > 0), TypeError, "int"),
    "a branch on values": (lambda x: -x[0] if x[0] > 0 else x[0], TypeError, "cannot be traced"),
    "numpy": (lambda x: jnp.sum(jnp.asarray(np.exp(np.asarray(x)))), TypeError, "cannot be traced"),
    "NaN everywhere": (lambda x: jnp.log(-jnp.sum(x**2) - 1), ValueError, "not finite at any"),
    "-inf everywhere": (lambda x: jnp.log(0.0) + jnp.sum(x), ValueError, "first value: -inf"),
}

BAD_OPTIONS = {
    "num_samples": {"num_samples": 0},
    "num_warmup": {"num_warmup": 0},
    "num_local_steps": {"num_local_steps": -1},
    "num_flow_steps": {"num_local_steps": 0, "num_flow_steps": 0},
    "target_acceptance_rate": {"target_acceptance_rate": 1.0},
    "history_size": {"history_size": 2},
    "batch_size": {"batch_size": 0},
}


@pytest.mark.parametrize("name", BAD_POSITIONS)
def test_bad_positions_are_refused(name):
    positions, error, words = BAD_POSITIONS[name]
    with pytest.raises(error, match=words):
        flowmcmc.sample(0, normal, positions)


@pytest.mark.parametrize("name", BAD_DENSITIES)
def test_bad_densities_are_refused(name):
    density, error, words = BAD_DENSITIES[name]
    with pytest.raises(error, match=words):
        flowmcmc.sample(0, density, STARTS)


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        flowmcmc.sample(0, normal, STARTS, **BAD_OPTIONS[name])


@pytest.mark.parametrize("seed", [1.5, "0", None, True, np.zeros((2, 2), np.uint32)])
def test_bad_keys_are_refused(seed):
    with pytest.raises(TypeError, match="rng_key"):
        flowmcmc.sample(seed, normal, STARTS)


def test_a_start_outside_the_support_warns():
    positions = check_positions(np.array([[1.0], [-1.0], [2.0]]))
    with pytest.warns(UserWarning, match="1 of 3 starting positions"):
        check_density(half_normal, positions)


def test_a_nan_gradient_warns_and_names_the_parameter():
    def density(position):
        return -jnp.sum(position["mu"] ** 2) - jnp.where(position["tau"] > 0, jnp.sqrt(position["tau"]), 0.0)

    positions = {"mu": np.ones((3, 2)), "tau": np.array([1.0, 0.0, 2.0])}
    with pytest.warns(UserWarning, match="with respect to tau is not finite at 1 of 3"):
        check_density(density, check_positions(positions))


def test_pool_loss_needs_pools():
    with pytest.raises(ValueError, match="flow_kernel"):
        flowmcmc.sample(0, normal, STARTS, loss=flowmcmc.losses.pool_forward_kl, progress_bar=False)


def test_key_typed_raw_or_int_is_the_same_key():
    from flowmcmc.run import as_key

    data = [jax.random.key_data(as_key(key)) for key in (3, np.int64(3), jax.random.key(3), jax.random.PRNGKey(3))]
    assert all((d == data[0]).all() for d in data)


def test_a_flow_whose_densities_disagree_is_refused():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2))
    off = flow._replace(log_prob=lambda params, position: flow.log_prob(params, position) + 1.0)
    with pytest.raises(ValueError, match="disagree at the flow's own draws, by 1 nats"):
        flowmcmc.sample(0, normal, STARTS, flow=off)


def test_a_flow_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x: \(3,\), but positions have x: \(2,\)"):
        flowmcmc.sample(0, normal, STARTS, flow=flowmcmc.gaussian_mixture(jnp.zeros(3)))
