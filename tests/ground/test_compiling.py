"""Programs are kept by what they depend on, are found again, and are forgotten in the end."""

import gc
from collections import Counter
from functools import partial
from pathlib import Path

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import flowmcmc
from flowmcmc.ground.compiling import as_partial, compile_for, output_shape

SMALL = {"num_chains": 8, "num_particles": 64, "num_warmup": 10, "num_samples": 10, "progress_bar": False}
EVENTS = Counter()
jax.monitoring.register_event_duration_secs_listener(lambda event, _, **__: EVENTS.update([event.rpartition("/")[2]]))


@pytest.fixture
def counted():
    """Counts what JAX traces and compiles from then on."""
    EVENTS.clear()
    return EVENTS


def shifted(data, x):
    """A normal about `data`."""
    return -0.5 * jnp.sum((x - data) ** 2)


def sample(seed, logdensity_fn, **options):
    """As a user calls it, everything but the density made anew in each call."""
    wide, flow = flowmcmc.normal(jnp.zeros(2), scale=5.0), flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=1)
    local = flowmcmc.jittered(partial(blackjax.hmc, num_integration_steps=2))
    return flowmcmc.sample(seed, logdensity_fn, wide, **{"flow": flow, "local": local} | SMALL | options)


def test_a_second_run_traces_nothing(counted):
    logdensity_fn = lambda x: -0.5 * jnp.sum((x - 1.5) ** 2)
    first = sample(0, logdensity_fn)
    assert counted["jaxpr_trace_duration"] and counted["backend_compile_duration"]
    counted.clear()
    second = sample(0, logdensity_fn)
    other = sample(1, logdensity_fn, num_samples=17)
    assert not counted
    np.testing.assert_array_equal(first.trace.position, second.trace.position)
    assert other.trace.position.shape == (17, 8, 2)


@pytest.mark.slow
def test_a_second_run_with_defaults_traces_nothing(counted):
    two_modes = lambda x: jnp.logaddexp(-0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2))
    wide = lambda: flowmcmc.normal(jnp.zeros(2), scale=10.0)
    flowmcmc.sample(1, two_modes, wide(), num_samples=10, progress_bar=False)
    counted.clear()
    flowmcmc.sample(1, two_modes, wide(), num_samples=20, progress_bar=False)
    assert not counted


def test_other_data_of_the_same_shape_are_the_same_program(counted):
    data = jnp.full(2, 4.0)
    sample(0, Partial(shifted, jnp.zeros(2)))
    counted.clear()
    result = sample(0, Partial(shifted, data))
    assert not counted
    assert abs(result.trace.position.mean() - 4.0) < 0.7


def test_a_partial_with_data_draws_what_a_closure_draws():
    data = jnp.array([1.0, -2.0])
    by_argument = sample(3, Partial(shifted, data)).trace.position
    by_closure = sample(3, lambda x: shifted(data, x)).trace.position
    np.testing.assert_allclose(by_argument, by_closure, atol=1e-6)


def test_equal_kernels_and_flows_are_one():
    fresh = lambda: flowmcmc.jittered(lambda logdensity_fn, step_size: None)
    assert fresh() is not fresh(), "two functions are two kernels"
    hmc = lambda: flowmcmc.jittered(partial(blackjax.hmc, num_integration_steps=2))
    assert hmc() is hmc()
    for make in (flowmcmc.gaussian_mixture, flowmcmc.real_nvp, flowmcmc.spline_flow, flowmcmc.funnel_mixture):
        assert make(jnp.zeros(3)) is make(jnp.ones(3)) and make(jnp.zeros(3)) is not make(jnp.zeros(4))
    assert flowmcmc.normal(jnp.zeros(2), scale=2.0) is flowmcmc.normal(jnp.ones(2), scale=[2.0, 2.0])
    assert flowmcmc.normal(jnp.zeros(2), scale=2.0) is not flowmcmc.normal(jnp.zeros(2), scale=3.0)


def test_functions_are_traced_once_for_a_shape(counted):
    function = lambda x: jnp.sum(x)
    assert output_shape(function, jnp.zeros(3)).shape == ()
    counted.clear()
    output_shape(function, jnp.ones(3))
    assert not counted
    output_shape(function, jnp.ones(4))
    assert counted


def test_what_is_no_array_stays_in_the_function():
    assert as_partial(Partial(shifted, jnp.zeros(2))).args
    assert not as_partial(Partial(shifted, "name")).args
    assert not as_partial(shifted).args


def add(step: int, function, x):
    """For `compile_for`."""
    return function(x) + step


def test_options_are_static_and_functions_arguments():
    double = lambda x: 2 * x
    assert compile_for(add, double, static=(1,))(jnp.array(3.0)) == 7.0
    assert compile_for(add, double, static=(2,))(jnp.array(3.0)) == 8.0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
def test_fresh_functions_do_not_fill_the_memory():
    """200 densities, each with 800 kB of data in it and a program of its own."""

    def megabytes():
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    def fresh(index):
        data = jnp.full(100_000, float(index))
        return lambda x: jax.lax.dynamic_slice(data, (0,), (1,))[0]  # the least that there is to compile

    for index in range(100):
        compile_for(evaluate, fresh(index))(jnp.zeros(1))
    before = megabytes()
    for index in range(100, 300):
        compile_for(evaluate, fresh(index))(jnp.zeros(1))
    assert megabytes() - before < 40, "200 programs with their data are 160 MB in double precision"


def evaluate(logdensity_fn, position):
    """A density as a program."""
    return logdensity_fn(position)
