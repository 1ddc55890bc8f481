"""Rounds of local steps and flow proposals with everything learned held fixed, on the targets and at a wall."""

from functools import partial

import blackjax
import jax
import jax.numpy as jnp
from support.helpers import Target, gaussian_flow

from flowmcmc import Tuning, freeze, imh, isir

small_isir = partial(isir, num_proposals=4)


def tuning(target, params, step_size=0.4):
    """Local steps in coordinates of unequal scales, as warm-up would leave them."""
    scale = jax.tree.map(lambda x: jnp.full_like(x, 0.5).at[(-1,) * x.ndim].set(2.0), target.position)
    return Tuning(params, jnp.array(step_size, jax.tree.leaves(scale)[0].dtype), scale)


def frozen(target, flow, params, local=blackjax.mala, flow_kernel=imh, num_flow_steps=2):
    return freeze(
        target.logdensity,
        local,
        flow,
        tuning(target, params),
        num_local_steps=2,
        num_flow_steps=num_flow_steps,
        flow_kernel=flow_kernel,
    )


HALF_NORMAL = Target(
    lambda x: -0.5 * x**2,
    lambda key: jnp.abs(jax.random.normal(key)),
    lambda x: jnp.array([x, x**2, x < 0, x > 1.5, jnp.cos(3 * x)]),
)
WALL_FLOW = gaussian_flow(0.3, 1.2)


def halved(value):
    """N(0, 1) on x > 0, and `value` elsewhere."""
    return lambda x: jnp.where(x > 0, -0.5 * x**2, value)
