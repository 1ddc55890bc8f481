"""Tempered SMC: the law of the particles and log Z over many seeds, and hard supports."""

import blackjax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.smc import resampling
from support.helpers import THRESHOLD
from support.targets import far_modes, two_modes

import flowmcmc
from flowmcmc.kernels import tempering
from flowmcmc.kernels.tempering import tempered_smc

START = flowmcmc.normal(jnp.zeros(2), scale=8.0)
QUIET = {"progress_bar": False, "num_particles": 400, "num_local_steps": 5}
SEEDS = 40


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
    assert np.abs(z_scores(far_modes)).max() < THRESHOLD


@pytest.mark.parametrize("fault", ["no resampling", "wrong weights"])
def test_a_broken_smc_is_seen(monkeypatch, fault):
    if fault == "no resampling":
        monkeypatch.setattr(resampling, "systematic", lambda key, weights, num: jnp.arange(num))
        density = lambda x: far_modes(x)  # a new name, so that the fault is compiled
    else:
        density = lambda x: far_modes(x) + 0.05 * START.log_prob(x)
    assert np.abs(z_scores(density)).max() > 2 * THRESHOLD


def test_stages_end_at_the_target_and_are_recorded():
    particles = tempered_smc(0, far_modes, START, **QUIET)
    assert particles.tempering[-1] == particles.tempering[-2] == 1.0
    assert (np.diff(particles.tempering) >= 0).all()
    assert particles.acceptance_rate.shape == particles.tempering.shape
    assert 0.2 < particles.acceptance_rate[-1] < 0.95
    again = tempered_smc(0, far_modes, START, **QUIET)
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
    one = tempered_smc(0, far_modes, broad, local=kernel, **QUIET)
    assert one.positions.shape == (400, 2)
    tree = flowmcmc.normal({"a": jnp.zeros(()), "b": jnp.zeros(3)}, scale=3.0)
    two = tempered_smc(0, lambda p: -0.5 * (p["a"] ** 2 + jnp.sum(p["b"] ** 2)), tree, **QUIET)
    assert two.positions["b"].shape == (400, 3)


def test_bad_input_is_named(monkeypatch):
    with pytest.raises(TypeError, match="start must have sample"):
        tempered_smc(0, far_modes, jnp.zeros((10, 2)))
    with pytest.raises(ValueError, match="num_particles must be at least 1"):
        tempered_smc(0, far_modes, START, num_particles=0)
    with pytest.raises(ValueError, match="target_ess must lie between"):
        tempered_smc(0, far_modes, START, target_ess=1.5)
    monkeypatch.setattr(tempering, "MAX_STAGES", 3)
    with pytest.raises(ValueError, match="after 3 stages the tempering is still at"):
        tempered_smc(0, far_modes, flowmcmc.normal(jnp.zeros(2), scale=500.0), **QUIET)


def test_two_modes_by_target_name():
    particles = tempered_smc(0, two_modes, START, **QUIET)
    assert np.isfinite(np.asarray(particles.positions)).all()
