"""Whether a density of two coordinates is normalised, and its draws are its own."""

import jax
import jax.numpy as jnp
import numpy as np


def check_density_in_2d(density, mean, deviation) -> None:
    grid = jnp.linspace(-8, 8, 801)  # 0.02 apart, walls half way between
    x = jnp.stack(jnp.meshgrid(grid + 0.01, grid + 0.01), axis=-1).reshape(-1, 2)
    mass = jnp.exp(jax.jit(jax.vmap(density.log_prob))(x)) * 0.02**2
    np.testing.assert_allclose(jnp.sum(mass), 1.0, rtol=1e-6)
    np.testing.assert_allclose(mass @ x, mean, atol=1e-6)
    draws = jax.jit(jax.vmap(density.sample))(jax.random.split(jax.random.key(0), 10_000))
    assert np.all(np.abs(np.mean(draws, axis=0) - np.array(mean)) < 4.5 * np.array(deviation) / 100)
    np.testing.assert_allclose(np.std(draws, axis=0), deviation, rtol=0.05)
