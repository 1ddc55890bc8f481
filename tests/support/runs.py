"""Small runs that several files look at."""

import jax
import jax.numpy as jnp
from support.targets import two_modes

import flowmcmc

SMALL = {"num_warmup": 60, "num_samples": 300, "progress_bar": False}


def starts(dim=2, num_chains=40):
    sign = jnp.where(jnp.arange(num_chains) % 2 == 0, 3.0, -3.0)[:, None]
    return sign + jax.random.normal(jax.random.key(0), (num_chains, dim))


def small_flow(position):
    return flowmcmc.real_nvp(position, num_layers=1, hidden=8, num_components=2)


def mixture_of(position, num_components=2):
    """A flow that is fitted, not trained: gradients compile for longer than all the rest of a small run takes.

    With as many components as the target has modes none is dropped after warm-up, and draws share its program.
    """
    return flowmcmc.gaussian_mixture(position, num_components=num_components)


TINY = {"num_warmup": 10, "num_local_steps": 1, "num_flow_steps": 1, "progress_bar": False}


def tiny_run(density=two_modes, seed=0, **options):
    """20 chains on two modes; runs that differ in their lengths and seeds alone share their programs."""
    positions = 3.0 * jax.random.normal(jax.random.key(1), (20, 2))
    return flowmcmc.sample(seed, density, positions, **TINY | {"flow": mixture_of(jnp.zeros(2))} | options)
