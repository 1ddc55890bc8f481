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


def far_modes(x):
    """log of 5 (0.3 N(x; (-4, 0), 0.5^2) + 0.7 N(x; (4, 1), I)): log Z = log 5."""
    near = jnp.log(0.3) - 0.5 * jnp.sum((x - jnp.array([-4.0, 0.0])) ** 2) / 0.25 - jnp.log(0.25)
    far = jnp.log(0.7) - 0.5 * jnp.sum((x - jnp.array([4.0, 1.0])) ** 2)
    return jnp.log(5.0) + jnp.logaddexp(near, far) - jnp.log(2 * jnp.pi)


def funnel(x):
    """Neal's: v ~ N(0, 9), the others N(0, exp(v))."""
    return -0.5 * (x[0] / 3) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (len(x) - 1) * x[0]
