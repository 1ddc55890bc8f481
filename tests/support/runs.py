"""Small runs that several files look at."""

import jax
import jax.numpy as jnp

import flowmcmc

SMALL = {"num_warmup": 60, "num_samples": 300, "progress_bar": False}


def starts(dim=2, num_chains=40):
    sign = jnp.where(jnp.arange(num_chains) % 2 == 0, 3.0, -3.0)[:, None]
    return sign + jax.random.normal(jax.random.key(0), (num_chains, dim))


def small_flow(position):
    return flowmcmc.real_nvp(position, num_layers=2, hidden=8, num_components=4)
