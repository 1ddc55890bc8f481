"""Bad input is refused in words, bad luck is survived and counted."""

import arviz as az
import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import half_normal, normal

import flowmcmc
from flowmcmc.ground.checks import check_density, check_positions, check_start
from flowmcmc.running.run import Trace

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


@pytest.mark.parametrize("name", ["chain", "x_dim_0"])
def test_a_density_to_start_from_with_bad_names_is_refused_before_it_is_drawn_from(name):
    start = flowmcmc.Density(lambda position: 0.0, lambda rng_key: {"x": jnp.zeros(2), name: jnp.zeros(())})

    def density(position):
        pytest.fail("looked at the target")

    with pytest.raises(ValueError, match=f"{name!r}, which is the name of an axis"):
        check_start(jax.random.key(0), density, start)


def traced(position):
    """The Trace of three rounds of local steps."""
    density = lambda position: -sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(position))
    tuning = flowmcmc.Tuning((), jnp.array(0.1), jax.tree.map(lambda leaf: jnp.ones(leaf.shape[1:]), position))
    frozen = flowmcmc.freeze(density, blackjax.mala, None, tuning, num_local_steps=1, num_flow_steps=0)
    return flowmcmc.run(0, frozen, position, 3, progress_bar=False)[1]


def test_a_slash_in_a_name_is_a_dot_in_the_datatree(tmp_path):
    tree = flowmcmc.to_datatree(traced({"scope/a": jnp.zeros((4, 2)), "b": {"c/d": jnp.zeros(4)}}))
    assert {name: v.shape for name, v in tree.posterior.data_vars.items()} == {"b.c.d": (4, 3), "scope.a": (4, 3, 2)}
    tree.to_netcdf(tmp_path / "draws.nc")
    assert set(az.from_netcdf(tmp_path / "draws.nc").posterior.data_vars) == {"b.c.d", "scope.a"}


@pytest.mark.parametrize("names", [("chain", "b"), ("a/b", "a.b")])
def test_what_a_datatree_would_lose_is_refused(names):
    trace = Trace({name: np.zeros((3, 4)) for name in names}, traced({"x": jnp.zeros(4)}).info)
    with pytest.raises(ValueError, match=r"rename (it|one of them)\."):
        flowmcmc.to_datatree(trace)


def test_only_traces_make_a_datatree():
    for wrong in (3, np.zeros((3, 4))):
        with pytest.raises(TypeError, match=r"trace must be the Trace .* with the sampler of .freeze., got"):
            flowmcmc.to_datatree(wrong)
        with pytest.raises(TypeError, match=r"warmup must be the Trace .* with the sampler of .adaptive., got"):
            flowmcmc.to_datatree(None, warmup=wrong)
    with pytest.raises(TypeError, match=r"got a Trace of NoneType; for draws from elsewhere call arviz\.from_dict"):
        flowmcmc.to_datatree(Trace({"x": np.zeros((3, 4))}, None))
    with pytest.raises(TypeError, match="warmup must be the Trace"):
        flowmcmc.to_datatree(None, warmup=traced({"x": jnp.zeros(4)}))


BAD_MIXTURES = {
    "a name for a loss": (((1.0, "x"),), TypeError, "the loss of a mixture must be a function.*got 'x'"),
    "no pair": ((flowmcmc.losses.forward_kl,), TypeError, r"pairs such as .*got a function \(forward_kl\)"),
    "three": (((1.0, 2.0, flowmcmc.losses.forward_kl),), TypeError, "pairs such as"),
    "a name for a number": ((("x", flowmcmc.losses.forward_kl),), TypeError, "must be one number, got 'x'"),
    "the other way round": (((flowmcmc.losses.forward_kl, 1.0),), TypeError, "must be one number, got a function"),
    "many numbers": (((jnp.ones(2), flowmcmc.losses.forward_kl),), TypeError, "must be one number"),
    "NaN": (((np.nan, flowmcmc.losses.forward_kl),), ValueError, "must be finite, got nan"),
    "nothing": ((), ValueError, "at least one"),
}


@pytest.mark.parametrize("name", BAD_MIXTURES)
def test_bad_mixtures_of_losses_are_refused(name):
    terms, error, words = BAD_MIXTURES[name]
    with pytest.raises(error, match=words):
        flowmcmc.losses.mixture(*terms)


@pytest.mark.parametrize("number", [1, 0.5, np.float32(0.5), jnp.array(0.5)])
def test_any_number_is_a_coefficient(number):
    flowmcmc.losses.mixture((number, flowmcmc.losses.forward_kl), [0.5, flowmcmc.losses.reverse_kl])


def test_a_coefficient_may_be_traced():
    def value(coefficient):
        flowmcmc.losses.mixture((coefficient, flowmcmc.losses.forward_kl))
        return coefficient

    assert jax.jit(value)(0.5) == 0.5


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
    from flowmcmc.ground.arguments import as_key

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
