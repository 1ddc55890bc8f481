"""Warm-up with a flow that is fitted, not trained."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import two_modes

import flowmcmc
from flowmcmc.choosing import fitted
from flowmcmc.flows.layered import drop_unused_components

WIDE = flowmcmc.normal(jnp.zeros(2), scale=10.0)
OPTIONS = {"num_chains": 20, "num_particles": 400, "num_warmup": 60, "num_samples": 30, "progress_bar": False}


def test_warm_up_and_draws_share_one_program():
    traced, compiled = [], []
    density = lambda position: two_modes(position)  # a new one, for which no other test compiled programs

    def listen(event, duration, fun_name="", **_):
        if event.endswith("jaxpr_trace_duration") and "take_rounds" in fun_name:
            traced.append(duration)
        if event.endswith("backend_compile_duration") and "take_rounds" in fun_name:
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        # so many particles tell how many components there are
        result = flowmcmc.sample(0, density, WIDE, **OPTIONS | {"num_particles": 1000})
        assert result.settings["flow"] == "mixture"
        result = result.more(30, progress_bar=False)
        flowmcmc.run(0, result.algorithm, result.state, 200, progress_bar=False)
        assert len(traced) == 1 == len(compiled)
        flowmcmc.sample(0, density, result.trace.position[-1], **OPTIONS)
        assert len(traced) > 1  # from positions the number of components is not known at first
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_production_does_not_adapt():
    result = flowmcmc.sample(0, two_modes, WIDE, **OPTIONS)
    after = result.more(30, progress_bar=False).state.sampler.tuning
    for frozen, used in zip(jax.tree.leaves(result.state.sampler.tuning), jax.tree.leaves(after)):
        assert np.array_equal(frozen, used)


def test_room_for_components_grows_and_does_not_change_the_density():
    flow = flowmcmc.gaussian_mixture(jnp.zeros(40), num_components=8)
    params = flow.init(jax.random.key(0), jnp.zeros(40))
    log_weights = jnp.log(jnp.array([0.2, 0.0, 0.5, 0.0, 0.0, 0.3, 0.0, 0.0]))
    means = jax.random.normal(jax.random.key(1), (8, 40))
    params = params._replace(mixture=params.mixture._replace(log_weights=log_weights, means=means))
    places = jax.random.normal(jax.random.key(2), (20, 40))
    expected = jax.vmap(flow.log_prob, (None, 0))(params, places)
    roomy, slots = leave_room(flow, params, 40, 1)
    assert slots == 4 == len(roomy.mixture.log_weights)
    assert leave_room(flow, params, 40, 8)[1] == 8
    for few in (roomy, drop_unused_components(params), drop_unused_components(params, 6)):
        assert np.allclose(jax.vmap(flow.log_prob, (None, 0))(few, places), expected, atol=1e-12)
    assert len(drop_unused_components(params).mixture.log_weights) == 3
    assert leave_room(flow._replace(num_components=None), params, 40, 3) == (params, 3)
    assert leave_room(flow, params, 40, 3, is_known=False) == (params, 1)
    # where matrices are small, there is room from the start
    small = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=16)
    assert leave_room(small, small.init(jax.random.key(0), jnp.zeros(2)), 2, 1)[1] == 8


def leave_room(flow, params, dim, num_slots, *, is_known=True):
    """`fitted.leave_room` of a state with these parameters."""
    state = SimpleNamespace(tuning=SimpleNamespace(params=params), position=jnp.zeros((3, dim)))
    return fitted.leave_room(flow, state, num_slots, is_known=is_known)


@pytest.mark.parametrize("nth", [1, 3])
def test_ctrl_c_keeps_what_there_is(interrupt, monkeypatch, nth):
    interrupt(nth)
    with pytest.warns(UserWarning, match=f"interrupted after {5 * (nth - 1)} of 21 rounds"):
        result = flowmcmc.sample(0, two_modes, WIDE, **OPTIONS)
    assert result.settings["partial"] and result.trace is None
    assert len(result.warmup.info.step_size) == 5 * (nth - 1)
    assert np.isfinite(result.state.sampler.position).all()
