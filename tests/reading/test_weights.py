"""Weights of a flow: any callable is a density, compiled once and not kept for ever."""

import gc
import weakref
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flowmcmc
from flowmcmc.adaptation.rounds import RoundInfo, Tuning
from flowmcmc.ground import compiling
from flowmcmc.reading.weights import bridge, flow_log_weights, target_log_weights
from flowmcmc.running.run import Trace


@dataclass
class Normal:
    """A density with data; as a dataclass it has no hash."""

    data: Any

    def __call__(self, x):
        return -0.5 * jnp.sum((x - jnp.mean(self.data, axis=0)) ** 2)


FLOW = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=1)
PARAMS = FLOW.init(jax.random.key(0), jnp.zeros(2))


def test_a_density_without_a_hash_will_do():
    density = Normal(np.ones((3, 2)))
    with pytest.raises(TypeError):
        hash(density)
    draws = np.random.default_rng(0).normal(1.0, 1.0, size=(50, 8, 2))  # round, chain, d
    nothing = np.zeros((50, 8))
    info = RoundInfo(nothing, nothing + 0.6, nothing + 0.9, nothing + 5, *[nothing] * 4)
    settings = {"num_local_steps": 1, "num_flow_steps": 5}
    rest: Any = {"warmup": None, "state": None, "algorithm": None, "rng_key": None}
    tuning = Tuning(PARAMS, jnp.ones(()), jnp.ones(2))
    result = flowmcmc.SampleResult(
        Trace(draws, info), flow=FLOW, tuning=tuning, logdensity_fn=density, settings=settings, **rest
    )
    assert flowmcmc.summary(result).importance.ess > 0
    assert np.array_equal(flowmcmc.importance(result).log_weights, flowmcmc.importance(result).log_weights)
    assert abs(flowmcmc.log_evidence(result, num_draws=1000).log_z - np.log(2 * np.pi)) < 0.5
    assert len(flowmcmc.plot_flow(result, num_draws=100).axes) == 4


def test_weights_compile_once_for_a_density():
    traced = []

    @dataclass
    class Watched(Normal):
        def __call__(self, x):
            traced.append(None)
            return super().__call__(x)

    density, other = Watched(np.zeros((3, 2))), Watched(np.ones((3, 2)))
    weights = [flow_log_weights(jax.random.key(0), each, FLOW, PARAMS, 10) for each in (density, other, density)]
    assert len(traced) == 2 and np.array_equal(weights[0], weights[2]) and not np.array_equal(*weights[:2])


@dataclass(eq=False)
class HashedNormal(Normal):
    """The same, with a hash."""


def test_few_densities_outlive_their_run(monkeypatch):
    monkeypatch.setattr(compiling, "jitted", lru_cache(maxsize=16)(compiling.jitted.__wrapped__))
    draws = np.zeros((1, 4, 2))
    alive = []
    for index in range(20):
        density = (HashedNormal if index < 18 else Normal)(np.zeros((3, 2)))
        alive.append(weakref.ref(density))
        flow_log_weights(jax.random.key(0), density, FLOW, PARAMS, 2)
        target_log_weights(draws, density, FLOW, PARAMS)
    del density
    gc.collect()
    assert sum(ref() is not None for ref in alive) <= 16


def test_bridge_solves_the_equation_of_meng_and_wong():
    rng = np.random.default_rng(0)
    on_flow, on_target = rng.normal(size=500) - 700, rng.normal(size=(1, 500)) - 699
    log_z, error = bridge(on_flow, on_target)
    r, (flow, target) = 1.0, (np.exp(on_flow + 700), np.exp(on_target + 700))
    for share in (0.4, 0.5, 0.6):  # any share has a fixed point near the optimal one's
        for _ in range(200):
            top = np.mean(flow / (share * flow + (1 - share) * r))
            r = top / np.mean(1 / (share * target + (1 - share) * r))
        assert abs(log_z - (np.log(r) - 700)) < 2 * error


def test_a_flow_draw_of_hardly_any_weight_does_not_move_the_bridge():
    rng = np.random.default_rng(0)
    on_flow, on_target = rng.normal(-0.02, 0.2, 10_000), rng.normal(0.02, 0.2, (100, 100))
    on_flow[0] = -100.0
    expected = bridge(on_flow, on_target)
    for lowest in (-1e3, -7e7, -1e30, -3e38, -np.inf):
        on_flow[0] = lowest
        assert np.allclose(bridge(on_flow, on_target), expected, atol=1e-8)
