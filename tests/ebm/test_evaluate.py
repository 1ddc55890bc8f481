"""Evaluation of energies where everything is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from ebm.judging.annealing import ais, ais_bracket, reverse_ais
from ebm.judging.evaluate import grid, grid_mode_weights, kl_divergence, mode_weights_importance
from ebm.judging.two_sample import c2st, mmd
from ebm.model import Model
from flowmcmc import Flow, normal, uniform

THRESHOLD = 4.5

# --- a Gaussian energy under a normal tilt: the model is N(A B / (1 + A), 1 / (1 + A)) -------------------------------

A, B = 4.0, jnp.array([1.0, -0.5])
GAUSSIAN = Model(lambda rng_key: A, lambda theta, x: 0.5 * theta * jnp.sum((x - B) ** 2), normal(jnp.zeros(2)))
LOG_Z = float(jnp.sum(-0.5 * jnp.log1p(A) - 0.5 * A * B**2 / (1 + A)))
MEAN, SCALE = A * B / (1 + A), 1 / np.sqrt(1 + A)


def gaussian_draws(rng_key, num):
    return MEAN + SCALE * jax.random.normal(rng_key, (num, 2))


def gaussian_step_size(b):
    return 0.4 / (1 + A * b)


# --- two modes, one twice as heavy as the other, in a box -------------------------------------------------------------

NARROW, HALF_WIDTH = 0.4, 5.0


def two_mode_energy(theta, x):
    squares = jnp.array([jnp.sum((x + theta) ** 2), jnp.sum((x - theta) ** 2)])
    return -jax.nn.logsumexp(jnp.log(jnp.array([1 / 3, 2 / 3])) - 0.5 * squares / NARROW**2)


TWO_MODES = Model(lambda rng_key: 2.0, two_mode_energy, uniform(jnp.zeros(2), low=-HALF_WIDTH, high=HALF_WIDTH))
TWO_MODES_LOG_Z = float(np.log(2 * np.pi * NARROW**2) - 2 * np.log(2 * HALF_WIDTH))


def side(points):
    return (np.asarray(points)[:, 0] > 0).astype(int)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ais_has_honest_errors(direction):
    options = {"num_temperatures": 60, "step_size": gaussian_step_size}

    def one(rng_key):
        if direction == "forward":
            return ais(rng_key, GAUSSIAN, A, num_walkers=200, **options)
        key_draws, key_walk = jax.random.split(rng_key)
        return reverse_ais(key_walk, GAUSSIAN, A, gaussian_draws(key_draws, 200), **options)

    found = jax.vmap(one)(jax.random.split(jax.random.key(0), 100))
    z = np.asarray((found.log_z - LOG_Z) / found.error)
    assert abs(z.mean()) < 0.4 and 0.8 < z.std() < 1.25
    assert float(found.acceptance_rate.min()) > 0.5


def test_ais_bounds_log_z_from_both_sides():
    """With few walkers and temperatures the bounds are far from tight, so that each must be on its own side."""

    def one(rng_key):
        key_draws, key_walk = jax.random.split(rng_key)
        draws = gaussian_draws(key_draws, 4)
        options = {"num_walkers": 4, "num_temperatures": 5, "step_size": gaussian_step_size}
        lower, upper = ais_bracket(key_walk, GAUSSIAN, A, draws, **options)
        return lower.log_z, upper.log_z

    lower, upper = map(np.asarray, jax.vmap(one)(jax.random.split(jax.random.key(1), 500)))
    assert (lower.mean() - LOG_Z) / (lower.std() / np.sqrt(500)) < -THRESHOLD
    assert (upper.mean() - LOG_Z) / (upper.std() / np.sqrt(500)) > THRESHOLD


def test_ais_walkers_are_draws_of_the_model_and_stay_in_the_box():
    def one(rng_key):
        step_size = lambda b: 0.02 / (b + 0.02)
        return ais(rng_key, TWO_MODES, 2.0, num_walkers=500, num_temperatures=60, step_size=step_size)

    found = jax.vmap(one)(jax.random.split(jax.random.key(2), 50))
    assert float(jnp.abs(found.positions).max()) <= HALF_WIDTH
    weights = np.asarray(jnp.exp(found.log_weights))
    indicator = np.asarray(found.positions[..., 0] > 0)
    # all 25 000 walkers are independent: a ratio of means over them
    share = (weights * indicator).sum() / weights.sum()
    error = np.sqrt((weights**2 * (indicator - share) ** 2).sum()) / weights.sum()
    assert error < 0.02 and abs(share - 2 / 3) < THRESHOLD * error
    pooled = weights.mean()
    assert abs(np.log(pooled) - TWO_MODES_LOG_Z) < THRESHOLD * weights.std() / pooled / np.sqrt(weights.size)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="num_temperatures"):
        ais(jax.random.key(0), GAUSSIAN, A, num_temperatures=0)
    with pytest.raises(ValueError, match="number of positions"):
        reverse_ais(jax.random.key(0), GAUSSIAN, A, jnp.zeros((0, 2)))


def test_grid_is_exact():
    found = grid(GAUSSIAN, A, low=-4, high=4, num=200)
    assert abs(found.log_z - LOG_Z) < 1e-3
    assert found.points.shape == (200 * 200, 2)
    truth = norm.logpdf(found.points, MEAN, SCALE).sum(axis=1)
    np.testing.assert_allclose(found.log_prob, truth, atol=1e-3)
    found = grid(TWO_MODES, 2.0, low=-HALF_WIDTH, high=HALF_WIDTH, num=200)  # the box of the tilt itself is fine
    assert abs(found.log_z - TWO_MODES_LOG_Z) < 1e-3
    np.testing.assert_allclose(grid_mode_weights(found, side), [1 / 3, 2 / 3], atol=1e-3)


def test_a_box_that_cuts_off_mass_is_refused():
    with pytest.raises(ValueError, match=r"low = .* high = .*: widen"):
        grid(GAUSSIAN, A, low=-4, high=[4, 0.5])
    with pytest.raises(ValueError, match="zero at every point"):
        grid(TWO_MODES, 2.0, low=6, high=8)
    with pytest.raises(ValueError, match="low must be below"):
        grid(GAUSSIAN, A, low=4, high=-4)
    with pytest.raises(ValueError, match="integers"):
        grid_mode_weights(grid(GAUSSIAN, A, low=-4, high=4, num=50), lambda x: x[:, 0])


def flow_of(scale):
    """An even mixture at both modes."""

    def log_prob(params, x):
        both = jnp.stack([norm.logpdf(x, sign * 2.0, scale).sum() for sign in (-1, 1)])
        return jax.nn.logsumexp(both) - jnp.log(2)

    def sample_and_log_prob(rng_key, params):
        key_sign, key_normal = jax.random.split(rng_key)
        x = 2.0 * jax.random.rademacher(key_sign, ()) + scale * jax.random.normal(key_normal, (2,))
        return x, log_prob(params, x)

    return Flow(lambda rng_key, position: None, sample_and_log_prob, log_prob)


def test_importance_mode_weights_have_honest_errors():
    flow = flow_of(0.5)
    found = [mode_weights_importance(seed, TWO_MODES, 2.0, flow, None, side, 2, num_draws=1000) for seed in range(100)]
    z = np.array([(one.weights[1] - 2 / 3) / one.errors[1] for one in found])
    assert abs(z.mean()) < 0.4 and 0.8 < z.std() < 1.25
    assert all(abs(one.weights.sum() - 1) < 1e-12 and one.ess > 0.5 and one.pareto_k < 0.7 for one in found)
    with pytest.raises(ValueError, match="num_modes is 1"):
        mode_weights_importance(0, TWO_MODES, 2.0, flow, None, side, 1, num_draws=100)


def test_kl_of_gaussians_in_closed_form():
    loc, scale = jnp.array([0.5, 0.0]), 0.6
    draws = loc + scale * jax.random.normal(jax.random.key(3), (20_000, 2))
    value, error = kl_divergence(lambda x: norm.logpdf(x, loc, scale).sum(), draws, GAUSSIAN, A, LOG_Z)
    ratio = (scale / SCALE) ** 2
    truth = float(np.sum(0.5 * (ratio + (np.asarray(loc) - MEAN) ** 2 / SCALE**2 - 1 - np.log(ratio))))
    assert error < 0.03 and abs(value - truth) < THRESHOLD * error


def test_two_samples_of_one_law_are_not_told_apart_and_shifted_ones_are():
    keys = jax.random.split(jax.random.key(4), 3)
    x, y = jax.random.normal(keys[0], (600, 2)), jax.random.normal(keys[1], (600, 2))
    value, p_value = mmd({"a": x}, {"a": y}, rng_key=0)
    assert abs(value) < 0.01 and p_value > 0.01
    accuracy, error = c2st(0, x, y)
    assert abs(accuracy - 0.5) < 3 * error
    value, p_value = mmd(x, y + 0.5, rng_key=0)
    assert value > 0.01 and p_value < 0.01
    accuracy, error = c2st(0, x, y + 1.0)
    assert accuracy > 0.5 + THRESHOLD * error
    with pytest.raises(ValueError, match="one shape"):
        mmd(x, y[:, :1], rng_key=0)
    with pytest.raises(ValueError, match="odd"):
        c2st(0, x, y, num_neighbours=4)


def test_mmd_has_no_bias_and_its_p_value_is_uniform():
    rng = np.random.default_rng(0)
    found = [mmd(*rng.normal(size=(2, 40, 2)), rng_key=seed, num_permutations=99) for seed in range(200)]
    values, p_values = np.array(found).T
    assert abs(values.mean()) < THRESHOLD * values.std() / np.sqrt(200)
    assert abs(p_values.mean() - 0.505) < THRESHOLD / np.sqrt(12 * 200)
    x, y = rng.normal(size=(2, 5, 2))
    k = lambda a, b: np.exp(-0.5 * ((a[:, None] - b) ** 2).sum(-1) / 0.7**2)
    by_hand = (k(x, x).sum() - 5) / 20 + (k(y, y).sum() - 5) / 20 - 2 * k(x, y).mean()
    assert np.isclose(mmd(x, y, bandwidth=0.7, rng_key=0)[0], by_hand, rtol=1e-12)
