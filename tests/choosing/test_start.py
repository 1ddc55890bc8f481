"""Where a run starts from a density: `sample` from there, whatever search it takes."""

from dataclasses import dataclass
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import far_modes, two_modes

import flowmcmc
from flowmcmc.choosing import start
from flowmcmc.kernels import tempering
from flowmcmc.kernels.tempering import tempered_smc

START = flowmcmc.normal(jnp.zeros(2), scale=8.0)
QUIET = {"progress_bar": False, "num_particles": 400, "num_local_steps": 5}


def test_sample_finds_the_modes_from_a_density():
    options = {"num_warmup": 60, "num_samples": 200, "num_chains": 40, "num_particles": 500, "progress_bar": False}
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    result = flowmcmc.sample(0, far_modes, START, flow=flow, **options)
    assert result.trace.position.shape == (200, 40, 2)
    weights = flowmcmc.mode_weights(result, lambda x: (x[:, 0] > 0).astype(int))
    assert abs(weights.weights[1] - 0.7) < 4.5 * weights.mcse[1]
    assert result.tuning.params.mixture.log_weights[1] > -3  # the mixture learned more than one mode
    with pytest.raises(ValueError, match="num_chains = 600 must not exceed num_particles = 500"):
        flowmcmc.sample(0, far_modes, START, flow=flow, **options | {"num_chains": 600})
    with pytest.raises(ValueError, match="not finite at any starting position"):
        flowmcmc.sample(0, lambda x: jnp.sum(x) * jnp.nan, START, **options)


def test_options_are_looked_at_before_the_search(monkeypatch):
    monkeypatch.setattr("flowmcmc.sampling.find_start", lambda *_, **__: pytest.fail("searched"))
    three = jax.sharding.AbstractMesh((3,), ("chains",))
    for options in (
        {"target_acceptance_rate": 2.0},
        {"num_local_steps": -1},
        {"flow": 3},
        {"history_size": 1},
        {"optimizer": 3},
        {"mesh": three},
        {"local": 3},
        {"num_chains": 3000},
    ):
        with pytest.raises((TypeError, ValueError), match=next(iter(options)).replace("mesh", "devices")):
            flowmcmc.sample(0, two_modes, START, progress_bar=False, **options)


@pytest.mark.parametrize("without", ["num_flow_steps", "num_local_steps"])
def test_one_kind_of_steps_finds_a_mode_alone(without):
    options = {"num_chains": 20, "num_particles": 200, "num_warmup": 20, "num_samples": 50, "progress_bar": False}
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=2)
    result = flowmcmc.sample(0, lambda x: -0.5 * jnp.sum((x - 1) ** 2), START, flow=flow, **options | {without: 0})
    assert np.abs(result.trace.position.mean((0, 1)) - 1).max() < 0.5
    assert (result.trace.info.num_flow_evaluations.sum() == 0) == (without == "num_flow_steps")


@dataclass
class Data:
    """A density with data, which has no hash."""

    centre: np.ndarray

    def __call__(self, x):
        return -0.5 * jnp.sum((x - self.centre) ** 2)


def test_a_density_without_a_hash():
    options = {"num_chains": 20, "num_particles": 200, "num_warmup": 15, "num_samples": 50, "progress_bar": False}
    result = flowmcmc.sample(0, Data(np.ones(2)), START, **options)
    assert np.abs(result.trace.position.mean((0, 1)) - 1).max() < 0.5
    assert tempered_smc(0, Data(np.ones(2)), START, **QUIET).positions.shape == (400, 2)


@pytest.mark.parametrize(("dim", "search"), [(2, "choosing.temper.temper"), (12, "kernels.tempering.tempered_smc")])
def test_local_steps_alone_move_where_proposals_have_too_few_particles(monkeypatch, dim, search):
    class Taken(Exception):
        pass

    def taken(*_, **__):
        raise Taken

    monkeypatch.setattr(f"flowmcmc.{search}", taken)
    wide = flowmcmc.normal(jnp.zeros(dim), scale=8.0)
    with pytest.raises(Taken):
        flowmcmc.sample(0, lambda x: -0.5 * jnp.sum(x**2), wide, num_chains=10, num_particles=100, progress_bar=False)


def test_chains_start_from_all_ancestors(monkeypatch):
    found = SimpleNamespace(positions=jnp.arange(2000), log_z=0.0, tempering=np.ones(1), num_evaluations=7)
    monkeypatch.setattr(tempering, "tempered_smc", lambda *_, **__: found)
    monkeypatch.setattr(start, "check_start", lambda *_: None)
    budget = flowmcmc.ground.budget.Budget()
    make_frozen = lambda _: SimpleNamespace(step=SimpleNamespace(args=(None,)))
    plan = SimpleNamespace(make_frozen=make_frozen, progress_bar=False, budget=budget)
    wide = SimpleNamespace(sample=lambda key: jnp.zeros(100))
    for chains in (1, 100, 300, 700, 1100, 2000):
        one = start.find_start(jax.random.key(0), plan, [None], wide, (chains, 2000), None)
        chosen, others = one.positions, one.particles
        assert len(chosen) == chains and sorted([*chosen.tolist(), *others.tolist()]) == list(range(2000))
        assert np.diff(chosen).max(initial=0) <= 2000 / chains + 1 and 2000 - chosen[-1] <= 2000 / chains + 1
