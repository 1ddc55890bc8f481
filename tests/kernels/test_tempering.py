"""Tempered SMC: the law of the particles and log Z over many seeds, hard supports, and `sample` from a density."""

from dataclasses import dataclass

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.smc import resampling
from support.helpers import THRESHOLD
from support.targets import two_modes

import flowmcmc
from flowmcmc.kernels import tempering
from flowmcmc.kernels.tempering import tempered_smc

START = flowmcmc.normal(jnp.zeros(2), scale=8.0)
QUIET = {"progress_bar": False, "num_particles": 400, "num_local_steps": 5}
SEEDS = 40


def mixture(x):
    """log of 5 (0.3 N(x; (-4, 0), 0.5^2) + 0.7 N(x; (4, 1), I)): log Z = log 5."""
    near = jnp.log(0.3) - 0.5 * jnp.sum((x - jnp.array([-4.0, 0.0])) ** 2) / 0.25 - jnp.log(0.25)
    far = jnp.log(0.7) - 0.5 * jnp.sum((x - jnp.array([4.0, 1.0])) ** 2)
    return jnp.log(5.0) + jnp.logaddexp(near, far) - jnp.log(2 * jnp.pi)


def z_scores(logdensity) -> np.ndarray:
    """Of the weight of the left mode, E[x_1], E[x_1^2] and Z, over independent runs."""
    found = []
    for seed in range(SEEDS):
        particles = tempered_smc(seed, logdensity, START, **QUIET)
        x = np.asarray(particles.positions)
        found.append([np.mean(x[:, 0] < 0), x[:, 1].mean(), (x[:, 1] ** 2).mean(), np.exp(particles.log_z)])
    found = np.array(found)
    truth = np.array([0.3, 0.7, 0.3 * 0.25 + 0.7 * 2.0, 5.0])
    return (found.mean(axis=0) - truth) / (found.std(axis=0, ddof=1) / np.sqrt(SEEDS))


def test_particles_and_log_z_have_the_right_law():
    assert np.abs(z_scores(mixture)).max() < THRESHOLD


@pytest.mark.parametrize("fault", ["no resampling", "wrong weights"])
def test_a_broken_smc_is_seen(monkeypatch, fault):
    if fault == "no resampling":
        monkeypatch.setattr(resampling, "systematic", lambda key, weights, num: jnp.arange(num))
        density = lambda x: mixture(x)  # a new name, so that the fault is compiled
    else:
        density = lambda x: mixture(x) + 0.05 * START.log_prob(x)
    assert np.abs(z_scores(density)).max() > 2 * THRESHOLD


def test_stages_end_at_the_target_and_are_recorded():
    particles = tempered_smc(0, mixture, START, **QUIET)
    assert particles.tempering[-1] == particles.tempering[-2] == 1.0
    assert (np.diff(particles.tempering) >= 0).all()
    assert particles.acceptance_rate.shape == particles.tempering.shape
    assert 0.2 < particles.acceptance_rate[-1] < 0.95
    again = tempered_smc(0, mixture, START, **QUIET)
    np.testing.assert_array_equal(again.positions, particles.positions)


def test_a_small_support_is_reached():
    def corner(x):
        inside = jnp.all((x > 0.0) & (x < 4.0))  # where 4 % of the starts are
        return jnp.where(inside, 0.0, -jnp.inf)

    particles = tempered_smc(0, corner, START, **QUIET | {"num_particles": 4000})
    x = np.asarray(particles.positions)
    assert ((x > 0) & (x < 4)).all()
    # descendants of some 150 starts: 4 / sqrt(12 * 150) = 0.1
    np.testing.assert_allclose(x.mean(axis=0), 2.0, atol=0.45)


def test_regions_of_nan_are_left():
    particles = tempered_smc(1, lambda x: jnp.sum(jnp.log(x)) - jnp.sum(x), START, **QUIET | {"num_particles": 2000})
    x = np.asarray(particles.positions)  # Gamma(2, 1) in each coordinate
    assert (x > 0).all()
    np.testing.assert_allclose(x.mean(axis=0), 2.0, atol=0.25)


def test_other_kernels_pytrees_and_numpyro_distributions():
    import numpyro.distributions as dist

    kernel = lambda logdensity, step: blackjax.hmc(logdensity, step, jnp.ones(2), 3)
    broad = dist.Normal(0.0, 8.0).expand([2]).to_event(1)
    one = tempered_smc(0, mixture, broad, local=kernel, **QUIET)
    assert one.positions.shape == (400, 2)
    tree = flowmcmc.normal({"a": jnp.zeros(()), "b": jnp.zeros(3)}, scale=3.0)
    two = tempered_smc(0, lambda p: -0.5 * (p["a"] ** 2 + jnp.sum(p["b"] ** 2)), tree, **QUIET)
    assert two.positions["b"].shape == (400, 3)


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(TypeError, match="start must have sample"):
        tempered_smc(0, mixture, jnp.zeros((10, 2)))
    with pytest.raises(ValueError, match="num_particles must be at least 1"):
        tempered_smc(0, mixture, START, num_particles=0)
    with pytest.raises(ValueError, match="target_ess must lie between"):
        tempered_smc(0, mixture, START, target_ess=1.5)
    monkeypatch.setattr(tempering, "MAX_STAGES", 3)
    with pytest.raises(ValueError, match="after 3 stages the tempering is still at"):
        tempered_smc(0, mixture, flowmcmc.normal(jnp.zeros(2), scale=500.0), **QUIET)


def test_sample_finds_the_modes_from_a_density():
    options = {"num_warmup": 60, "num_samples": 200, "num_chains": 40, "num_particles": 500, "progress_bar": False}
    flow = flowmcmc.gaussian_mixture(jnp.zeros(2), num_components=4)
    result = flowmcmc.sample(0, mixture, START, flow=flow, **options)
    assert result.trace.position.shape == (200, 40, 2)
    weights = flowmcmc.mode_weights(result, lambda x: (x[:, 0] > 0).astype(int))
    assert abs(weights.weights[1] - 0.7) < 4.5 * weights.mcse[1]
    assert result.tuning.params.mixture.log_weights[1] > -3  # the mixture learned more than one mode
    with pytest.raises(ValueError, match="num_chains = 600 must not exceed num_particles = 500"):
        flowmcmc.sample(0, mixture, START, flow=flow, **options | {"num_chains": 600})
    with pytest.raises(ValueError, match="not finite at any starting position"):
        flowmcmc.sample(0, lambda x: jnp.sum(x) * jnp.nan, START, **options)


def test_two_modes_by_target_name():
    particles = tempered_smc(0, two_modes, START, **QUIET)
    assert np.isfinite(np.asarray(particles.positions)).all()


def test_chains_start_from_all_ancestors(monkeypatch):
    monkeypatch.setattr(
        "flowmcmc.choosing.start.tempered_smc",
        lambda *_, num_particles, **__: tempering.Particles(jnp.arange(num_particles), 0.0, *np.zeros((2, 1))),
    )
    for chains in (1, 100, 300, 700, 1100, 2000):
        chosen, others = flowmcmc.choosing.candidates.search(
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
