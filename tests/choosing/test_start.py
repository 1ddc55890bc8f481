"""Where a run starts from a broad density: particles of all ancestors, and `sample` from there."""

from dataclasses import dataclass

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.targets import far_modes, two_modes

import flowmcmc
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


def test_chains_start_from_all_ancestors(monkeypatch):
    monkeypatch.setattr(
        "flowmcmc.choosing.start.tempered_smc",
        lambda *_, num_particles, **__: tempering.Particles(jnp.arange(num_particles), 0.0, *np.zeros((2, 1))),
    )
    for chains in (1, 100, 300, 700, 1100, 2000):
        chosen, others = flowmcmc.choosing.start.find_start(
            None, None, None, num_chains=chains, num_particles=2000, local=blackjax.mala, progress_bar=False
        )
        assert len(chosen) == chains and sorted([*chosen.tolist(), *others.tolist()]) == list(range(2000))
        assert np.diff(chosen).max(initial=0) <= 2000 / chains + 1 and 2000 - chosen[-1] <= 2000 / chains + 1


def test_options_are_looked_at_before_the_search(monkeypatch):
    monkeypatch.setattr("flowmcmc.choosing.start.tempered_smc", lambda *_, **__: pytest.fail("searched"))
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
