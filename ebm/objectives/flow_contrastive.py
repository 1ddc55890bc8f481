r"""Flow contrastive estimation: noise-contrastive estimation against a flow that learns to be taken for data.

    max_alpha min_{theta, c}  L = E_data[softplus(-h(x))] + E_z[softplus(h(y))],   y = f_alpha(z),
    h(x) = log rho(x) - E_theta(x) - c - log q_alpha(x)

The energy and log Z = c learn to classify; the flow q_alpha, through its draws and its density, descends the
Jensen-Shannon divergence from the data. Gao et al., arXiv 1912.00589; here both move in one step, not in turn.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ebm.method import Method, no_info
from ebm.model import Model, check_model
from ebm.objectives.nce import initial_log_z
from flowmcmc import Flow
from flowmcmc.ground.arguments import check_flow_type

__all__ = ["flow_contrastive"]


def flow_contrastive(model: Model, flow: Flow, params: Any) -> Method:
    """Energy and flow as adversaries; `extra` is (log Z, parameters of the flow), log Z from 0 on.

    Flow contrastive estimation: Gao et al., arXiv 1912.00589.

    Parameters
    ----------
    model
        Energy and tilt.
    flow
        The noise: draws must be differentiable in what is to be learned, as those of `flowmcmc.real_nvp` are. A flow
        without such parameters (`flowmcmc.gaussian_mixture`) stays as it is, which is plain `nce` with ratio 1.
    params
        Where the flow starts: fit it to the data first, a flow far from them teaches nothing. What only ``flow.fit``
        sets has no gradient and stays; leaves may be infinite (log weights of unused components).

    Returns
    -------
    Method
        Its loss has the value of L, a scalar in nats, and the gradients of L in theta and log Z, of -L in the flow's
        parameters; `MethodInfo` reports the learned log Z.

    Raises
    ------
    ValueError
        If `params` has leaves that are not floating arrays.

    Example
    -------
    >>> x, flow = jnp.zeros(2), flowmcmc.real_nvp(jnp.zeros(2))
    >>> params = flow.init(jax.random.key(0), x)  # then train it, or flow.fit
    >>> method = flow_contrastive(Model(*mlp(x), normal(x, scale=3.0)), flow, params)
    """
    check_model(model)
    check_flow_type(flow)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating):
            raise ValueError(
                f"params must be made of floating arrays, as gradients are taken in all of them, but "
                f"params{jax.tree_util.keystr(path)} is {getattr(leaf, 'dtype', type(leaf).__name__)}: "
                "let the flow's functions hold it instead."
            )

    def init(rng_key, theta, data):
        return (initial_log_z(model, theta, data), jax.tree.map(jnp.asarray, params)), ()

    def classification_loss(rng_key, theta, log_z, params, batch):
        def log_model(x):
            return model.logdensity(theta, x) - log_z

        keys = jax.random.split(rng_key, jax.tree.leaves(batch)[0].shape[0])
        draws, log_prob = jax.vmap(flow.sample_and_log_prob, (0, None))(keys, params)
        on_data = jax.vmap(log_model)(batch) - jax.vmap(flow.log_prob, (None, 0))(params, batch)
        on_noise = jax.vmap(log_model)(draws) - log_prob
        return jnp.mean(jax.nn.softplus(-on_data)) + jnp.mean(jax.nn.softplus(on_noise))

    def loss(rng_key, theta, extra, state, batch):
        log_z, params = extra
        fixed_theta, fixed_log_z, fixed_params = jax.lax.stop_gradient((theta, log_z, params))
        for_energy = classification_loss(rng_key, theta, log_z, fixed_params, batch)
        for_flow = classification_loss(rng_key, fixed_theta, fixed_log_z, params, batch)
        # the last two terms cancel in value and leave the gradient of -L for the flow
        value = for_energy + jax.lax.stop_gradient(for_flow) - for_flow
        return value, (state, no_info()._replace(log_z=fixed_log_z))

    return Method(init, loss)
