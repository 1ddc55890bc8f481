"""Positions, densities and flows are looked at before anything is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import half_normal, normal

import flowmcmc
from flowmcmc.ground.checks import check_density, check_positions, check_start

STARTS = np.zeros((4, 2), np.float32)
BAD_POSITIONS = {
    "integers": (np.zeros((4, 2), int), TypeError, "dtype int"),
    "no chains": (np.zeros((0, 2)), ValueError, "no chains"),
    "one number": (np.array(1.0), ValueError, "first axis"),
    "nothing": ({}, ValueError, "empty"),
    "chains differ": ({"a": np.zeros((4, 2)), "b": np.zeros(3)}, ValueError, "3 chains"),
    "an axis's name": (
        {"chain": np.zeros((4, 2)), "b": np.zeros(4)},
        ValueError,
        "'chain', which is the name of an axis",
    ),
    "one axis of another": ({"x": np.zeros((4, 2)), "x_dim_0": np.zeros(4)}, ValueError, "'x_dim_0'.*name of an axis"),
    "one name by nesting": ({"a": {"b": np.zeros(4)}, "a.b": np.zeros(4)}, ValueError, "two leaves named 'a.b'"),
    "one name by a slash": ({"a/b": np.zeros(4), "a.b": np.zeros(4)}, ValueError, "two leaves named 'a.b'"),
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


@pytest.mark.parametrize("name", BAD_POSITIONS)
def test_bad_positions_are_refused(name):
    positions, error, words = BAD_POSITIONS[name]
    with pytest.raises(error, match=words):
        flowmcmc.sample(0, normal, positions)


@pytest.mark.parametrize("name", ["chain", "x_dim_0"])
def test_a_density_to_start_from_with_bad_names_is_refused_before_it_is_drawn_from(name):
    start = flowmcmc.Density(lambda position: 0.0, lambda rng_key: {"x": jnp.zeros(2), name: jnp.zeros(())})

    def density(position):
        pytest.fail("looked at the target")

    with pytest.raises(ValueError, match=f"{name!r}, which is the name of an axis"):
        check_start(jax.random.key(0), density, start)


@pytest.mark.parametrize("name", BAD_DENSITIES)
def test_bad_densities_are_refused(name):
    density, error, words = BAD_DENSITIES[name]
    with pytest.raises(error, match=words):
        flowmcmc.sample(0, density, STARTS)


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


def test_a_flow_whose_densities_disagree_is_refused():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2))
    off = flow._replace(log_prob=lambda params, position: flow.log_prob(params, position) + 1.0)
    with pytest.raises(ValueError, match="disagree at the flow's own draws, by 1 nats"):
        flowmcmc.sample(0, normal, STARTS, flow=off)


def test_a_flow_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"x: \(3,\), but positions have x: \(2,\)"):
        flowmcmc.sample(0, normal, STARTS, flow=flowmcmc.gaussian_mixture(jnp.zeros(3)))
