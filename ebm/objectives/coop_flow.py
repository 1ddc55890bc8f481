r"""CoopFlow: a flow proposes, noise-free Langevin refines, and each teaches the other.

    x- = (x + eps grad log p_theta(x)) applied num_steps times, x ~ q_alpha
    theta follows mean E(x+) - mean E(x-),   alpha follows mean -log q_alpha(x-)

Neither a sampler of p_theta nor unbiased; it is here to be compared with. Xie et al., arXiv 2205.06924.
"""

import jax
import jax.numpy as jnp

from ebm.method import Method, energy_gap
from ebm.model import Model
from ebm.negatives.chains import check_positive, local_tuning, short_run
from ebm.negatives.langevin import gradient_ascent
from flowmcmc import Flow, freeze

__all__ = ["coop_flow"]


def coop_flow(
    model: Model, flow: Flow, params, *, num_chains: int = 256, num_steps: int = 256, step_size: float = 5e-4
) -> Method:
    """Train an energy with a flow as its short-run proposal; the flow is learned beside it by the same optimiser.

    CoopFlow: Xie et al., arXiv 2205.06924.

    Parameters
    ----------
    model, flow, params
        The flow starts at `params`, usually fitted to the data by `flowmcmc.fit_flow`.
    num_chains, num_steps, step_size
        Negatives for an update, and their noise-free Langevin steps.

    Returns
    -------
    Method
        Its `extra` is the parameters of the flow. The value of its loss is the energy gap, in nats; its gradient in
        `extra` is that of -log q over the negatives.
    """
    check_positive(num_chains=num_chains, num_steps=num_steps)
    position = jax.eval_shape(model.tilt.sample, jax.random.key(0))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), position)

    def make_sampler(logdensity_fn):
        tuning = local_tuning(step_size, ones)
        return freeze(logdensity_fn, gradient_ascent, None, tuning, num_local_steps=num_steps, num_flow_steps=0)

    def negatives(flow_params):
        return short_run(make_sampler, lambda key: flow.sample_and_log_prob(key, flow_params)[0], num_chains=num_chains)

    def init(rng_key, theta, data):
        return params, negatives(params).init(rng_key, lambda x: model.logdensity(theta, x), data)

    def loss(rng_key, theta, extra, state, batch):
        fixed_theta, fixed_flow = jax.lax.stop_gradient((theta, extra))
        positions, weights, state, info = negatives(fixed_flow).step(
            rng_key, state, lambda x: model.logdensity(fixed_theta, x), batch
        )
        positions, state = jax.lax.stop_gradient((positions, state))
        gap, _ = energy_gap(model, theta, batch, positions, weights)
        fit = -jnp.mean(jax.vmap(flow.log_prob, (None, 0))(extra, positions))
        # adds the gradient for the flow but not its value, so that the loss is the energy gap
        return gap + fit - jax.lax.stop_gradient(fit), (state, info)

    return Method(init, loss)
