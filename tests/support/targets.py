"""Small densities shared by the tests."""

import jax.numpy as jnp


def normal(x):
    """Standard normal of any shape."""
    return -0.5 * jnp.sum(x**2)


def half_normal(x):
    """|N(0, 1)| in each coordinate: a hard wall at zero."""
    return jnp.where(jnp.all(x > 0), -0.5 * jnp.sum(x**2), -jnp.inf)


def two_modes(x):
    """Weights 2:1 at +-3 along every coordinate, unit variance."""
    return jnp.logaddexp(jnp.log(2 / 3) + normal(x - 3), jnp.log(1 / 3) + normal(x + 3))
