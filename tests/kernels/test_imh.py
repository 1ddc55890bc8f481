"""Independent Metropolis-Hastings: its acceptance rule, against BlackJAX in law, and what it does with bad numbers."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import helpers
from support.helpers import TARGETS, flow_params, gaussian_flow, identity_error, small_flow

from flowmcmc import Flow, imh

STATES = ["untrained", "wrong", "trained"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", TARGETS)
def test_metropolis_hastings_identity(name, state):
    target, flow, params = TARGETS[name], small_flow(name), flow_params(name)[state]
    positions = target.draws(11, 500)
    assert identity_error(target.logdensity, flow, params, positions).max() < 1e-10
    # and far from where the target is
    assert identity_error(target.logdensity, flow, params, jax.tree.map(lambda x: 2 * x + 0.5, positions)).max() < 1e-10


@pytest.mark.parametrize(
    "mutant", [helpers.without_flow_density(), helpers.with_swapped_flow_density, helpers.with_disagreeing_passes]
)
def test_identity_rejects_broken_kernels(mutant):
    target, flow, params = TARGETS["mixture"], small_flow("mixture"), flow_params("mixture")["trained"]
    errors = identity_error(target.logdensity, flow, params, target.draws(11, 500), mutant)
    assert np.median(errors) > 1e-2


def test_acceptance_is_metropolis_and_proposals_are_the_flows():
    """By hand: two normals, p = N(0, 1) and q = N(0.5, 2)."""
    kernel = imh(lambda x: -0.5 * x**2, gaussian_flow(0.5, 2.0), ())
    keys = jax.random.split(jax.random.key(0), 4000)
    state = kernel.init(jnp.array(0.3))
    new_state, info = jax.jit(jax.vmap(kernel.step, (0, None)))(keys, state)
    y = np.asarray(info.proposal)
    log_weight = -0.5 * y**2 + 0.5 * ((y - 0.5) / 2) ** 2
    now = -0.5 * 0.3**2 + 0.5 * ((0.3 - 0.5) / 2) ** 2
    assert np.allclose(info.acceptance_rate, np.minimum(1, np.exp(log_weight - now)), rtol=1e-12)
    constant = np.log(2) + 0.5 * np.log(2 * np.pi)
    assert np.allclose(info.proposal_log_weight, log_weight + constant, rtol=1e-12)
    assert np.allclose(new_state.position, np.where(info.is_accepted, y, 0.3), rtol=0)
    assert np.allclose(new_state.log_weight, np.where(info.is_accepted, log_weight, now) + constant, rtol=1e-12)
    assert np.array_equal(info.logdensity, new_state.logdensity)
    assert np.allclose(info.logdensity, -0.5 * np.asarray(new_state.position) ** 2, rtol=1e-12)
    # accepted as often as announced
    rate = np.asarray(info.acceptance_rate)
    z = (np.asarray(info.is_accepted) - rate).sum() / np.sqrt((rate * (1 - rate)).sum())
    assert abs(z) < helpers.THRESHOLD
    z = (y.mean() - 0.5) / (2 / np.sqrt(len(y)))
    assert abs(z) < helpers.THRESHOLD


def test_same_law_as_blackjax_irmh():
    """Two steps from one far point: the law depends on every part of the acceptance rule."""
    target, flow, params = TARGETS["mixture"], small_flow("mixture"), flow_params("mixture")["wrong"]
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, *x.shape)), jnp.array([1.0, 0.0]))

    def ours(params):
        return imh(target.logdensity, flow, params)

    def oracle(proposal_logdensity):
        def make(params):
            def draw(key):
                return flow.sample_and_log_prob(key, params)[0]

            return blackjax.irmh(target.logdensity, draw, lambda *pair: proposal_logdensity(params, *pair))

        return make

    def q_of_the_second(params, previous, new):
        return flow.log_prob(params, new.position)

    def q_of_the_first(params, previous, new):
        return flow.log_prob(params, previous.position)

    draws = helpers.push(ours, 2)(jax.random.key(5), params, start)
    same = helpers.push(oracle(q_of_the_second), 2)(jax.random.key(6), params, start)
    other = helpers.push(oracle(q_of_the_first), 2)(jax.random.key(7), params, start)
    stayed = [float(jnp.mean(jnp.all(x == start, axis=1))) for x in (draws, same)]
    assert 0.05 < stayed[0] < 0.95
    assert abs(stayed[0] - stayed[1]) < 4.5 * np.sqrt(2 * 0.25 / 20_000)
    assert helpers.is_exact(helpers.two_sample_z(target.functions, draws, same))
    assert not helpers.is_exact(helpers.two_sample_z(target.functions, draws, other))


NORMAL = gaussian_flow(0.0, 1.0)
arrays_of = partial(jax.tree.map, np.asarray)


@pytest.mark.parametrize(("value", "num_invalid"), [(jnp.nan, 1), (jnp.inf, 1), (-jnp.inf, 0)])
def test_a_bad_density_is_rejected_and_counted(value, num_invalid):
    kernel = imh(lambda x: jnp.where(x > 0, -0.5 * x**2, value), NORMAL, ())
    keys = jax.random.split(jax.random.key(0), 1000)
    state, info = arrays_of(jax.jit(jax.vmap(kernel.step, (0, None)))(keys, kernel.init(jnp.array(0.7))))
    is_bad = info.proposal <= 0
    assert 400 < is_bad.sum() < 600
    assert not (info.is_accepted & is_bad).any()
    assert (state.position[is_bad] == 0.7).all()
    assert (info.acceptance_rate[is_bad] == 0).all()
    assert (info.proposal_log_weight[is_bad] == -jnp.inf).all()
    assert np.array_equal(info.num_invalid, num_invalid * is_bad)
    assert (info.is_accepted & ~is_bad).any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("position", "log_prob"),
    [(jnp.nan, -1.0), (jnp.inf, -1.0), (0.1, jnp.nan), (0.1, jnp.inf), (0.1, -jnp.inf)],
)
def test_a_bad_proposal_is_rejected_and_counted(position, log_prob):
    """Whatever the flow returns, and also for a density that is finite everywhere."""
    flow = NORMAL._replace(sample_and_log_prob=lambda key, params: (jnp.array(position), jnp.array(log_prob)))
    for logdensity in (lambda x: -0.5 * x**2, lambda x: 0.0 * jnp.nan_to_num(x)):
        kernel = imh(logdensity, flow, ())
        state, info = kernel.step(jax.random.key(0), kernel.init(jnp.array(0.7)))
        assert state.position == 0.7
        assert not info.is_accepted
        assert info.num_invalid == 1


@pytest.mark.parametrize("value", [jnp.nan, -jnp.inf, jnp.inf])
def test_a_start_outside_is_left_at_the_first_valid_proposal(value):
    kernel = imh(lambda x: jnp.where(x > 0, -0.5 * x**2, value), NORMAL, ())
    state = kernel.init(jnp.array(-1.0))
    assert state.log_weight == -jnp.inf
    keys = jax.random.split(jax.random.key(0), 200)
    state, info = arrays_of(jax.jit(jax.vmap(kernel.step, (0, None)))(keys, state))
    assert np.array_equal(info.is_accepted, info.proposal > 0)
    assert np.array_equal(state.position, np.where(info.proposal > 0, info.proposal, -1.0))
    assert (state.logdensity[info.proposal > 0] <= 0).all()


def test_where_the_flow_has_no_density_the_chain_waits():
    """w = p / 0 = inf: no proposal may replace it, for the flow never comes back here."""
    uniform = Flow(
        lambda key, position: (),
        lambda key, params: (jax.random.uniform(key), jnp.zeros(())),
        lambda params, x: jnp.where((x > 0) & (x < 1), 0.0, -jnp.inf),
    )
    kernel = imh(lambda x: -0.5 * x**2, uniform, ())
    keys = jax.random.split(jax.random.key(0), 100)
    state, info = jax.jit(jax.vmap(kernel.step, (0, None)))(keys, kernel.init(jnp.array(2.0)))
    assert (state.position == 2.0).all()
    assert (info.acceptance_rate == 0).all()


def test_float32_positions_stay_float32():
    position = {"a": jnp.zeros((), jnp.float32), "b": jnp.zeros(2, jnp.float32)}
    flow = helpers.real_nvp(position, num_layers=2, hidden=8, num_components=2)
    params = jax.jit(flow.init)(jax.random.key(0), position)
    kernel = imh(lambda x: -0.5 * (x["a"] ** 2 + jnp.sum(x["b"] ** 2)), flow, params)
    state, info = jax.jit(lambda key: kernel.step(key, kernel.init(position)))(jax.random.key(1))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves((state, info)) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert dtypes == {jnp.dtype("float32")}
