"""A Gaussian energy on a normal tilt: the density, log Z and the mean gradient of the energy in closed form."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ebm.model import Model
from flowmcmc import normal

TILT_SCALE = 2.0
DIM = 2
POSITION = jnp.zeros(DIM)


def make(position=POSITION, tilt=None) -> Model:
    """0.5 exp(log_precision) |x - mean|^2 on N(0, TILT_SCALE^2)."""

    def energy(theta, x):
        return 0.5 * jnp.exp(theta["log_precision"]) * jnp.sum((ravel_pytree(x)[0] - theta["mean"]) ** 2)

    def init(rng_key):
        return theta_at(jnp.array([-0.5, 0.8]), 0.3)

    return Model(init, energy, tilt or normal(position, scale=TILT_SCALE))


def theta_at(mean, log_precision):
    return {"mean": jnp.asarray(mean, float), "log_precision": jnp.asarray(log_precision, float)}


def law(theta):
    """Mean and variance of each coordinate."""
    precision = jnp.exp(theta["log_precision"])
    variance = 1 / (precision + 1 / TILT_SCALE**2)
    return variance * precision * theta["mean"], variance


def theta_of(mean, variance):
    """Where the model is N(mean, variance)."""
    precision = 1 / jnp.asarray(variance) - 1 / TILT_SCALE**2
    return theta_at(jnp.asarray(mean) / variance / precision, jnp.log(precision))


def log_z(theta):
    """log of the integral of N(x; 0, s^2) exp(-E(x)) = (2 pi v)^(d/2) N(mean; 0, s^2 + v), v = exp(-log_precision)."""
    v = jnp.exp(-theta["log_precision"])
    total = TILT_SCALE**2 + v
    return 0.5 * DIM * jnp.log(v / total) - 0.5 * jnp.sum(theta["mean"] ** 2) / total


def mean_gradient(theta):
    """E[grad_theta E(x)] for x from the model."""
    mean, variance = law(theta)
    precision = jnp.exp(theta["log_precision"])
    squared = jnp.sum((mean - theta["mean"]) ** 2) + DIM * variance
    return {"mean": precision * (theta["mean"] - mean), "log_precision": 0.5 * precision * squared}


def draw(rng_key, theta, num):
    mean, variance = law(theta)
    return mean + jnp.sqrt(variance) * jax.random.normal(rng_key, (num, DIM))
