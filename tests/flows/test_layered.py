"""Flows with layers: in single precision, with scales far apart, and what they refuse."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from flowmcmc import (
    gaussian_mixture,
    real_nvp,
    spline_flow,
)

TRAINED = {"nvp": partial(real_nvp, num_layers=4, hidden=8), "spline": partial(spline_flow, num_layers=4, hidden=8)}


def both_passes(flow, params, num_draws):
    """Draws, their log density, and the same computed from the draws by another program."""
    keys = jax.random.split(jax.random.key(2), num_draws)
    draws, log_q = jax.jit(jax.vmap(flow.sample_and_log_prob, (0, None)))(keys, params)
    again = jax.jit(jax.vmap(flow.log_prob, (None, 0)))(params, draws)
    return jax.tree.map(np.asarray, (draws, log_q, again))


@pytest.mark.parametrize("num_components", [1, 4])
@pytest.mark.parametrize("kind", TRAINED)
def test_float32_passes_agree_after_training(kind, num_components):
    """What the acceptance ratio can tell: an error e in log q changes a probability by the factor exp(e).

    One part in a hundred is asked for wherever the target has any mass. In the empty tails, where every proposal is
    rejected, extrapolating splines are steep and lose more, in at most one draw in two hundred.
    """
    position = jnp.zeros(2, jnp.float32)
    flow = TRAINED[kind](position, num_components=num_components)
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, 2 * np.pi, 2000)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1) * rng.choice([1.0, 3.0], (2000, 1))
    positions = jnp.asarray(ring + 0.1 * rng.standard_normal((2000, 2)), jnp.float32)
    ones = jnp.ones(2000, jnp.float32)

    @jax.jit
    def train():
        params = flow.init(jax.random.key(0), position)
        params = flow.fit(jax.random.key(1), params, positions, ones, positions, ones)
        optimizer = optax.adam(1e-2)

        def loss(params):
            return -jnp.mean(jax.vmap(flow.log_prob, (None, 0))(params, positions[:500]))

        def step(carry, _):
            params, opt_state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, opt_state = optimizer.update(grads, opt_state)
            return (optax.apply_updates(params, updates), opt_state), value

        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), None, 200)
        return params, losses

    params, losses = train()
    assert losses[-1] < losses[0] - 0.05
    draws, log_q, again = both_passes(flow, params, 5000)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, losses, draws, log_q, again))} == {jnp.dtype("float32")}
    error = np.abs(log_q - again)
    assert np.median(error) < 1e-5
    assert np.quantile(error, 0.99) < 1e-3
    assert np.mean(error > 1e-2) < (5e-3 if kind == "spline" else 1e-9)
    assert error[np.linalg.norm(draws, axis=1) < 3.5].max() < 1e-2


def test_scales_far_apart_are_handled_by_fit():
    """1e6 and 1e-6 in one position, in single precision too."""
    for dtype in (jnp.float32, jnp.float64):
        position = {"large": jnp.zeros((), dtype), "small": jnp.zeros(2, dtype)}
        rng = np.random.default_rng(0)
        positions = {
            "large": jnp.asarray(3e6 + 1e6 * rng.standard_normal(1000), dtype),
            "small": jnp.asarray(1e-6 * rng.standard_normal((1000, 2)), dtype),
        }
        flow = real_nvp(position, num_layers=2, hidden=8, num_components=2, defensive=0.0)
        ones = jnp.ones(1000, dtype)
        start = jax.jit(flow.init)(jax.random.key(1), position)
        params = jax.jit(flow.fit)(jax.random.key(0), start, positions, ones, positions, ones)
        draws, log_q, again = both_passes(flow, params, 2000)
        assert np.std(draws["large"]) == pytest.approx(1e6, rel=0.1)
        assert np.mean(draws["large"]) == pytest.approx(3e6, rel=0.1)
        assert np.std(draws["small"], axis=0) == pytest.approx([1e-6, 1e-6], rel=0.1)
        log_p = stats.norm.logpdf(draws["large"], 3e6, 1e6) + stats.norm.logpdf(draws["small"], 0, 1e-6).sum(1)
        assert np.isfinite(log_q).all()
        assert np.abs(log_p - log_q).mean() < 0.2
        assert np.abs(log_q - again).max() < 1e-4


@pytest.mark.parametrize("constructor", [gaussian_mixture, real_nvp, spline_flow])
@pytest.mark.parametrize(
    "options", [{"num_components": 0}, {"defensive": -0.1}, {"defensive": 1.0}, {"num_layers": 0}, {"hidden": 0}]
)
def test_options_out_of_range_raise_with_their_name(constructor, options):
    if constructor is gaussian_mixture and not {"num_components", "defensive"} & set(options):
        pytest.skip("has no such option")
    with pytest.raises(ValueError, match=next(iter(options))):
        constructor(jnp.zeros(2), **options)


def test_positions_that_are_not_floating_raise_with_their_name():
    with pytest.raises(TypeError, match=r"\['n'\].*int"):
        real_nvp({"x": jnp.zeros(2), "n": jnp.zeros(2, int)})
    with pytest.raises(ValueError, match="empty"):
        real_nvp({"x": jnp.zeros(0)})
