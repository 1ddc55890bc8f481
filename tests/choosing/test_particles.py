"""Particles of many temperatures, weighed as draws of their mixture."""

import numpy as np
import pytest
from support.helpers import THRESHOLD

from flowmcmc.adaptation.training import HOLD_OUT
from flowmcmc.choosing.particles import (
    HOPELESS,
    Kept,
    ess_of,
    log_mean,
    log_weights,
    next_beta,
    resample,
    separate,
    split,
)


def deviation(beta):
    """Of N(0, 1)^beta N(0, 4^2)^(1 - beta), the target without its constant."""
    return (beta + (1 - beta) / 16) ** -0.5


def kept_of(betas, number, seed=0):
    """Exact draws at each inverse temperature, with the true constants."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([deviation(beta) * rng.standard_normal(number) for beta in betas])
    start = -0.5 * (x / 4) ** 2 - np.log(4 * np.sqrt(2 * np.pi))
    constants = tuple(map(true_log_z, betas))
    return Kept(x, -0.5 * x**2, start, (number,) * len(betas), tuple(betas), constants)


def true_log_z(beta):
    return float(np.log(np.sqrt(2 * np.pi) * deviation(beta)) - (1 - beta) * np.log(4 * np.sqrt(2 * np.pi)))


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_particles_of_all_stages_are_weighed_as_draws_of_their_mixture(beta):
    found = [log_mean(log_weights(kept_of([0.0, 0.05, 0.3], 500, seed), beta)) for seed in range(40)]
    error = np.std(found) / np.sqrt(40)
    assert error < 0.02 and abs(np.mean(found) - true_log_z(beta)) < THRESHOLD * error + 1e-12


def test_weights_that_forget_a_stage_are_found_out():
    """As if all particles were of the last one."""
    found = []
    for seed in range(40):
        kept = kept_of([0.0, 0.05, 0.3], 500, seed)
        forgetful = kept._replace(numbers=(1500,), betas=kept.betas[-1:], log_zs=kept.log_zs[-1:])
        found.append(log_mean(log_weights(forgetful, 1.0)))
    assert abs(np.mean(found) - true_log_z(1.0)) > 2 * THRESHOLD * np.std(found) / np.sqrt(40)


def test_the_next_inverse_temperature_leaves_as_many_effective_draws_as_wanted():
    kept = kept_of([0.0], 4000)
    beta = next_beta(kept, 2000)
    assert 0 < beta < 1 and ess_of(log_weights(kept, beta)) == pytest.approx(2000, rel=1e-3)
    assert next_beta(kept, 10) == 1.0
    assert next_beta(kept, 3000) < beta


def test_what_cannot_be_has_no_weight_and_a_start_that_ends_is_no_matter():
    kept = kept_of([0.0, 0.5], 100)
    kept.target[:50] = HOPELESS
    kept.start[150:] = -np.inf  # moved out of the start's support at the target itself
    kept = kept._replace(numbers=(100, 50, 50), betas=(0.0, 0.5, 1.0), log_zs=(*kept.log_zs, true_log_z(1.0)))
    weights = log_weights(kept, 1.0)
    assert not np.isnan(weights).any() and (weights[:50] < -1e19).all() and np.isfinite(weights[150:]).all()
    assert next_beta(kept_of([0.0, 0.5], 100), 20) == 1.0


def test_resampling_is_unbiased_and_in_random_order():
    rng = np.random.default_rng(0)
    share = np.array([0.5, 0.2, 0.25, 0.05])
    counts = sum(np.bincount(resample(rng, np.log(share), 10), minlength=4) for _ in range(2000)) / 20_000
    assert np.abs(counts - share).max() < 0.003
    first = np.array([resample(rng, np.log(share), 10)[0] for _ in range(4000)])
    assert np.abs(np.bincount(first, minlength=4) / 4000 - share).max() < 0.04


def test_copies_of_a_particle_are_on_one_side_of_the_held_out_states():
    rng = np.random.default_rng(2)
    chosen = np.repeat(np.arange(100), rng.integers(1, 6, 100))[:250]
    arranged = separate(rng, chosen, 40)
    assert np.array_equal(np.sort(arranged), np.sort(chosen))
    is_heldout = np.concatenate([np.arange(40), np.arange(210)]) % HOLD_OUT == HOLD_OUT - 1
    shared = np.intersect1d(arranged[is_heldout], arranged[~is_heldout])
    assert len(shared) <= 5 and len(np.unique(arranged[is_heldout])) > 10


def test_chains_come_first():
    chains, others = split({"a": np.arange(10)}, 4)
    assert chains["a"].tolist() == [0, 1, 2, 3] and others["a"].tolist() == [4, 5, 6, 7, 8, 9]
