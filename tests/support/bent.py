"""A curved ridge with exact draws, and a flow of random layers on it: far from the identity, and from the target."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.stats import norm
from support.helpers import TARGETS, Target

from flowmcmc import real_nvp


def bent_logdensity(x):
    return norm.logpdf(x[0]) + norm.logpdf(x[1], 0.5 * x[0] ** 2, 0.5)


def bent_draw(key):
    z = jax.random.normal(key, (2,))
    return jnp.array([z[0], 0.5 * z[0] ** 2 + 0.5 * z[1]])


def bent_functions(x):
    ridge = x[1] - 0.5 * x[0] ** 2
    return jnp.array([x[0], x[1], x[0] ** 2, x[0] * x[1], ridge, ridge**2, x[0] * ridge, x[0] > 1, bent_logdensity(x)])


BENT = Target(bent_logdensity, bent_draw, bent_functions)


def target_of(name):
    return BENT if name == "bent" else TARGETS[name]


@cache
def flow_and_params(name):
    """Mean and spread of draws, and layers of random weights: far from the identity, and from the target."""
    target = target_of(name)
    flow = real_nvp(target.position, num_layers=2, hidden=8, num_components=2)
    draws = jax.vmap(lambda x: ravel_pytree(x)[0])(target.draws(1, 200))
    params = flow.init(jax.random.key(0), target.position)
    affine = params.affine._replace(loc=jnp.mean(draws, axis=0), scale=jnp.std(draws, axis=0))
    leaves, treedef = jax.tree.flatten(params.layers)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    layers = [leaf + 0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
    assert np.isneginf(params.mixture.log_weights).any()  # an unused component, as after any fit
    return flow, params._replace(affine=affine, layers=jax.tree.unflatten(treedef, layers))
